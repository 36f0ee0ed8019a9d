#include "actors/replica/replica.hpp"

#include "actors/replica/engine_load.hpp"
#include "actors/replica/session_table.hpp"
#include "actors/runtime/link.hpp"
#include "actors/runtime/log.hpp"

#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <map>
#include <utility>

#include <unistd.h>

namespace troupe::replica {

namespace {

using namespace protocol;
using std::chrono::milliseconds;

using news_atom = caf::atom_constant<caf::atom("news")>;

/// The replica with what it hears in its own process.
using replica_shell_actor = telling_replica_actor::extend<
    // The inbox holds something.
    caf::reacts_to<news_atom>, caf::reacts_to<tick_atom>>;

constexpr milliseconds tick_interval{100};
constexpr milliseconds report_interval_max{1000};
constexpr milliseconds agent_timeout{5000};
constexpr milliseconds agent_retry{200};
constexpr milliseconds last_word_timeout{1000};

/// As engine::load says it: another start would fail as this one did.
bool is_final(errc why) {
  return why == errc::invalid_argument || why == errc::unsupported;
}

session_limits limits_of(const replica_spec& spec) {
  session_limits out;
  out.choices_max = spec.max_ongoing_requests;
  return out;
}

struct replica_state {
  explicit replica_state(replica_shell_actor::pointer owner) : self(owner) {
    // nop
  }

  static inline const char* name = "replica";

  void set_up(const launch_record& launch, std::shared_ptr<engine_inbox> box,
              ending end, std::uint32_t version) {
    spec = launch.spec;
    agent_endpoint = launch.agent;
    listen_address = launch.listen_address;
    inbox = std::move(box);
    finish = std::move(end);
    report.version = version;
    report.replica = launch.spec.replica;
    report.incarnation = launch.incarnation;
    report.phase = replica_phase::loading;
    report.pid = ::getpid();
    table = session_table{launch.spec.replica, launch.incarnation,
                          limits_of(launch.spec), version};
    self->set_down_handler([this](const caf::down_msg& x) { lost(x.source); });
    self->delayed_send(self, tick_interval, tick_atom::value);
    reach_agent();
  }

  // -- routers
  // -----------------------------------------------------------------

  caf::result<std::uint64_t, std::uint32_t>
  attach(std::uint64_t router, std::uint32_t version,
         const token_sink_actor& sink) {
    auto todo = table.attach(router, version);
    if (!todo) {
      spdlog::warn("refused a router: {}", todo.error().message);
      return caf::make_error(caf::sec::invalid_argument, todo.error().message);
    }
    run(*todo); // ends, for who had the session
    sinks[router] = sink;
    runtime::watch(self, sink);
    return {report.incarnation, report.version};
  }

  void generate(std::uint64_t router, const codec::bytes& record) {
    auto sender = caf::actor_cast<token_sink_actor>(self->current_sender());
    if (!sender || is_session_of(router, sender))
      run(table.generate(router, record, now()));
    else if (auto batch = table.without_session(record))
      self->send(sender, tokens_atom::value, encode(*batch));
  }

  /// Not of the same router over a connection before: handles of that are
  /// others.
  bool is_session_of(std::uint64_t router,
                     const token_sink_actor& sender) const {
    auto i = sinks.find(router);
    return i != sinks.end() &&
           caf::actor_cast<caf::actor_control_block*>(i->second) ==
               caf::actor_cast<caf::actor_control_block*>(sender);
  }

  void lost(const caf::actor_addr& source) {
    if (agent && agent.address() == source) {
      spdlog::warn("lost the node agent");
      self->demonitor(agent.address());
      agent = nullptr;
      retry_at = now() + agent_retry;
      return;
    }
    for (auto i = sinks.begin(); i != sinks.end();) {
      auto current = i++;
      if (current->second.address() != source)
        continue;
      auto router = current->first;
      sinks.erase(current);
      run(table.router_gone(router));
    }
  }

