#include "tests/sim/router_shell.hpp"

#include <algorithm>
#include <utility>
#include <variant>

namespace troupe::sim {

namespace {

using namespace std::chrono_literals;

constexpr nanoseconds attach_time = 5s;
constexpr nanoseconds peer_poll = 20ms;
// As in router_actor.cpp.
constexpr nanoseconds load_interval = 100ms;
constexpr nanoseconds load_interval_max = 1s;
/// As long as for a replica.
constexpr router::wake_queue::limits wake_limits{1024, 30s};

} // namespace

router_shell::router_shell(process& self, surroundings around, ledger& book,
                           const known_peers& peers, std::uint64_t incarnation)
    : self_(self), around_(around), ledger_(book), peers_(peers),
      incarnation_(incarnation), table_({}, around.world.random(), incarnation),
      sleepers_(wake_limits) {
  // nop
}

// -- clients
// -------------------------------------------------------------------

void router_shell::submit(router::submission what, answer_sink* sink) {
  sinks_[what.request] = sink;
  request_ids_[what.request] = what.choices.front().request_id;
  find(std::move(what));
}

void router_shell::cancel_request(std::uint64_t request) {
  if (sleeping_.erase(request) != 0)
    release(request);
  else
    run(table_.cancel_request(request, self_.now()));
}

void router_shell::cancel_choice(std::uint64_t request, std::uint32_t choice) {
  auto waits = sleeping_.find(request);
  if (waits == sleeping_.end()) {
    run(table_.cancel_choice(request, choice, self_.now()));
    return;
  }
  auto& [what, cancelled] = waits->second;
  cancelled.insert(choice);
  if (cancelled.size() < what.choices.size())
    return;
  sleeping_.erase(waits);
  release(request);
}

void router_shell::release(std::uint64_t request) {
  auto sink = sinks_.extract(request);
  if (!sink)
    around_.world.fail("I1", "a request is released twice");
  sink.mapped()->on_released();
}

// -- models that sleep
// -------------------------------------------------------------------

void router_shell::find(router::submission what) {
  if (asleep_.contains({what.application, what.model}))
    wait_to_wake(std::move(what));
  else
    run(table_.submit(std::move(what), self_.now()));
}

void router_shell::wait_to_wake(router::submission what) {
  auto request = what.request;
  model_key model{what.application, what.model};
  around_.world.trace("waits for its model to wake",
                      what.choices.front().request_id);
  sleeping_[request].what = std::move(what);
  router::wake_queue::waiter who;
  who.waits = [this, request] { return sleeping_.contains(request); };
  who.go_on = [this, request] { go_on(request); };
  who.fail = [this, request](const error& why) { fail_sleeper(request, why); };
  if (!sleepers_.add(model, std::move(who), self_.now()))
    around_.world.fail("I1", "too many requests wait for a model to wake");
}

void router_shell::go_on(std::uint64_t request) {
  auto waited = sleeping_.extract(request);
  if (!waited)
    return; // its client has left
  auto& [what, cancelled] = waited.mapped();
  find(std::move(what));
  for (auto choice : cancelled)
    cancel_choice(request, choice);
}

void router_shell::fail_sleeper(std::uint64_t request, const error& why) {
  if (sleeping_.erase(request) == 0)
    return; // its client has left
  sinks_.at(request)->on_failed(why);
  release(request);
}

void router_shell::wake(const protocol::routing_table& table) {
  asleep_.clear();
  std::set<model_key> known;
  for (const auto& model : table.models) {
    model_key key{model.application, model.model};
    known.insert(key);
    if (model.replicas.empty() &&
        model.without_replica == protocol::waking::wakes)
      asleep_.insert(key);
  }
  for (const auto& key : sleepers_.models())
    if (!known.contains(key))
      sleepers_.failed(key, {errc::unavailable, "The model was removed."});
    else if (!asleep_.contains(key))
      sleepers_.woken(key);
}

// -- load
// -------------------------------------------------------------------

void router_shell::tell_load(load_sink to) {
  load_sink_ = std::move(to);
  say_load();
}

/// As router_actor.cpp.
void router_shell::say_load() {
  self_.after(load_interval, [this] { say_load(); });
  sleepers_.expire(self_.now());
  auto models = sleepers_.load(table_.load(self_.now()));
  if (told_at_ && models == told_.models &&
      self_.now() < *told_at_ + load_interval_max)
    return;
  told_at_ = self_.now();
  told_.incarnation = incarnation_;
  ++told_.sequence;
  told_.models = std::move(models);
  load_sink_(protocol::encode(told_));
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
  wake(*table);
}

void router_shell::take_others(const codec::bytes& bytes) {
  auto others = protocol::decode_others_load(bytes);
  if (!others)
    around_.world.fail("I2", "what others hold cannot be read");
  table_.heed(*others, self_.now());
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
  if (sessions_.erase(what.incarnation) != 0)
    ledger_.lost(incarnation_, what.incarnation, self_.now());
}

void router_shell::carry_out(const router::command::generate& what) {
  ledger_.sent(incarnation_, what.incarnation, what.record);
  around_.world.trace("sent", what.record.request_id, what.record.params.choice,
                      what.record.id, what.incarnation,
                      what.record.output.size(), what.record.alone);
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
  release(what.request);
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
