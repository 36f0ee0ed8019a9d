#include "tests/sim/unsteady_reports.hpp"

namespace troupe::sim {

namespace {

using namespace std::chrono_literals;

constexpr nanoseconds late_max = 3s;

} // namespace

unsteady_reports::unsteady_reports(world& w) : world_(w) {
  if (w.chance(0.5))
    share_ = w.chance(0.5) ? 0.03 : 0.3;
}

void unsteady_reports::pass(process& from, const world::action& say) const {
  auto fault = share_ > 0 && world_.chance(share_);
  auto kind = fault ? world_.below(3) : 0;
  if (!fault || kind == 0)
    say();
  if (fault && kind <= 1)
    from.after(world_.between(1ms, late_max), say);
}

void unsteady_reports::pass_in_order(const world::action& say) const {
  auto fault = share_ > 0 && world_.chance(share_);
  if (fault && world_.chance(0.5))
    return;
  say();
  if (fault)
    say();
}

void unsteady_reports::repeat(process& from, const world::action& say) const {
  if (share_ > 0 && world_.chance(share_))
    from.after(world_.between(1ms, late_max), say);
}

} // namespace troupe::sim
