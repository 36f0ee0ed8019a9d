#include "tests/sim/router_shell.hpp"

#include <algorithm>
#include <utility>
#include <variant>

namespace troupe::sim {

namespace {

using namespace std::chrono_literals;

constexpr nanoseconds attach_time = 5s;
constexpr nanoseconds peer_poll = 20ms;

} // namespace

router_shell::router_shell(process& self, surroundings around, ledger& book,
                           const known_peers& peers, std::uint64_t incarnation)
    : self_(self), around_(around), ledger_(book), peers_(peers),
      incarnation_(incarnation),
      table_({}, around.world.random(), incarnation) {
  // nop
}

// -- clients
// -------------------------------------------------------------------

void router_shell::submit(router::submission what, answer_sink* sink) {
  sinks_[what.request] = sink;
  request_ids_[what.request] = what.choices.front().request_id;
  run(table_.submit(std::move(what), self_.now()));
}

void router_shell::cancel_request(std::uint64_t request) {
  run(table_.cancel_request(request, self_.now()));
}

void router_shell::cancel_choice(std::uint64_t request, std::uint32_t choice) {
  run(table_.cancel_choice(request, choice, self_.now()));
}

// -- the cluster
// -------------------------------------------------------------------

void router_shell::take_table(const codec::bytes& bytes) {
  auto table = protocol::decode_routing_table(bytes);
  if (!table)
    around_.world.fail("I2", "a routing table cannot be read");
  if (table->version <= table_version_)
    return;
  table_version_ = table->version;
  models_.clear();
  for (const auto& model : table->models)
    models_.insert(model.model);
  run(table_.route_by(*table, self_.now()));
}

void router_shell::take_death(const codec::bytes& bytes) {
  auto notice = protocol::decode_death_notice(bytes);
  if (!notice)
    around_.world.fail("I2", "a death notice cannot be read");
  ledger_.told(incarnation_, *notice, self_.now());
  run(table_.death(std::move(*notice), self_.now()));
}

void router_shell::take_tokens(const codec::bytes& bytes) {
  auto batch = protocol::decode_token_batch(bytes);
  if (!batch)
    around_.world.fail("I2", "a token batch cannot be read");
  run(table_.tokens(std::move(*batch), self_.now()));
}

void router_shell::on_down(link_id link) {
  for (bool more = true; std::exchange(more, false);)
    for (auto& [incarnation, session] : sessions_)
      if (session.peer == link) {
        auto gone = incarnation;
        sessions_.erase(gone);
        around_.world.trace("lost", self_.name(), gone);
        ledger_.lost(incarnation_, gone, self_.now());
        run(table_.lost(gone, self_.now()));
        more = true;
        break;
      }
}

std::vector<std::uint64_t> router_shell::attached_to() const {
  std::vector<std::uint64_t> out;
  for (const auto& [incarnation, session] : sessions_)
    if (session.attached)
      out.push_back(incarnation);
  return out;
}

// -- sessions
// ------------------------------------------------------------------

bool router_shell::current(std::uint64_t incarnation,
                           std::uint64_t number) const {
  auto known = sessions_.find(incarnation);
  return known != sessions_.end() && known->second.number == number;
}

/// A replica of this node connects by itself: it is waited for.
void router_shell::connect(const protocol::endpoint& where, local_time deadline,
                           std::function<void(std::optional<link_id>)> done) {
  if (!peers_.expects(where.incarnation)) {
    around_.network.connect(self_.id(), where, deadline - self_.now(),
                            std::move(done));
    return;
  }
  if (auto link = peers_.find(where.incarnation)) {
    done(link);
  } else if (self_.now() >= deadline) {
    done(std::nullopt);
  } else {
    self_.after(peer_poll, [=, this, done = std::move(done)]() mutable {
      connect(where, deadline, std::move(done));
    });
  }
}

void router_shell::carry_out(const router::command::attach& what) {
  auto where = what.where;
  around_.world.trace("attach", self_.name(), where.incarnation);
  sessions_.erase(where.incarnation);
  auto number = ++last_session_;
  sessions_[where.incarnation].number = number;
  self_.after(0ns, [=, this] {
    connect(where, self_.now() + attach_time,
            [=, this](std::optional<link_id> link) {
              connected(where, number, link);
            });
  });
}

void router_shell::connected(const protocol::endpoint& where,
                             std::uint64_t number, std::optional<link_id> to) {
  auto expected = where.incarnation;
  if (!current(expected, number))
    return;
  if (!to) {
    attach_failed(expected);
    return;
  }
  sessions_[expected].peer = to;
  self_.watch(*to);
  message ask;
  ask.what = topic::attach;
  ask.a = incarnation_;
  ask.b = protocol::protocol_version;
  self_.request(*to, std::move(ask), attach_time,
                [=, this](const message* answer) {
                  if (!current(expected, number))
                    return;
                  if (answer == nullptr || answer->a != expected) {
                    attach_failed(expected);
                    return;
                  }
                  around_.world.trace("attached", self_.name(), expected);
                  sessions_[expected].attached = true;
                  run(table_.attached(expected, self_.now()));
                });
}

void router_shell::attach_failed(std::uint64_t incarnation) {
  around_.world.trace("attach failed", self_.name(), incarnation);
  sessions_.erase(incarnation);
  run(table_.attach_failed(incarnation, self_.now()));
}

void router_shell::carry_out(const router::command::detach& what) {
  around_.world.trace("detach", self_.name(), what.incarnation);
  sessions_.erase(what.incarnation);
}

void router_shell::carry_out(const router::command::generate& what) {
  ledger_.sent(incarnation_, what.incarnation, what.record);
  auto known = sessions_.find(what.incarnation);
  if (known == sessions_.end() || !known->second.peer)
    return;
  message out;
  out.what = topic::generate;
  out.a = incarnation_;
  out.body = protocol::encode(what.record);
  self_.send(*known->second.peer, std::move(out));
}

void router_shell::carry_out(const router::command::cancel& what) {
  auto known = sessions_.find(what.incarnation);
  if (known == sessions_.end() || !known->second.peer)
    return;
  message out;
  out.what = topic::cancel;
  out.a = incarnation_;
  out.b = what.id;
  self_.send(*known->second.peer, std::move(out));
}

// -- answers
// -------------------------------------------------------------------

void router_shell::carry_out(const router::command::deliver& what) {
  auto sink = sinks_.find(what.request);
  if (sink == sinks_.end())
    around_.world.fail("I1", "news of a request that was released");
  ledger_.delivered(incarnation_, request_ids_[what.request], what.choice,
                    what.from->where.incarnation, what.news);
  sink->second->on_tokens(what.choice, what.news);
}

void router_shell::carry_out(const router::command::fail& what) {
  auto sink = sinks_.find(what.request);
  if (sink == sinks_.end())
    around_.world.fail("I1", "the failure of a request that was released");
  sink->second->on_failed(what.what);
}

void router_shell::carry_out(const router::command::release& what) {
  auto sink = sinks_.find(what.request);
  if (sink == sinks_.end())
    around_.world.fail("I1", "a request is released twice");
  sink->second->on_released();
  sinks_.erase(sink);
}

void router_shell::carry_out(const router::command::moved& what) {
  around_.world.trace("moved", what.request_id, what.choice, what.tokens,
                      what.to, what.alone);
}

void router_shell::carry_out(const router::command::suspected& what) {
  around_.world.trace("suspected", what.request_id, what.choice, what.reason);
}

void router_shell::carry_out(const router::command::convicted& what) {
  around_.world.trace("convicted", what.request_id, what.reason);
}

void router_shell::carry_out(const router::command::follow_blocks& what) {
  auto known = sessions_.find(what.incarnation);
  if (known == sessions_.end() || !known->second.peer)
    return;
  message out;
  out.what = topic::blocks;
  out.a = incarnation_;
  out.b = what.follow ? 1 : 0;
  self_.send(*known->second.peer, std::move(out));
}

void router_shell::carry_out(const router::command::measured_hits&) {
}

void router_shell::run(router::command_list commands) {
  for (const auto& one : commands)
    std::visit([this](const auto& what) { carry_out(what); }, one);
  arm();
}

void router_shell::arm() {
  auto next = table_.next_deadline();
  if (!next || (armed_ && *armed_ <= *next))
    return;
  armed_ = next;
  auto pause = std::max<nanoseconds>(*next - self_.now(), 0ns) + 1ms;
  self_.after(pause, [this] {
    if (armed_ && *armed_ <= self_.now())
      armed_.reset();
    run(table_.tick(self_.now()));
  });
}

} // namespace troupe::sim
