#include "router/router_actor.hpp"

#include "actors/protocol/request_record.hpp"
#include "actors/runtime/link.hpp"
#include "actors/runtime/log.hpp"

#include <caf/actor_clock.hpp>
#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>

#include <algorithm>

namespace troupe::router {

namespace {

constexpr std::chrono::milliseconds load_interval{100};
constexpr std::chrono::milliseconds load_interval_max{1'000};

} // namespace

connect_replica connect_over_tls() {
  return [](local_router_actor::pointer self, const protocol::endpoint& where,
            std::chrono::milliseconds timeout,
            std::function<void(result<protocol::replica_actor>)> done) {
    runtime::connect<protocol::replica_actor>(self, where, timeout,
                                              std::move(done));
  };
}

router_state::router_state(local_router_actor::pointer self) : self_(self) {
  // nop
}

router_state::~router_state() {
  if (!args_.inbox)
    return;
  error gone{errc::unavailable, "The router has stopped."};
  args_.inbox->close(gone);
  for (auto& event : args_.inbox->take().events)
    if (auto* one = std::get_if<dispatcher::submitted>(&event))
      one->sink->on_failed({one->what.request, gone});
  for (auto& [request, sink] : sinks_)
    sink->on_failed({request, gone});
}

void router_state::start(router_arguments args,
                         std::shared_ptr<router_gauges> gauges) {
  args_ = std::move(args);
  gauges_ = std::move(gauges);
  table_ = std::make_unique<request_table>(args_.limits, args_.random_seed,
                                           args_.incarnation);
}

void router_state::take_tokens(const codec::bytes& bytes) {
  auto batch = protocol::decode_token_batch(bytes);
  if (batch) {
    run(table_->tokens(std::move(*batch), now()));
    return;
  }
  // What was in it never comes again: its choices are given up with the
  // session, not left waiting.
  spdlog::error("router: a token batch cannot be read: {}",
                batch.error().message);
  if (auto sender = self_->current_sender())
    peer_down(caf::actor_cast<caf::actor_addr>(sender));
}

void router_state::take_table(const codec::bytes& bytes) {
  auto table = protocol::decode_routing_table(bytes);
  if (!table) {
    spdlog::warn("router: dropped a routing table: {}", table.error().message);
    return;
  }
  if (table->version <= table_version_)
    return;
  table_version_ = table->version;
  gauges_->replicas.follow(*table);
  run(table_->route_by(*table, now()));
  args_.on_table(
      std::make_shared<const protocol::routing_table>(std::move(*table)));
}

void router_state::take_death(const codec::bytes& bytes) {
  auto notice = protocol::decode_death_notice(bytes);
  if (!notice) {
    spdlog::warn("router: dropped a death notice: {}", notice.error().message);
    return;
  }
  run(table_->death(std::move(*notice), now()));
}

void router_state::take_inbox() {
  if (armed_ && *armed_ <= now())
    armed_.reset();
  auto delivery = args_.inbox->take();
  for (auto& event : delivery.events)
    take(event);
  if (delivery.closed)
    run(table_->fail_all(delivery.why, now()));
  run(table_->tick(now()));
}

void router_state::take(dispatcher::event& event) {
  if (auto* one = std::get_if<dispatcher::submitted>(&event)) {
    sinks_[one->what.request] = std::move(one->sink);
    run(table_->submit(std::move(one->what), now()));
  } else if (auto* one = std::get_if<dispatcher::request_cancelled>(&event)) {
    run(table_->cancel_request(one->request, now()));
  } else if (auto* one = std::get_if<dispatcher::choice_cancelled>(&event)) {
    run(table_->cancel_choice(one->request, one->choice, now()));
  }
}

void router_state::peer_down(const caf::actor_addr& source) {
  for (auto& [incarnation, session] : sessions_) {
    if (!session.peer || session.peer.address() != source)
      continue;
    auto gone = incarnation;
    spdlog::warn("router: lost the replica of incarnation {:016x}", gone);
    close_session(gone);
    run(table_->lost(gone, now()));
    return;
  }
}

void router_state::take_watcher(protocol::load_sink_actor watcher) {
  auto is_first = !watcher_;
  watcher_ = std::move(watcher);
  told_at_.reset();
  if (is_first)
    tell_load();
}

/// When it changed, and from time to time, since a report can be lost.
void router_state::tell_load() {
  self_->delayed_send(local_router_actor{self_}, load_interval,
                      protocol::load_atom::value);
  auto models = table_->load(now());
  if (args_.sleepers) {
    args_.sleepers->expire(std::chrono::steady_clock::now());
    models = args_.sleepers->load(std::move(models));
  }
  auto used = args_.accounts ? args_.accounts->used()
                             : std::vector<protocol::tenant_use>{};
  if (told_at_ && models == told_.models && used == told_.tenants &&
      now() < *told_at_ + load_interval_max)
    return;
  told_at_ = now();
  told_.incarnation = args_.incarnation;
  ++told_.sequence;
  told_.models = std::move(models);
  told_.tenants = std::move(used);
  self_->send(watcher_, protocol::load_atom::value, encode(told_));
}

void router_state::take_others(const codec::bytes& bytes) {
  auto others = protocol::decode_others_load(bytes);
  if (!others) {
    spdlog::warn("router: dropped what others hold: {}",
                 others.error().message);
    return;
  }
  table_->heed(*others, now());
  std::uint64_t waiting = 0;
  for (const auto& load : others->models)
    waiting += load.waiting;
  gauges_->choices_waiting_elsewhere = waiting;
  if (args_.accounts)
    args_.accounts->used_elsewhere(*others);
}

time_point router_state::now() const {
  return self_->clock().now();
}

bool router_state::current(std::uint64_t incarnation,
                           std::uint64_t number) const {
  auto known = sessions_.find(incarnation);
  return known != sessions_.end() && known->second.number == number;
}

void router_state::carry_out(command::attach& what) {
  close_session(what.where.incarnation);
  auto number = ++last_session_;
  sessions_[what.where.incarnation].number = number;
  args_.connect(
      self_, what.where, args_.attach_time,
      [this, where = what.where, number](result<protocol::replica_actor> peer) {
        connected(where, number, std::move(peer));
      });
}

void router_state::connected(const protocol::endpoint& where,
                             std::uint64_t number,
                             result<protocol::replica_actor> peer) {
  if (!current(where.incarnation, number))
    return;
  if (!peer) {
    spdlog::warn("router: {}", peer.error().message);
    attach_failed(where.incarnation);
    return;
  }
  sessions_[where.incarnation].peer = *peer;
  runtime::watch(self_, *peer);
  self_
      ->request(*peer, caf::duration{args_.attach_time},
                protocol::attach_atom::value, args_.incarnation,
                protocol::protocol_version,
                protocol::token_sink_actor{local_router_actor{self_}})
      .then(
          [this, where, number](std::uint64_t incarnation,
                                std::uint32_t version) {
            if (current(where.incarnation, number))
              attached(where, incarnation, version);
          },
          [this, expected = where.incarnation, number](const caf::error& why) {
            if (!current(expected, number))
              return;
            spdlog::warn("router: a replica gave no session: {}",
                         self_->system().render(why));
            attach_failed(expected);
          });
}

void router_state::attached(const protocol::endpoint& where,
                            std::uint64_t incarnation, std::uint32_t version) {
  auto expected = where.incarnation;
  constexpr auto own = protocol::protocol_version;
  if (incarnation != expected ||
      !protocol::understand_each_other(version, own)) {
    if (incarnation == expected)
      spdlog::error("router: the replica at {}:{} speaks protocol version {}, "
                    "this router {}: refused",
                    where.address, where.port, version, own);
    attach_failed(expected);
    return;
  }
  sessions_[expected].version = version;
  run(table_->attached(expected, now()));
}

void router_state::attach_failed(std::uint64_t incarnation) {
  close_session(incarnation);
  run(table_->attach_failed(incarnation, now()));
}

void router_state::close_session(std::uint64_t incarnation) {
  auto known = sessions_.find(incarnation);
  if (known == sessions_.end())
    return;
  if (known->second.peer)
    self_->demonitor(known->second.peer.address());
  sessions_.erase(known);
}

void router_state::carry_out(command::detach& what) {
  close_session(what.incarnation);
}

void router_state::carry_out(command::generate& what) {
  auto known = sessions_.find(what.incarnation);
  gauges_->replicas.sent(what.incarnation);
  if (known != sessions_.end() && known->second.peer)
    self_->send(known->second.peer, protocol::generate_atom::value,
                args_.incarnation,
                protocol::encode(what.record, known->second.version));
}

void router_state::carry_out(command::cancel& what) {
  auto known = sessions_.find(what.incarnation);
  if (known != sessions_.end() && known->second.peer)
    self_->send(known->second.peer, protocol::cancel_atom::value,
                args_.incarnation, what.id);
}

void router_state::carry_out(command::deliver& what) {
  auto sink = sinks_.find(what.request);
  if (sink != sinks_.end())
    sink->second->on_tokens(what.choice, std::move(what.news),
                            std::move(what.from));
}

void router_state::carry_out(command::fail& what) {
  auto sink = sinks_.find(what.request);
  if (sink != sinks_.end())
    sink->second->on_failed(std::move(what));
}

void router_state::carry_out(command::moved& what) {
  gauges_->move_wait.observe(
      std::chrono::duration<double>(what.waited).count());
  spdlog::log(what.class_changed ? spdlog::level::warn : spdlog::level::info,
              "router: {} choice {} goes on at {} with {} tokens, after {} ms{}"
              "{}",
              what.request_id, what.choice, what.to, what.tokens,
              what.waited.count(), what.alone ? ", alone" : "",
              what.class_changed ? ", in another arithmetic class" : "");
}

void router_state::carry_out(command::suspected& what) {
  spdlog::warn("router: {} choice {} was computed when its replica ended ({})",
               what.request_id, what.choice, what.reason);
}

void router_state::carry_out(command::convicted& what) {
  spdlog::error("router: incident {}: {} ended the replica that computed it "
                "alone ({}); it is refused from now on",
                what.incident, what.request_id, what.reason);
}

void router_state::carry_out(command::follow_blocks& what) {
  auto known = sessions_.find(what.incarnation);
  if (known == sessions_.end() || !known->second.peer)
    return;
  spdlog::debug("router: {} the blocks of incarnation {:016x}",
                what.follow ? "asks for" : "leaves", what.incarnation);
  self_->send(
      caf::actor_cast<protocol::telling_replica_actor>(known->second.peer),
      protocol::blocks_atom::value, args_.incarnation, what.follow);
}

void router_state::carry_out(command::measured_hits& what) {
  gauges_->replicas.measured(what.incarnation, what.predicted, what.reported);
}

void router_state::carry_out(command::release& what) {
  sinks_.erase(what.request);
}

void router_state::run(command_list commands) {
  for (auto& one : commands)
    std::visit([this](auto& what) { carry_out(what); }, one);
  show_counts();
  arm();
}

void router_state::show_counts() {
  auto& counts = table_->counts();
  gauges_->choices_waiting = table_->choices_waiting();
  gauges_->choices_sent = table_->choices_sent();
  gauges_->streams_moved = counts.streams_moved;
  gauges_->streams_class_changed = counts.streams_class_changed;
  gauges_->streams_suspected = counts.choices_suspected;
  gauges_->poison_requests = counts.requests_convicted;
  gauges_->poison_requests_refused = counts.requests_banned;
  gauges_->requests_late = counts.requests_late;
  gauges_->requests_expired = counts.requests_expired;
  gauges_->retries_put_off = counts.retries_put_off;
}

// One timer at a time, and none while there is nothing to wait for.
void router_state::arm() {
  auto next = table_->next_deadline();
  if (!next || (armed_ && *armed_ <= *next))
    return;
  armed_ = next;
  auto pause = std::max(*next - now(), time_point::duration::zero()) +
               std::chrono::milliseconds{1};
  self_->delayed_send(local_router_actor{self_}, pause,
                      protocol::tick_atom::value);
}

local_router_actor::behavior_type
router_actor(local_router_actor::stateful_pointer<router_state> self,
             router_arguments args, std::shared_ptr<router_gauges> gauges) {
  auto inbox = args.inbox;
  self->state.start(std::move(args), std::move(gauges));
  self->set_down_handler([self](const caf::down_msg& down) {
    self->state.peer_down(down.source);
  });
  inbox->on_ring([weak = caf::actor_cast<caf::weak_actor_ptr>(self)] {
    if (auto strong = weak.lock())
      caf::anon_send(caf::actor_cast<caf::actor>(strong),
                     protocol::tick_atom::value);
  });
  return {
      [self](protocol::tokens_atom, const codec::bytes& batch) {
        self->state.take_tokens(batch);
      },
      [self](protocol::table_atom, const codec::bytes& table) {
        self->state.take_table(table);
      },
      [self](protocol::death_atom, const codec::bytes& notice) {
        self->state.take_death(notice);
      },
      [self](protocol::others_atom, const codec::bytes& others) {
        self->state.take_others(others);
      },
      [self](protocol::watch_atom, const protocol::load_sink_actor& watcher) {
        self->state.take_watcher(watcher);
      },
      [self](protocol::load_atom) { self->state.tell_load(); },
      [self](protocol::tick_atom) { self->state.take_inbox(); },
  };
}

} // namespace troupe::router
