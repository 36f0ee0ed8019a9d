#include "tests/sim/process.hpp"

#include "tests/sim/network.hpp"
#include "tests/sim/shown_clock.hpp"

#include <algorithm>
#include <csignal>
#include <utility>

namespace troupe::sim {

process_id process_table::add(std::unique_ptr<process> made) {
  made->id_ = static_cast<process_id>(all_.size() + 1);
  all_.push_back(std::move(made));
  return all_.back()->id();
}

process* process_table::find_living(process_id id) const {
  return id != 0 && at(id).alive() ? &at(id) : nullptr;
}

local_time host_clock::read(instant true_time) const {
  auto gone = static_cast<double>(true_time.count()) * rate;
  return local_time{at_start + nanoseconds{static_cast<std::int64_t>(gone)}};
}

std::chrono::system_clock::time_point
host_clock::read_wall(instant true_time) const {
  auto gone = static_cast<double>(true_time.count()) * rate;
  return std::chrono::system_clock::time_point{
      wall_at_start + nanoseconds{static_cast<std::int64_t>(gone)}};
}

nanoseconds host_clock::true_length(nanoseconds local) const {
  return nanoseconds{
      static_cast<std::int64_t>(static_cast<double>(local.count()) / rate)};
}

process::process(surroundings around, host_id host, const host_clock& clock,
                 std::string name, process_id parent)
    : around_(around), host_(host), clock_(clock), name_(std::move(name)),
      parent_(parent) {
  // nop
}

void process::freeze() {
  if (!alive_ || ++frozen_ > 1)
    return;
  around_.world.trace("freeze", name_, id_);
  around_.network.stopped(id_);
}

void process::thaw() {
  if (!alive_ || --frozen_ > 0)
    return;
  around_.world.trace("thaw", name_, id_);
  around_.network.went_on(id_);
  auto waiting = std::exchange(backlog_, {});
  for (auto& what : waiting)
    run(std::move(what));
}

void process::kill(ending how) {
  if (!alive_)
    return;
  around_.world.trace("end of", name_, id_, how.exit_code, how.signal);
  alive_ = false;
  backlog_.clear();
  timers_.clear();
  asked_.clear();
  around_.network.died(id_, how.signal != 0);
  for (process_id child = 1; child <= around_.processes.all().size(); ++child)
    if (around_.processes.at(child).parent() == id_)
      around_.processes.at(child).kill({0, SIGKILL});
  around_.world.after(
      around_.world.between(nanoseconds{0}, milliseconds{20}), [this, how] {
        if (auto* parent = around_.processes.find_living(parent_))
          parent->run([this, parent, how] { parent->on_child_end(id_, how); });
      });
}

void process::run(world::action what) {
  if (!alive_)
    return;
  if (frozen()) {
    backlog_.push_back(std::move(what));
    return;
  }
  shown_clock shown{clock_, around_.world};
  what();
}

local_time process::now() const {
  return clock_.read(around_.world.now());
}

void process::after(nanoseconds local, world::action what) {
  if (!alive_)
    return;
  auto due = now() + std::max(local, nanoseconds{0});
  timers_.emplace(due, std::move(what));
  wake_at(due);
}

void process::wake_at(local_time due) {
  // Rounded up: then it is due.
  auto pause = clock_.true_length(due - now()) + nanoseconds{1};
  around_.world.after(pause, [this, due] { ring(due); });
}

/// Timers by the host's clock, which may have leapt or stood still meanwhile.
void process::ring(local_time due) {
  if (!alive_)
    return;
  if (frozen()) { // who knows what time it is when it goes on
    backlog_.push_back([this, due] { ring(due); });
    return;
  }
  if (now() < due) {
    wake_at(due);
    return;
  }
  std::vector<world::action> all;
  auto end = timers_.upper_bound(now());
  for (auto i = timers_.begin(); i != end; i = timers_.erase(i))
    all.push_back(std::move(i->second));
  for (auto& what : all)
    run(std::move(what));
}

void process::clock_leapt() {
  ring(now());
}

void process::send(link_id link, message what) {
  if (alive_)
    around_.network.send(id_, link, std::move(what));
}

void process::request(link_id link, message what, nanoseconds timeout,
                      on_answer done) {
  expect_answer(what, timeout, std::move(done));
  send(link, std::move(what));
}

void process::expect_answer(message& what, nanoseconds timeout,
                            on_answer done) {
  auto number = what.number = ++last_request_;
  asked_[number] = std::move(done);
  after(timeout, [this, number] {
    auto asked = asked_.find(number);
    if (asked == asked_.end())
      return;
    auto done = std::move(asked->second);
    asked_.erase(asked);
    done(nullptr);
  });
}

void process::answer(link_id link, const message& request, message what) {
  what.what = topic::answer;
  what.number = request.number;
  send(link, std::move(what));
}

void process::watch(link_id link) {
  if (link != 0 && !around_.network.is_open(link, id_))
    after(nanoseconds{0}, [this, link] { on_down(link); });
}

void process::receive(link_id link, message what) {
  run([this, link, what = std::move(what)]() mutable {
    if (what.what != topic::answer) {
      on_message(link, what);
      return;
    }
    auto asked = asked_.find(what.number);
    if (asked == asked_.end())
      return; // too late
    auto done = std::move(asked->second);
    asked_.erase(asked);
    done(&what);
  });
}

/// News of a lost connection overtake what waits (runtime::watch).
void process::hear_down(link_id link) {
  auto hear = [this, link] { on_down(link); };
  if (frozen() && alive_ && around_.world.chance(0.5))
    backlog_.push_front(hear);
  else
    run(hear);
}

} // namespace troupe::sim