  void drain(std::uint32_t ms) {
    if (report.phase == replica_phase::draining)
      return;
    report.phase = replica_phase::draining;
    table.close("the replica is draining");
    drain_until = now() + milliseconds{ms};
    send_report();
    look();
  }

  /// Choices that still run at the end go on elsewhere: their routers see the
  /// session end.
  void end_if_drained() {
    if (report.phase == replica_phase::draining && !is_leaving &&
        (table.running() == 0 || now() >= drain_until))
      leave();
  }

  /// Ends once the tokens sent have left the process. The answer to a message
  /// that goes the same way (one thread writes to all peers, in order) says so.
  void leave() {
    is_leaving = true;
    if (!agent || sinks.empty()) {
      finish(exit_stopped);
      return;
    }
    ++report.load.sequence;
    auto gone = [this] { finish(exit_stopped); };
    self->request(agent, caf::duration{last_word_timeout}, register_atom::value,
                  encode(report), caf::actor_cast<replica_actor>(self))
        .then([gone](bool) { gone(); }, [gone](const caf::error&) { gone(); });
  }

  void tune(const codec::bytes& bytes) {
    auto wanted = decode_replica_spec(bytes);
    if (!wanted) {
      spdlog::warn("refused a change: {}", wanted.error().message);
      return;
    }
    if (!same_process(spec, *wanted)) {
      spdlog::warn("refused a change that needs another process");
      return;
    }
    spec = std::move(*wanted);
    table.limit_choices(spec.max_ongoing_requests);
  }

  // -- what the session table says
  // ---------------------------------------------

  void run(session_commands todo) {
    for (auto& x : todo)
      std::visit([this](auto& y) { obey(y); }, x);
  }

  void obey(submit_choice& x) {
    engine->submit(std::move(x.request)); // only an open table says so
  }

  void obey(const cancel_choice& x) {
    engine->cancel(x.engine_id);
  }

  void obey(const send_tokens& x) {
    auto i = sinks.find(x.router);
    if (i != sinks.end())
      self->send(i->second, tokens_atom::value, encode(x.batch, x.version));
  }

  // -- the engine
  // ----------------------------------------------------------------

  void look() {
    auto news = inbox->take();
    report.bytes_done = news.bytes_done;
    report.bytes_total = news.bytes_total;
    if (report.phase == replica_phase::loading)
      report.reason = news.doing;
    if (news.loaded)
      ready(*news.loaded);
    if (news.failed)
      failed(*news.failed);
    for (auto& step : news.steps) {
      auto why = std::move(step.failed);
      run(table.step(std::move(step)));
      if (!why.empty())
        failed({errc::unavailable, why});
    }
    end_if_drained();
  }

  void ready(const loaded_engine& from) {
    engine = from.engine;
    const auto& about = engine->about();
    report.where = {listen_address, from.port, from.blob_port,
                    report.incarnation};
    report.load_ms = from.load_ms;
    report.arithmetic_class = about.arithmetic_class;
    report.device = about.device;
    report.card_hash = from.card_hash;
    report.choices_at_once = choices_at_once(spec, about);
    engine->start(
        [box = inbox](engine::step_result&& step) {
          box->put_step(std::move(step));
        },
        from.watch);
    if (report.phase == replica_phase::draining)
      return; // told to stop while it loaded
    report.phase = replica_phase::ready;
    report.reason.clear();
    table.open();
    send_report();
  }

  void failed(const error& why) {
    report.phase = replica_phase::failed;
    report.reason = why.message;
    report.budget_spent = is_final(why.code);
    table.close(why.message);
    fail_at = now() + agent_timeout;
    if (agent)
      introduce();
  }

  // -- the node agent
  // --------------------------------------------------------------

  void reach_agent() {
    runtime::connect<node_agent_actor>(self, agent_endpoint, agent_timeout,
                                       [this](result<node_agent_actor> peer) {
                                         if (!peer) {
                                           spdlog::warn("{}",
                                                        peer.error().message);
                                           retry_at = now() + agent_retry;
                                           return;
                                         }
                                         agent = *peer;
                                         runtime::watch(self, agent);
                                         introduce();
                                       });
  }

