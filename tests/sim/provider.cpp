#include "tests/sim/provider.hpp"

#include "tests/sim/node_process.hpp"

#include <algorithm>
#include <csignal>
#include <utility>

namespace troupe::sim {

namespace {

using namespace std::chrono_literals;

constexpr nanoseconds look_every = 100ms;
constexpr nanoseconds end_max = 4s; ///< from SIGTERM to SIGKILL

} // namespace

simulated_provider::simulated_provider(world& w, process_table& processes,
                                       const disk& d, start_node start)
    : world_(w), processes_(processes), disk_(d), start_(std::move(start)) {
  auto time = [&](milliseconds low, milliseconds high) {
    return std::chrono::duration_cast<milliseconds>(w.between(low, high));
  };
  auto number = [&](std::uint64_t low, std::uint64_t high) {
    return static_cast<std::uint32_t>(low + w.below(high - low + 1));
  };
  options_.max_workers = number(1, 4);
  auto add = [&](const char* name, std::uint32_t cpus, std::uint32_t most) {
    autoscaler::node_type type;
    type.name = name;
    type.resources = {{"CPU", cpus}, {"memory", 0x1p34}};
    type.engines = {"cpu"};
    type.min_workers = w.chance(0.3) ? 1 : 0;
    type.max_workers = most;
    options_.types.push_back(std::move(type));
  };
  add("small", number(1, 2), options_.max_workers);
  if (w.chance(0.5))
    add("large", 3, number(1, options_.max_workers));
  options_.upscaling_speed = 1;
  options_.idle_timeout = time(300ms, 2s);
  options_.arrival_max = time(1500ms, 4s);
  options_.lost_max = time(300ms, 3s);
  options_.stable_after = time(300ms, 3s);
  options_.rest = time(300ms, 1s);
  options_.rest_max = 3s;
  options_.store_retry = 200ms;
  fails_ = w.chance(0.5) ? 0.3 : 0;
}

std::uint32_t simulated_provider::cpus() const {
  auto each = options_.types.front().resources.at("CPU");
  return options_.max_workers * static_cast<std::uint32_t>(each);
}

void simulated_provider::serve(process& head) {
  head_ = head.id();
  tell_ = nullptr;
  // With the head before:
  asked_.clear();
  to_end_.clear();
  last_wish_ = {};
}

std::vector<node::living_node> simulated_provider::living() {
  std::vector<node::living_node> out;
  for (auto i = machines_.begin(); i != machines_.end();) {
    auto current = i++;
    if (is_gone(current->second))
      machines_.erase(current);
    else
      out.push_back({current->first, current->second.ending});
  }
  return out;
}

void simulated_provider::listen(gone tell) {
  tell_ = std::move(tell);
}

// -- it brings
// -------------------------------------------------------------------

void simulated_provider::check_ask(const std::string& node,
                                   const std::string& type) const {
  const auto& stored = disk_.now().asked;
  if (std::none_of(stored.begin(), stored.end(),
                   [&](const auto& one) { return one.node == node; }))
    world_.fail("I9", node + " is asked for before it is stored");
  if (names_.contains(node))
    world_.fail("I9", node + " is asked for twice");
  std::map<std::string, std::uint32_t> count{{type, 1}};
  for (const auto& [name, one] : machines_)
    if (!one.ending && !to_end_.contains(name))
      ++count[one.type];
  for (const auto& [name, other] : asked_)
    ++count[other];
  std::uint32_t all = 0;
  for (const auto& one : options_.types) {
    all += count[one.name];
    if (count[one.name] > one.max_workers)
      world_.fail("I9", node + " is one of too many " + one.name);
  }
  if (all > options_.max_workers)
    world_.fail("I9", node + " is one more than there may be");
}

void simulated_provider::ask(const std::string& node, const std::string& type) {
  check_ask(node, type);
  world_.trace("ask for a node", node);
  names_.insert(node);
  asked_[node] = type;
  in_turn([this, node, type] { begin(node, type); });
}

void simulated_provider::begin(const std::string& node,
                               const std::string& type) {
  asked_.erase(node);
  auto boot = world_.between(20ms, 500ms);
  auto fails = world_.chance(fails_) ? world_.below(4) : 4;
  if (fails == 0) {
    tell(node, "there is none");
    return;
  }
  machines_[node].type = type;
  if (fails == 1) // about when nobody waits for it any more
    boot = world_.between(options_.arrival_max / 2, options_.arrival_max * 2);
  if (fails != 2) // else it ends before it does anything
    come(node, boot);
  if (fails == 3)
    come(node, boot + world_.between(0ms, 2s));
  if (!std::exchange(looks_, true))
    look();
}

void simulated_provider::come(const std::string& node, nanoseconds when) {
  ++machines_[node].coming;
  world_.after(when, [this, node] {
    auto found = machines_.find(node);
    if (found == machines_.end() || found->second.coming == 0)
      return; // it was ended
    auto& one = found->second;
    --one.coming;
    for (const auto& type : options_.types)
      if (type.name == one.type)
        one.processes.push_back(
            start_(node, static_cast<std::uint32_t>(type.resources.at("CPU"))));
  });
}

// -- it ends
// -------------------------------------------------------------------

void simulated_provider::end(const std::string& node) {
  to_end_.insert(node);
  in_turn([this, node] { tell_to_end(node); });
}

/// On its thread, in the head's process.
void simulated_provider::in_turn(world::action what) {
  auto& head = processes_.at(head_);
  auto pause = world_.between(10us, 20ms);
  last_wish_ = std::max(last_wish_, head.now() + pause);
  head.after(last_wish_ - head.now(), std::move(what));
}

void simulated_provider::tell_to_end(const std::string& node) {
  auto found = machines_.find(node);
  if (found == machines_.end() || found->second.ending)
    return;
  world_.trace("end a node", node);
  auto& one = found->second;
  one.ending = true;
  one.coming = 0;
  one.kill_at = world_.now() + end_max;
  for (auto id : one.processes)
    if (auto* process = processes_.find_living(id))
      process->run([process] {
        static_cast<node_process*>(process)->stop(end_max / 2);
      });
}

bool simulated_provider::is_gone(const machine& one) const {
  return one.coming == 0 &&
         std::none_of(
             one.processes.begin(), one.processes.end(),
             [this](auto id) { return processes_.find_living(id) != nullptr; });
}

void simulated_provider::look() {
  for (auto i = machines_.begin(); i != machines_.end();) {
    auto current = i++;
    auto& [node, one] = *current;
    if (world_.now() >= one.kill_at)
      for (auto id : one.processes)
        processes_.at(id).kill({0, SIGKILL});
    if (one.processes.size() > 1 && world_.chance(0.2))
      processes_.at(one.processes.back()).kill({0, SIGKILL}); // once is enough
    if (!is_gone(one))
      continue;
    tell(node, one.ending ? "" : "it has ended");
    machines_.erase(current);
  }
  looks_ = !machines_.empty();
  if (looks_)
    world_.after(look_every, [this] { look(); });
}

void simulated_provider::tell(const std::string& node, const std::string& why) {
  world_.trace("a node is gone", node, why);
  if (auto* head = processes_.find_living(head_))
    head->run([this, node, why] {
      if (tell_)
        tell_(node, why);
    });
}

} // namespace troupe::sim
