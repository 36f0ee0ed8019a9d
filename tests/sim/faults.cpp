#include "tests/sim/faults.hpp"

#include <csignal>
#include <utility>

namespace troupe::sim {

namespace {

using namespace std::chrono_literals;

} // namespace

faults::faults(cluster& c, traffic& t) : cluster_(c), traffic_(t) {
  const kind all[] = {
      {"kill replica", &faults::kill_replica},
      {"crash replica", &faults::crash_replica},
      {"freeze replica", &faults::freeze_replica},
      {"hang engine", &faults::hang_engine},
      {"kill head", &faults::kill_head},
      {"kill worker", &faults::kill_worker},
      {"freeze node", &faults::freeze_node},
      {"stop host", &faults::stop_host},
      {"poison", &faults::send_poison},
      {"cut pair", &faults::cut_pair},
      {"cut one way", &faults::cut_one_way},
      {"lose node", &faults::lose_node},
      {"cut off", &faults::cut_off},
      {"lose connection", &faults::lose_connection},
      {"slow network", &faults::slow_network},
      {"refuse connections", &faults::refuse_connections},
      {"slow disk", &faults::slow_disk},
      {"full disk", &faults::full_disk},
      {"break starts", &faults::break_starts},
  };
  auto share = c.world().chance(0.5) ? 0.2 : 0.7;
  while (kinds_.empty())
    for (const auto& one : all)
      if (c.world().chance(share))
        kinds_.push_back(one);
}

void faults::strike() {
  auto& what = cluster_.world().pick(kinds_);
  cluster_.world().trace("fault:", what.name);
  (this->*what.strike)();
}

void faults::heal() {
  cluster_.world().trace("heal");
  for (auto& [number, undo] : std::exchange(open_, {}))
    undo();
  cluster_.network().notice_lost();
  for (auto i : cluster_.members())
    if (cluster_.node(i) == nullptr)
      cluster_.start(i);
  if (auto* provider = cluster_.provider())
    provider->heal();
}

void faults::later(nanoseconds time, world::action undo) {
  auto number = ++last_;
  open_[number] = std::move(undo);
  cluster_.world().after(time, [this, number] {
    auto known = open_.find(number);
    if (known == open_.end())
      return; // healed
    auto undo = std::move(known->second);
    open_.erase(known);
    undo();
  });
}

/// Below and above the second after which a peer is given up.
nanoseconds faults::short_or_long() {
  auto& w = cluster_.world();
  return w.chance(0.5) ? w.between(10ms, 1500ms) : w.between(1s, 8s);
}

std::size_t faults::any_node() {
  auto all = cluster_.members();
  return cluster_.world().pick(all);
}

// -- processes
// -----------------------------------------------------------------

void faults::kill_replica() {
  auto all = cluster_.replicas();
  if (!all.empty())
    cluster_.world().pick(all)->kill({0, SIGKILL});
}

void faults::crash_replica() {
  auto all = cluster_.replicas();
  if (!all.empty())
    cluster_.world().pick(all)->crash(cluster_.world().chance(0.5) ? SIGSEGV
                                                                   : SIGABRT);
}

void faults::freeze(process_id id, nanoseconds time) {
  cluster_.processes().at(id).freeze();
  later(time, [this, id] { cluster_.processes().at(id).thaw(); });
}

void faults::freeze_replica() {
  auto all = cluster_.replicas();
  if (!all.empty())
    freeze(cluster_.world().pick(all)->id(), short_or_long());
}

void faults::hang_engine() {
  auto all = cluster_.replicas();
  if (!all.empty())
    cluster_.world().pick(all)->hang();
}

void faults::kill_node(std::size_t node, nanoseconds restart_after) {
  auto* process = cluster_.node(node);
  if (process == nullptr)
    return;
  process->kill({0, SIGKILL});
  if (node == 0)
    cluster_.disk().crash();
  if (cluster_.is_brought(node))
    return;
  later(restart_after, [this, node] {
    if (cluster_.node(node) == nullptr)
      cluster_.start(node);
  });
}

void faults::kill_head() {
  kill_node(0, short_or_long());
}

void faults::kill_worker() {
  auto all = cluster_.members();
  all.erase(all.begin()); // the head
  kill_node(cluster_.world().pick(all), short_or_long());
}

void faults::freeze_node() {
  if (auto* process = cluster_.node(any_node()))
    freeze(process->id(), short_or_long());
}

/// As a machine that is moved or saved: its clock shows the time that passed,
/// more than that, or none of it.
void faults::stop_host() {
  auto& w = cluster_.world();
  auto node = any_node();
  if (!cluster_.stop_host(node))
    return;
  auto unaware = w.chance(0.4);
  auto leap = w.chance(0.5) ? w.between(0ms, 10s) : 0ns;
  later(short_or_long(), [this, node, leap, unaware] {
    cluster_.resume_host(node, leap, unaware);
  });
}

void faults::send_poison() {
  traffic_.submit_poison();
}

// -- the network
// -------------------------------------------------------------------

void faults::cut(host_id from, host_id to, nanoseconds time) {
  cluster_.network().block(from, to);
  later(time, [this, from, to] { cluster_.network().unblock(from, to); });
}

void faults::cut_pair() {
  auto a = cluster_.host_of(any_node());
  auto b = cluster_.host_of(any_node());
  auto time = short_or_long();
  cut(a, b, time);
  cut(b, a, time);
}

void faults::cut_one_way() {
  cut(cluster_.host_of(any_node()), cluster_.host_of(any_node()),
      short_or_long());
}

void faults::cut_all(std::size_t node, nanoseconds time) {
  auto here = cluster_.host_of(node);
  for (std::size_t i = 0; i < cluster_.size(); ++i) {
    if (i == node)
      continue;
    cut(here, cluster_.host_of(i), time);
    cut(cluster_.host_of(i), here, time);
  }
}

void faults::cut_off() {
  cut_all(any_node(), short_or_long());
}

/// The machine is gone: nobody hears a word of its processes' end.
void faults::lose_node() {
  auto node = any_node();
  auto time = short_or_long();
  cut_all(node, time);
  kill_node(node, time);
}

void faults::lose_connection() {
  cluster_.network().lose_connection();
}

void faults::slow_network() {
  auto& w = cluster_.world();
  cluster_.network().slow_down(w.between(1ms, 250ms));
  later(short_or_long(), [this] { cluster_.network().slow_down(0ns); });
}

void faults::refuse_connections() {
  cluster_.network().refuse(cluster_.world().chance(0.5) ? 0.3 : 0.9);
  later(short_or_long(), [this] { cluster_.network().refuse(0); });
}

// -- disks and starts
// --------------------------------------------------------------

void faults::slow_disk() {
  cluster_.disk().slow_down(cluster_.world().between(20ms, 1500ms));
  later(short_or_long(), [this] { cluster_.disk().slow_down(1ms); });
}

void faults::full_disk() {
  cluster_.disk().fill(true);
  later(short_or_long(), [this] { cluster_.disk().fill(false); });
}

void faults::break_starts() {
  auto& to = cluster_.starts;
  (cluster_.world().chance(0.5) ? to.cannot_spawn : to.cannot_load) = 0.5;
  later(short_or_long(), [this] { cluster_.starts = {}; });
}

// -- wall clocks
// -------------------------------------------------------------------

void faults::jump_wall_clocks(std::uint64_t seed, instant end) {
  wall_random_.seed(scramble(seed));
  jump_again(end);
}

void faults::jump_again(instant end) {
  auto up_to = [this](nanoseconds most) {
    return nanoseconds{static_cast<std::int64_t>(
        wall_random_() % static_cast<std::uint64_t>(most.count()))};
  };
  cluster_.world().after(up_to(1s), [this, up_to, end] {
    if (cluster_.world().now() >= end)
      return;
    nanoseconds most = wall_random_() % 2 == 0 ? 1h : 3s;
    cluster_.jump_wall_clock(wall_random_() % cluster_.size(),
                             up_to(2 * most) - most);
    jump_again(end);
  });
}

} // namespace troupe::sim