  /// Registers; also the last word of a replica that failed, since it is
  /// answered.
  void introduce() {
    ++report.load.sequence;
    auto was_failed = report.phase == replica_phase::failed;
    self->request(agent, caf::duration{agent_timeout}, register_atom::value,
                  encode(report), caf::actor_cast<replica_actor>(self))
        .then(
            [this, was_failed](bool known) {
              if (was_failed)
                finish(exit_failed);
              else if (!known)
                finish(exit_refused);
            },
            [this, was_failed](const caf::error&) {
              if (was_failed)
                finish(exit_failed);
              else if (agent)
                retry_at = now() + agent_retry;
            });
  }

  void send_report() {
    report_at = now();
    if (!agent)
      return;
    ++report.load.sequence;
    last_sent = report;
    self->send(agent, report_atom::value, encode(report));
  }

  void read_load() {
    if (engine)
      replica::read_load(engine->now(), report.load);
  }

  void tick() {
    self->delayed_send(self, tick_interval, tick_atom::value);
    look();
    read_load();
    run(table.tick(now()));
    if (report != last_sent || now() >= report_at + report_interval_max)
      send_report();
    if (now() >= retry_at) {
      retry_at = clock::time_point::max();
      if (agent)
        introduce();
      else
        reach_agent();
    }
    if (now() >= fail_at)
      finish(exit_failed);
    end_if_drained();
  }

  clock::time_point now() const {
    return self->clock().now();
  }

  replica_shell_actor::pointer self;
  replica_spec spec;
  endpoint agent_endpoint;
  std::string listen_address;
  std::shared_ptr<engine_inbox> inbox;
  ending finish;
  session_table table{"", 0, {}};
  std::map<std::uint64_t, token_sink_actor> sinks; ///< by router
  engine::engine* engine = nullptr;
  node_agent_actor agent;
  replica_report report;
  replica_report last_sent;
  clock::time_point report_at{};
  clock::time_point retry_at = clock::time_point::max();
  clock::time_point drain_until = clock::time_point::max();
  bool is_leaving = false;
  clock::time_point fail_at = clock::time_point::max();
};

replica_shell_actor::behavior_type
shell(replica_shell_actor::stateful_pointer<replica_state> self,
      const launch_record& launch, std::shared_ptr<engine_inbox> inbox,
      ending finish, std::uint32_t version) {
  auto* state = &self->state;
  state->set_up(launch, std::move(inbox), std::move(finish), version);
  return {
      [state](attach_atom, std::uint64_t router, std::uint32_t version,
              const token_sink_actor& sink) {
        return state->attach(router, version, sink);
      },
      [state](generate_atom, std::uint64_t router, const codec::bytes& record) {
        state->generate(router, record);
      },
      [state](cancel_atom, std::uint64_t router, std::uint64_t id) {
        state->run(state->table.cancel(router, id));
      },
      [state](blocks_atom, std::uint64_t router, bool wanted) {
        state->run(state->table.follow_blocks(router, wanted));
      },
      [state](drain_atom, std::uint32_t ms) { state->drain(ms); },
      [state](tune_atom, const codec::bytes& wanted) { state->tune(wanted); },
      [state](news_atom) { state->look(); },
      [state](tick_atom) { state->tick(); },
  };
}

} // namespace

spawned_replica spawn_replica(caf::actor_system& system,
                              const launch_record& launch, ending finish,
                              std::uint32_t version) {
  // The inbox must know the actor and the actor the inbox.
  auto target = std::make_shared<caf::weak_actor_ptr>();
  auto inbox = std::make_shared<engine_inbox>([target] {
    if (auto to = caf::actor_cast<replica_shell_actor>(*target))
      caf::anon_send(to, news_atom::value);
  });
  auto actor = system.spawn(shell, launch, inbox, std::move(finish), version);
  *target = caf::actor_cast<caf::weak_actor_ptr>(actor);
  return {caf::actor_cast<replica_actor>(actor), std::move(inbox)};
}

} // namespace troupe::replica
