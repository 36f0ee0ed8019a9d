#include "actors/node_agent/node_agent.hpp"

#include "actors/protocol/launch_record.hpp"
#include "actors/runtime/link.hpp"

#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <caf/typed_response_promise.hpp>

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <sched.h>
#include <unistd.h>

#include <random>

namespace fs = std::filesystem;

namespace troupe::node_agent {

namespace {

using namespace protocol;

using spawned_atom = caf::atom_constant<caf::atom("spawned")>;
using joined_atom = caf::atom_constant<caf::atom("joined")>;
using ended_atom = caf::atom_constant<caf::atom("ended")>;

/// The agent with what it hears in its own process.
using agent_shell_actor = node_agent_actor::extend<
    caf::reacts_to<tick_atom>,
    // It is published at this port.
    caf::reacts_to<joined_atom, std::uint16_t>,
    caf::reacts_to<spawned_atom, std::uint64_t, std::int64_t>,
    // exit code, signal, why it could not be started
    caf::reacts_to<ended_atom, std::uint64_t, std::int32_t, std::int32_t,
                   std::string>>;

constexpr milliseconds tick_interval{100};

std::uint64_t random_number() {
  std::random_device source;
  return (std::uint64_t{source()} << 32) | source();
}

std::uint32_t version_distance(std::uint32_t version) {
  return version > protocol_version ? version - protocol_version
                                    : protocol_version - version;
}

} // namespace

node_joined describe_node(const std::string& name, std::uint64_t incarnation) {
  node_joined out;
  out.node = name;
  out.incarnation = incarnation;
  cpu_set_t cpus;
  if (::sched_getaffinity(0, sizeof cpus, &cpus) == 0)
    out.cpus = static_cast<std::uint32_t>(CPU_COUNT(&cpus));
  out.memory_bytes = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                     static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return out;
}

namespace {

/// The shell: carries out what the supervisor says.
struct agent_state {
  explicit agent_state(agent_shell_actor::pointer owner) : self(owner) {
    // nop
  }

  static inline const char* name = "node_agent";

  void set_up(node_agent_options chosen, controller_actor to) {
    options = std::make_unique<node_agent_options>(std::move(chosen));
    machine = supervisor{options->limits, random_number()};
    controller = std::move(to);
    // What is there is of replicas of an earlier life.
    std::error_code ignored;
    fs::remove_all(options->run_directory, ignored);
    auto target = caf::actor_cast<caf::weak_actor_ptr>(self);
    process_host::events events;
    events.spawned = [target](std::uint64_t incarnation, std::int64_t pid) {
      if (auto to = caf::actor_cast<agent_shell_actor>(target))
        caf::anon_send(to, spawned_atom::value, incarnation, pid);
    };
    events.ended = [target](std::uint64_t incarnation, process_end end) {
      if (auto to = caf::actor_cast<agent_shell_actor>(target))
        caf::anon_send(to, ended_atom::value, incarnation,
                       std::int32_t{end.exit_code}, std::int32_t{end.signal},
                       std::move(end.not_spawned));
    };
    host = options->make_host(std::move(events));
    if (auto shared = runtime::peers_of(self->system()))
      peers = std::move(shared);
    self->set_down_handler([this](const caf::down_msg& x) { lost(x.source); });
    self->delayed_send(self, tick_interval, tick_atom::value);
  }

  void joined(std::uint16_t port) {
    where = {options->address, port, 0, incarnation};
    self->send(controller, register_atom::value,
               encode(describe_node(options->node, incarnation)),
               caf::actor_cast<node_agent_actor>(self));
  }

  bool registered(const codec::bytes& bytes, const replica_actor& actor) {
    auto report = decode_replica_report(bytes);
    if (!report) {
      spdlog::warn("a replica registered badly: {}", report.error().message);
      return false;
    }
    if (version_distance(report->version) > 1) {
      spdlog::warn("{} speaks protocol version {}, this node {}",
                   report->replica, report->version, protocol_version);
      return false;
    }
    if (!machine.knows(*report))
      return false;
    auto [i, fresh] = replicas.try_emplace(report->incarnation, actor);
    if (!fresh && i->second != actor) {
      i->second = actor;
      fresh = true;
    }
    if (fresh) {
      runtime::watch(self, actor);
      peers->met(report->incarnation,
                 caf::actor_cast<caf::strong_actor_ptr>(actor));
    }
    run(machine.report(std::move(*report), now()));
    return true;
  }

  void reported(const codec::bytes& bytes) {
    if (auto report = decode_replica_report(bytes))
      run(machine.report(std::move(*report), now()));
  }

  void start(const codec::bytes& bytes) {
    if (auto spec = decode_replica_spec(bytes))
      run(machine.start(std::move(*spec), now()));
    else
      spdlog::error("the controller sent a broken spec: {}",
                    spec.error().message);
  }

  /// The connection to a replica broke. If its process still runs it connects
  /// again; if it does not get that far, the supervisor ends it.
  void lost(const caf::actor_addr& source) {
    std::erase_if(replicas, [&](const auto& x) {
      bool gone = x.second.address() == source;
      if (gone)
        peers->lost(x.first);
      return gone;
    });
  }

