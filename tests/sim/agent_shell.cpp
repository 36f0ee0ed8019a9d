#include "tests/sim/agent_shell.hpp"

#include "tests/sim/unsteady_reports.hpp"

#include <algorithm>
#include <csignal>
#include <utility>
#include <variant>

namespace troupe::sim {

namespace {

using namespace std::chrono_literals;
using namespace protocol;

constexpr nanoseconds tick_interval = 100ms;
const nanoseconds answer_max = node_agent::head_link_limits{}.answer_max;

} // namespace

agent_shell::agent_shell(process& self, surroundings around, node_joined node,
                         std::uint16_t port, outside out)
    : self_(self), around_(around),
      outside_(std::move(out)), where_{node.address, port, 0, node.incarnation},
      machine_(std::move(node), {}, {}, around.world.random(), self.now()) {
  self_.after(0ns, [this] { tick(); });
}

// -- what it hears
// -----------------------------------------------------------------

void agent_shell::from_controller(message& what) {
  if (what.what == topic::assign) {
    auto assignment = decode_node_assignment(what.body);
    if (!assignment)
      around_.world.fail("I2", "an assignment cannot be read");
    obey_assignment(*assignment);
  } else if (what.what == topic::table) {
    outside_.take_table(what.body);
  } else if (what.what == topic::death_elsewhere) {
    outside_.take_death(what.body);
  } else if (what.what == topic::others) {
    around_.reports.pass_in_order(
        [this, body = what.body] { outside_.take_others(body); });
  }
}

/// What was assigned to an older epoch of the node changes nothing (I4).
void agent_shell::obey_assignment(const node_assignment& x) {
  if (!machine_.joined())
    early_epoch_ = x.node_epoch;
  auto todo = machine_.assigned(x, self_.now());
  if (!todo.empty() && x.node_epoch != machine_.node_epoch())
    around_.world.fail("I4", self_.name() + " obeys an old epoch");
  run(std::move(todo));
}

/// The same of what came ahead of the welcome.
void agent_shell::check_early(const node_agent::agent_commands& todo) {
  auto is_news = [](const auto& x) {
    return std::holds_alternative<node_agent::send_news>(x);
  };
  if (machine_.joined() && early_epoch_ != machine_.node_epoch() &&
      !std::all_of(todo.begin(), todo.end(), is_news))
    around_.world.fail("I4", self_.name() + " obeys an old epoch");
}

void agent_shell::from_replica(link_id from, message& what) {
  auto report = decode_replica_report(what.body);
  if (!report)
    around_.world.fail("I2", "a replica's report cannot be read");
  if (what.what == topic::report) {
    run(machine_.report(std::move(*report), self_.now()));
    return;
  }
  message out;
  auto known = children_.find(report->incarnation);
  if (machine_.knows(*report) && known != children_.end()) {
    auto& tuned = known->second.tuned;
    if (std::exchange(known->second.link, from) != from && !tuned.empty())
      to_replica(report->incarnation, {topic::tune, 0, 0, 0, tuned});
    self_.watch(from);
    out.a = 1;
    run(machine_.report(std::move(*report), self_.now()));
  }
  self_.answer(from, what, std::move(out));
}

void agent_shell::on_down(link_id link) {
  if (head_ == link) {
    head_.reset();
    run(machine_.head_lost(self_.now()));
  }
  for (auto& [incarnation, x] : children_)
    if (x.link == link)
      x.link.reset();
}

void agent_shell::on_child_end(process_id id, ending how) {
  for (auto& [incarnation, x] : children_) {
    if (x.id != id)
      continue;
    auto which = incarnation;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> running;
    auto& dead = static_cast<replica_process&>(around_.processes.at(id));
    for (const auto& one : dead.journal())
      running.emplace_back(one.router, one.record);
    children_.erase(which);
    run(machine_.ended(which, {how.exit_code, how.signal, {}}, running,
                       self_.now()));
    return;
  }
}

void agent_shell::router_port(std::uint16_t port) {
  run(machine_.router_port(port, self_.now()));
}

/// As node_agent.cpp.
void agent_shell::take_router_load(const codec::bytes& bytes) {
  auto report = decode_router_report(bytes);
  if (!report)
    around_.world.fail("I2", "a router's report cannot be read");
  if (!head_ || !machine_.joined())
    return;
  report->node = self_.name();
  report->node_epoch = machine_.node_epoch();
  message out;
  out.what = topic::load;
  out.body = encode(*report);
  around_.reports.pass(self_, [this, out] { tell_controller(out); });
}

std::optional<link_id> agent_shell::find(std::uint64_t incarnation) const {
  auto known = children_.find(incarnation);
  return known == children_.end() ? std::nullopt : known->second.link;
}

void agent_shell::drain(nanoseconds time) {
  run(machine_.drain(std::chrono::duration_cast<milliseconds>(time),
                     self_.now()));
}

void agent_shell::tick() {
  self_.after(tick_interval, [this] { tick(); });
  run(machine_.tick(self_.now()));
}

// -- what the machine says
// ---------------------------------------------------------

void agent_shell::run(node_agent::agent_commands todo) {
  for (const auto& x : todo)
    std::visit([this](const auto& y) { obey(y); }, x);
}

void agent_shell::tell_controller(message what) {
  if (!head_)
    return;
  if (*head_ == own_process)
    outside_.to_own_controller(std::move(what));
  else
    self_.send(*head_, std::move(what));
}

void agent_shell::to_replica(std::uint64_t incarnation, message what) {
  if (auto link = find(incarnation))
    self_.send(*link, std::move(what));
}

void agent_shell::obey(const node_agent::spawn_process& x) {
  launch_record launch;
  launch.spec = x.spec;
  launch.incarnation = x.incarnation;
  launch.agent = where_;
  launch.listen_address = where_.address;
  auto* made = outside_.spawn(encode(launch));
  if (made == nullptr) {
    self_.after(1ms, [this, which = x.incarnation] {
      run(machine_.ended(which, {0, 0, "no such file"}, {}, self_.now()));
    });
    return;
  }
  children_[x.incarnation].id = made->id();
  self_.after(around_.world.between(1ms, 5ms),
              [this, which = x.incarnation, pid = made->id()] {
                run(machine_.spawned(which, pid));
              });
}

void agent_shell::obey(const node_agent::signal_process& x) {
  auto known = children_.find(x.incarnation);
  if (known == children_.end())
    return;
  auto id = known->second.id;
  auto number = x.signal;
  around_.world.after(around_.world.between(10us, 1ms), [this, id, number] {
    auto* child = around_.processes.find_living(id);
    if (child == nullptr)
      return;
    if (number == SIGKILL)
      child->kill({0, number});
    else // one that is stopped dies of it when it goes on
      child->run([child, number] { child->kill({0, number}); });
  });
}

void agent_shell::obey(const node_agent::drain_replica& x) {
  message out;
  out.what = topic::drain;
  out.a = static_cast<std::uint64_t>(x.grace.count());
  to_replica(x.incarnation, std::move(out));
}

void agent_shell::obey(const node_agent::tune_replica& x) {
  auto known = children_.find(x.incarnation);
  if (known == children_.end())
    return;
  known->second.tuned = encode(x.spec);
  to_replica(x.incarnation, {topic::tune, 0, 0, 0, known->second.tuned});
}

void agent_shell::obey(const node_agent::all_stopped&) {
  outside_.all_stopped();
}

void agent_shell::obey(const node_agent::connect_head&) {
  auto attempt = ++attempts_;
  if (!outside_.head) {
    self_.after(1us, [this, attempt] { reached(attempt, own_process); });
    return;
  }
  around_.network.connect(
      self_.id(), *outside_.head, answer_max,
      [this, attempt](std::optional<link_id> link) { reached(attempt, link); });
}

void agent_shell::reached(std::uint64_t attempt, std::optional<link_id> link) {
  if (attempt != attempts_)
    return;
  if (link) {
    head_ = link;
    self_.watch(*link);
  }
  run(link ? machine_.head_connected(self_.now())
           : machine_.head_unreachable(self_.now()));
}

void agent_shell::obey(const node_agent::register_node& x) {
  if (!head_)
    return;
  message out;
  out.what = topic::join;
  out.body = encode(x.node);
  auto welcomed = [this, attempt = attempts_](const message* answer) {
    if (answer == nullptr || attempt != attempts_)
      return;
    auto welcome = decode_node_welcome(answer->body);
    if (!welcome)
      around_.world.fail("I2", "a welcome cannot be read");
    auto todo = machine_.welcomed(*welcome, self_.now());
    check_early(todo);
    run(std::move(todo));
  };
  self_.expect_answer(out, answer_max, welcomed);
  tell_controller(std::move(out));
}

void agent_shell::obey(const node_agent::leave_head&) {
  ++attempts_; // whatever is under way comes too late
  head_.reset();
}

void agent_shell::obey(const node_agent::send_news& x) {
  message out;
  out.what = topic::news;
  out.body = encode(x.news);
  // The next word of the replica says it again; what the agent says, nobody.
  if (x.news.report.load.sequence != 0)
    around_.reports.pass_in_order([this, out] { tell_controller(out); });
  else
    tell_controller(std::move(out));
}

void agent_shell::obey(const node_agent::send_death& x) {
  message out;
  out.what = topic::death_of_mine;
  out.body = encode(x.notice);
  outside_.take_death(out.body); // the node's own router
  tell_controller(std::move(out));
}

void agent_shell::obey(const node_agent::know_revoked&) {
  // Nobody has a certificate here.
}

void agent_shell::obey(const node_agent::send_rank_word&) {
  // Each replica is one process here.
}

void agent_shell::obey(const node_agent::want_router& x) {
  outside_.want_router(x.wanted);
}

} // namespace troupe::sim