  void ended(std::uint64_t which, process_end end) {
    spdlog::info("replica process {:016x} {}", which, end.to_string());
    replicas.erase(which);
    peers->forget(which);
    std::error_code ignored;
    fs::remove_all(run_directory_of(which), ignored);
    run(machine.ended(which, end, now()));
  }

  caf::typed_response_promise<bool> drain(std::uint32_t ms) {
    auto promise = self->make_response_promise<bool>();
    draining.push_back(promise);
    drain_until = now() + milliseconds{ms};
    run(machine.drain(milliseconds{ms}, now()));
    return promise;
  }

  void tick() {
    self->delayed_send(self, tick_interval, tick_atom::value);
    run(machine.tick(now()));
    if (!draining.empty() && now() >= drain_until)
      answer_drain(false);
  }

  void answer_drain(bool done) {
    for (auto& promise : draining)
      promise.deliver(done);
    draining.clear();
  }

  // -- what the supervisor says ----------------------------------------------

  void run(commands todo) {
    for (auto& x : todo)
      std::visit([this](auto& y) { obey(y); }, x);
  }

  void obey(spawn_process& x) {
    auto launch = make_launch_record(x);
    if (!launch) {
      self->send(self, ended_atom::value, x.incarnation, std::int32_t{0},
                 std::int32_t{0}, launch.error().message);
      return;
    }
    peers->expect(x.incarnation); // it registers here
    host->spawn(x.incarnation, {options->replica_executable,
                                options->replica_arguments, encode(*launch)});
  }

  void obey(const signal_process& x) {
    host->signal(x.incarnation, x.signal);
  }

  void obey(const drain_replica& x) {
    auto i = replicas.find(x.incarnation);
    if (i != replicas.end())
      self->send(i->second, drain_atom::value,
                 static_cast<std::uint32_t>(x.grace.count()));
  }

  void obey(const send_report& x) {
    if (x.report.phase == replica_phase::failed)
      spdlog::warn("replica {} failed: {}{}", x.report.replica, x.report.reason,
                   x.report.budget_spent ? "; not started again" : "");
    self->send(controller, report_atom::value, encode(x.report));
  }

  void obey(const all_stopped&) {
    answer_drain(true);
  }

  result<launch_record> make_launch_record(const spawn_process& x) const {
    auto files = options->issuer.issue("replica " + x.spec.replica,
                                       run_directory_of(x.incarnation));
    if (!files)
      return files.error();
    launch_record out;
    out.spec = x.spec;
    out.incarnation = x.incarnation;
    out.agent = where;
    out.listen_address = options->address;
    out.certificate = files->certificate.string();
    out.key = files->key.string();
    out.authority = files->authority.string();
    out.log_level = options->replica_logging.level;
    out.log_json = options->replica_logging.json;
    return out;
  }

  fs::path run_directory_of(std::uint64_t which) const {
    return options->run_directory / fmt::format("{:016x}", which);
  }

  clock::time_point now() const {
    return self->clock().now();
  }

  agent_shell_actor::pointer self;
  std::uint64_t incarnation = random_number();
  std::unique_ptr<const node_agent_options> options;
  controller_actor controller;
  endpoint where;
  supervisor machine{{}, 0};
  std::map<std::uint64_t, replica_actor>
      replicas; ///< connected, by incarnation
  std::shared_ptr<runtime::peer_directory> peers =
      std::make_shared<runtime::peer_directory>();
  std::vector<caf::typed_response_promise<bool>> draining;
  clock::time_point drain_until{};
  std::unique_ptr<process_host> host;
};

agent_shell_actor::behavior_type
agent(agent_shell_actor::stateful_pointer<agent_state> self,
      node_agent_options options, controller_actor controller) {
  auto* state = &self->state;
  state->set_up(std::move(options), std::move(controller));
  return {
      [state](register_atom, const codec::bytes& report,
              const replica_actor& replica) {
        return state->registered(report, replica);
      },
      [state](report_atom, const codec::bytes& report) {
        state->reported(report);
      },
      [state](start_atom, const codec::bytes& spec) { state->start(spec); },
      [state](stop_atom, const std::string& replica) {
        state->run(state->machine.stop(replica, state->now()));
      },
      [state](drain_atom, std::uint32_t ms) { return state->drain(ms); },
      [state](tick_atom) { state->tick(); },
      [state](joined_atom, std::uint16_t port) { state->joined(port); },
      [state](spawned_atom, std::uint64_t which, std::int64_t pid) {
        state->run(state->machine.spawned(which, pid));
      },
      [state](ended_atom, std::uint64_t which, std::int32_t code,
              std::int32_t number, std::string why) {
        state->ended(which, {code, number, std::move(why)});
      },
  };
}

} // namespace

result<node_agent_actor> spawn_node_agent(caf::actor_system& system,
                                          node_agent_options options,
                                          controller_actor controller) {
  auto address = options.address;
  auto shell = system.spawn(agent, std::move(options), std::move(controller));
  auto out = caf::actor_cast<node_agent_actor>(shell);
  auto port = runtime::publish(out, address);
  if (!port) {
    caf::anon_send_exit(shell, caf::exit_reason::kill);
    return port.error();
  }
  caf::anon_send(shell, joined_atom::value, *port);
  return out;
}

} // namespace troupe::node_agent
