#include "actors/node_agent/node_agent.hpp"

#include "actors/node_agent/gpu_allotment.hpp"
#include "actors/node_agent/gpu_watch.hpp"
#include "actors/node_agent/rank_meetings.hpp"
#include "actors/node_agent/resources.hpp"
#include "actors/protocol/launch_record.hpp"
#include "actors/protocol/load_messages.hpp"
#include "actors/runtime/link.hpp"
#include "actors/runtime/log.hpp"
#include "actors/runtime/step_journal.hpp"

#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <caf/typed_response_promise.hpp>

#include <fmt/format.h>

#include <csignal>
#include <optional>
#include <random>
#include <utility>

namespace fs = std::filesystem;

namespace troupe::node_agent {

namespace {

using namespace protocol;

using spawned_atom = caf::atom_constant<caf::atom("spawned")>;
using listens_atom = caf::atom_constant<caf::atom("listens")>;
using reached_atom = caf::atom_constant<caf::atom("reached")>;
using ended_atom = caf::atom_constant<caf::atom("ended")>;

/// The agent with what it hears in its own process.
using agent_shell_actor = meeting_agent_actor::extend<
    caf::reacts_to<tick_atom>,
    // It is published at this port.
    caf::reacts_to<listens_atom, std::uint16_t>,
    // The so manyeth attempt to reach the head, which is in this process, is
    // done.
    caf::reacts_to<reached_atom, std::uint64_t>,
    caf::reacts_to<spawned_atom, std::uint64_t, std::int64_t>,
    // exit code, signal, why it could not be started
    caf::reacts_to<ended_atom, std::uint64_t, std::int32_t, std::int32_t,
                   std::string>>;

constexpr milliseconds tick_interval{100};

/// The first protocol version with routers' load.
constexpr std::uint32_t first_with_load = 5;

/// The first whose head passes on what ranks say to each other.
constexpr std::uint32_t first_with_words = 7;

constexpr const char* loopback = "127.0.0.1";
constexpr const char* journal_name = "steps";

std::uint64_t random_number() {
  std::random_device source;
  return (std::uint64_t{source()} << 32) | source();
}

/// The incarnation of the first rank's start, under which all ranks meet.
std::uint64_t leader_of(const spawn_process& x) {
  return x.spec.part == 0 ? x.incarnation : x.spec.leader;
}

/// Makes a directory that is this user's alone.
result<void> make_own_directory(const fs::path& path) {
  std::error_code why;
  fs::create_directories(path, why);
  if (!why)
    fs::permissions(path, fs::perms::owner_all, why);
  if (why)
    return error{errc::io, path.string() + ": " + why.message()};
  return {};
}

/// The shell: carries out what the machine says.
struct agent_state {
  explicit agent_state(agent_shell_actor::pointer owner) : self(owner) {
    // nop
  }

  static inline const char* name = "node_agent";

  void set_up(node_agent_options chosen, head_place place) {
    if (chosen.self.incarnation == 0)
      chosen.self.incarnation = random_number();
    options = std::make_unique<node_agent_options>(std::move(chosen));
    head = std::move(place);
    machine.emplace(options->self, options->limits, options->head,
                    random_number(), now());
    // What is there is of replicas of an earlier life.
    std::error_code ignored;
    fs::remove_all(options->run_directory, ignored);
    if (auto shared = runtime::peers_of(self->system()))
      peers = std::move(shared);
    gpus = gpu_allotment{gpu_names(options->self.gpus)};
    host = options->make_host(host_events());
    self->set_down_handler([this](const caf::down_msg& x) { lost(x.source); });
  }

  process_host::events host_events() {
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
    return events;
  }

  void listens(std::uint16_t port) {
    where = {loopback, port, 0, options->self.incarnation};
    tick();
  }

  void tick() {
    self->delayed_send(self, tick_interval, tick_atom::value);
    run(machine->tick(now()));
    run(machine->see_gpus(
        [this](std::uint64_t which) { return gpus_used_by(which); }));
    if (!draining.empty() && now() >= drain_until)
      answer_drain(false);
  }

  /// The connection to a process broke, or its actor ended.
  void lost(const caf::actor_addr& source) {
    if (controller && controller.address() == source) {
      if (machine->joined())
        spdlog::warn("the head is lost; what runs here goes on");
      controller = nullptr;
      run(machine->head_lost(now()));
    } else if (router && router.address() == source) {
      router = nullptr;
      run(machine->router_port(0, now()));
    } else {
      lost_replica(source);
    }
  }

  // -- the head --------------------------------------------------------------

  void obey(const connect_head&) {
    auto attempt = ++attempts;
    if (std::holds_alternative<controller_actor>(head)) {
      self->send(self, reached_atom::value, attempt);
      return;
    }
    runtime::connect<controller_actor>(
        self, std::get<endpoint>(head), options->head.answer_max,
        [this, attempt](result<controller_actor> found) {
          reached(attempt, std::move(found));
        });
  }

  void reached(std::uint64_t attempt, result<controller_actor> found) {
    if (attempt != attempts)
      return;
    if (!found) {
      complain(found.error().message);
      run(machine->head_unreachable(now()));
      return;
    }
    controller = std::move(*found);
    runtime::watch(self, controller);
    run(machine->head_connected(now()));
  }

  void obey(const register_node& x) {
    if (!controller)
      return;
    auto attempt = attempts;
    self->request(controller, caf::duration{options->head.answer_max},
                  register_atom::value, encode(x.node, machine->head_version()),
                  caf::actor_cast<node_agent_actor>(self))
        .then([this, attempt](
                  const codec::bytes& answer) { welcomed(attempt, answer); },
              [this, attempt](const caf::error& reason) {
                if (attempt == attempts)
                  complain(self->system().render(reason));
              }); // the machine's own time-out does the rest
  }

  void welcomed(std::uint64_t attempt, const codec::bytes& answer) {
    if (attempt != attempts)
      return;
    auto welcome = decode_node_welcome(answer);
    if (!welcome) {
      complain(welcome.error().message);
      return;
    }
    if (!welcome->accepted)
      complain("it refused this node: " + welcome->reason);
    else if (welcome->head_epoch < machine->head_epoch())
      complain("it is older than the head that this node obeyed");
    if (options->on_welcome)
      options->on_welcome(*welcome);
    run(machine->welcomed(*welcome, now()));
    if (!machine->joined() || machine->node_epoch() != welcome->node_epoch)
      return;
    complaint.clear();
    catch_up_on_words();
    // It registers again over this connection when its router's port changes.
    if (std::exchange(joined_by, attempts) != attempts)
      spdlog::info("joined the head as {} (epoch {:x} of the node, {} of the "
                   "head)",
                   options->self.node, welcome->node_epoch,
                   welcome->head_epoch);
  }

  /// The same reason again and again is said once.
  void complain(const std::string& reason) {
    if (std::exchange(complaint, reason) != reason)
      spdlog::warn("not joined to the head: {}", reason);
  }

  void obey(const leave_head&) {
    ++attempts; // whatever is under way comes too late
    if (controller)
      self->demonitor(controller.address());
    controller = nullptr;
  }

  void obey(const send_news& x) {
    const auto& report = x.news.report;
    if (controller)
      self->send(controller, report_atom::value,
                 encode(x.news, machine->head_version()));
    note_failure(report);
  }

  /// Once, when its process has ended: it may have said so before, and the head
  /// is told again when it is met again.
  void note_failure(const replica_report& report) {
    if (report.phase == replica_phase::stopped)
      failures.erase(report.replica);
    if (report.phase != replica_phase::failed || report.pid != 0)
      return;
    auto& noted = failures[report.replica];
    if (std::exchange(noted, report.incarnation) != report.incarnation)
      spdlog::warn("replica {} failed: {}{}", report.replica, report.reason,
                   report.budget_spent ? "; not started again" : "");
  }

  void obey(const send_death& x) {
    auto notice = encode(x.notice);
    if (controller)
      self->send(controller, death_atom::value, notice);
    tell_death(notice); // it takes one only, if the head passes it on too
  }

  void assigned(const codec::bytes& bytes) {
    if (auto assignment = decode_node_assignment(bytes))
      run(machine->assigned(*assignment, now()));
    else
      spdlog::error("the head sent a broken assignment: {}",
                    assignment.error().message);
  }

  // -- the node's router -----------------------------------------------------

  void obey(const want_router& x) {
    if (options->on_router_wanted)
      options->on_router_wanted(x.wanted);
  }

  void obey(const know_revoked& x) {
    if (options->on_revoked)
      options->on_revoked(x.all);
  }

  void watch_router(const router_actor& actor, std::uint16_t port) {
    if (actor && router != actor) {
      router = actor;
      runtime::watch(self, router);
      self->send(router, watch_atom::value,
                 caf::actor_cast<load_sink_actor>(self));
      if (!table.empty())
        self->send(router, table_atom::value, table);
    }
    run(machine->router_port(port, now()));
  }

  /// A head that takes no routers' load is not told of it.
  void tell_load(const codec::bytes& bytes) {
    auto report = decode_router_report(bytes);
    if (!report || !controller || !machine->joined() ||
        machine->head_version() < first_with_load)
      return;
    report->node = options->self.node;
    report->node_epoch = machine->node_epoch();
    self->send(caf::actor_cast<load_sink_actor>(controller), load_atom::value,
               encode(*report, machine->head_version()));
  }

  /// What other nodes' routers hold, for this one's.
  void tell_others(const codec::bytes& others) {
    if (router)
      self->send(router, others_atom::value, others);
  }

  /// The router itself takes only newer ones.
  void keep_table(const codec::bytes& bytes) {
    table = bytes;
    if (router)
      self->send(router, table_atom::value, table);
  }

  void tell_death(const codec::bytes& notice) {
    if (router)
      self->send(router, death_atom::value, notice);
  }

  // -- replicas --------------------------------------------------------------

  bool registered(const codec::bytes& bytes, const replica_actor& actor) {
    auto report = decode_replica_report(bytes);
    if (!report) {
      spdlog::warn("a replica registered badly: {}", report.error().message);
      return false;
    }
    if (!actor || !machine->knows(*report))
      return false;
    if (!understand_each_other(report->version, protocol_version)) {
      report->phase = replica_phase::failed;
      report->reason = fmt::format(
          "it speaks protocol version {}, this node {}: at most one "
          "apart is understood",
          report->version, protocol_version);
      run(machine->report(std::move(*report), now()));
      return false; // and so it ends itself
    }
    connected(report->incarnation, actor);
    run(machine->report(std::move(*report), now()));
    return true;
  }

  void connected(std::uint64_t which, const replica_actor& actor) {
    auto& known = replicas[which];
    if (known == actor)
      return;
    known = actor;
    runtime::watch(self, actor);
    peers->met(which, caf::actor_cast<caf::strong_actor_ptr>(actor));
    if (auto tuned = tunes.find(which); tuned != tunes.end())
      self->send(actor, tune_atom::value, tuned->second);
  }

  void reported(const codec::bytes& bytes) {
    if (auto report = decode_replica_report(bytes)) {
      report->gpus = gpus_used_by(report->incarnation);
      run(machine->report(std::move(*report), now()));
    }
  }

  std::vector<gpu_use> gpus_used_by(std::uint64_t which) const {
    return gpus_watched.of(gpus.names_of(which));
  }

  /// The connection to a replica broke. If its process still runs it connects
  /// again; if it does not get that far, the machine ends it.
  void lost_replica(const caf::actor_addr& source) {
    std::erase_if(replicas, [&](const auto& x) {
      bool gone = x.second.address() == source;
      if (gone)
        peers->lost(x.first);
      return gone;
    });
  }

  void ended(std::uint64_t which, process_end end) {
    auto level = end.signal == 0 && end.not_spawned.empty()
                     ? spdlog::level::info
                     : spdlog::level::warn;
    spdlog::log(level, "replica process {:016x} {}", which, end.to_string());
    replicas.erase(which);
    tunes.erase(which);
    close_meeting(which);
    gpus.give_back(which);
    peers->forget(which);
    auto directory = run_directory_of(which);
    auto running = runtime::read_step_journal(directory / journal_name);
    std::error_code ignored;
    fs::remove_all(directory, ignored);
    run(machine->ended(which, end,
                       running ? *running : std::vector<runtime::step_member>{},
                       now()));
  }

  void obey(spawn_process& x) {
    auto launch = make_launch_record(x);
    if (!launch) {
      self->send(self, ended_atom::value, x.incarnation, std::int32_t{0},
                 std::int32_t{0}, launch.error().message);
      return;
    }
    if (x.spec.part == 0)
      peers->expect(x.incarnation); // it registers here
    const auto first_ranks = processes_here(x.spec);
    const auto of_each = ranks_here(x.spec).count / first_ranks.size();
    process_plan plan{options->replica_executable,
                      options->replica_arguments,
                      {},
                      x.spec.memory_bytes * of_each / ranks_of(x.spec)};
    if (processes_of(x.spec) > 1)
      open_meeting(x);
    for (auto rank : first_ranks) {
      launch->rank = rank;
      plan.launches.push_back(encode(*launch));
    }
    host->spawn(x.incarnation, std::move(plan));
  }

  // -- what ranks say to each other ------------------------------------------

  /// Of a start whose ranks are on several nodes: whose, and what its ranks
  /// here have said (as much as a meeting takes).
  struct far_meeting {
    std::uint64_t leader = 0;
    std::string replica;
    std::vector<rank_word> own;
  };

  void open_meeting(const spawn_process& x) {
    const auto leader = leader_of(x);
    meetings.open(leader);
    if (x.spec.ranks_on.empty())
      return;
    elsewhere[x.incarnation] = {
        leader,
        x.spec.part == 0 ? x.spec.replica : replica_of_part(x.spec.replica),
        {}};
    ask_once_more(elsewhere[x.incarnation]);
  }

  /// What was said before this node could hear it.
  void ask_once_more(const far_meeting& meeting) {
    rank_word said;
    said.replica = meeting.replica;
    said.leader = meeting.leader;
    said.key = rank_word::once_more;
    tell_word(std::move(said));
  }

  void close_meeting(std::uint64_t which) {
    auto known = elsewhere.find(which);
    meetings.close(known == elsewhere.end() ? which : known->second.leader);
    elsewhere.erase(which);
  }

  caf::result<bool> put_word(std::uint64_t which, const std::string& key,
                             const codec::bytes& word) {
    if (key.empty() || key == rank_word::once_more)
      return caf::make_error(caf::sec::invalid_argument, "no key for a word");
    if (auto done = meetings.put(which, key, word); !done)
      return caf::make_error(caf::sec::invalid_argument, done.error().message);
    for (auto& [own, meeting] : elsewhere)
      if (meeting.leader == which) {
        rank_word said;
        said.replica = meeting.replica;
        said.leader = which;
        said.key = key;
        for (auto byte : word)
          said.word += static_cast<char>(byte);
        meeting.own.push_back(said);
        tell_word(std::move(said));
      }
    return true;
  }

  /// To the other nodes, if the head can be told; else words are, when it can.
  void tell_word(rank_word said) {
    if (!controller || !machine->joined() ||
        machine->head_version() < first_with_words)
      return;
    said.node = options->self.node;
    said.node_epoch = machine->node_epoch();
    self->send(caf::actor_cast<meeting_controller_actor>(controller),
               meet_atom::value, encode(said));
  }

  /// Those of one start, or of all (0).
  void tell_words_again(std::uint64_t leader = 0) {
    for (const auto& [own, meeting] : elsewhere)
      if (leader == 0 || meeting.leader == leader)
        for (const auto& said : meeting.own)
          tell_word(said);
  }

  /// To the other nodes, which may have joined before and after.
  void catch_up_on_words() {
    tell_words_again();
    for (const auto& [own, meeting] : elsewhere)
      ask_once_more(meeting);
  }

  void obey(const send_rank_word& x) {
    tell_word(x.word);
  }

  /// From another node. Words that come twice are the same.
  void hear_word(const codec::bytes& bytes) {
    auto said = decode_rank_word(bytes);
    if (!said)
      return;
    if (said->key.empty()) {
      run(machine->ranks_ended(said->leader,
                               "ranks on " + said->node + " " + said->word,
                               said->own_fault));
      return;
    }
    if (said->key == rank_word::once_more) {
      tell_words_again(said->leader);
      return;
    }
    codec::bytes word;
    for (char letter : said->word)
      word.push_back(static_cast<codec::bytes::value_type>(letter));
    if (auto done = meetings.put(said->leader, said->key, std::move(word));
        !done)
      spdlog::debug("{}'s word on {} is not taken: {}", said->node, said->key,
                    done.error().message);
  }

  caf::typed_response_promise<codec::bytes> get_word(std::uint64_t which,
                                                     const std::string& key) {
    auto promise = self->make_response_promise<codec::bytes>();
    meetings.get(which, key, [promise](result<codec::bytes> word) mutable {
      if (word)
        promise.deliver(std::move(*word));
      else
        promise.deliver(
            caf::make_error(caf::sec::runtime_error, word.error().message));
    });
    return promise;
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

  /// Kept for a replica that is not connected, or loses its connection now.
  void obey(const tune_replica& x) {
    auto& spec = tunes[x.incarnation] = encode(x.spec);
    auto i = replicas.find(x.incarnation);
    if (i != replicas.end())
      self->send(i->second, tune_atom::value, spec);
  }

  result<launch_record> make_launch_record(const spawn_process& x) {
    auto directory = run_directory_of(x.incarnation);
    if (auto made = make_own_directory(options->run_directory); !made)
      return made.error();
    if (auto made = make_own_directory(directory); !made)
      return made.error();
    launch_record out;
    out.spec = x.spec;
    out.incarnation = leader_of(x);
    out.agent = where;
    out.listen_address = options->address;
    out.certificate = options->tls.certificate.string();
    out.key = options->tls.key.string();
    out.authority = options->tls.authority.string();
    out.log_level = options->replica_logging.level;
    out.log_json = options->replica_logging.json;
    out.journal = (directory / journal_name).string();
    auto own = gpus.take(x.incarnation, x.spec.gpus, x.spec.gpus_here);
    if (!own)
      return own.error();
    out.gpus = std::move(*own);
    gpus_watched.look_at(gpus.names_of(x.incarnation));
    return out;
  }

  fs::path run_directory_of(std::uint64_t which) const {
    return options->run_directory / fmt::format("{:016x}", which);
  }

  // -- the end ---------------------------------------------------------------

  caf::typed_response_promise<bool> drain(std::uint32_t ms) {
    auto promise = self->make_response_promise<bool>();
    draining.push_back(promise);
    drain_until = now() + milliseconds{ms};
    run(machine->drain(milliseconds{ms}, now()));
    return promise;
  }

  void obey(const all_stopped&) {
    answer_drain(true);
  }

  void answer_drain(bool done) {
    for (auto& promise : draining)
      promise.deliver(done);
    draining.clear();
  }

  void run(agent_commands todo) {
    for (auto& x : todo)
      std::visit([this](auto& y) { obey(y); }, x);
  }

  clock::time_point now() const {
    return self->clock().now();
  }

  agent_shell_actor::pointer self;
  std::unique_ptr<const node_agent_options> options;
  head_place head;
  std::optional<agent_machine> machine;
  endpoint where;              ///< of this agent, for its replicas
  controller_actor controller; ///< null while there is no connection
  std::uint64_t attempts = 0;  ///< to connect; what is of older ones is late
  std::uint64_t joined_by = 0; ///< the attempt of which that was logged
  std::string complaint; ///< why there is no bond with the head, as logged
  router_actor router;   ///< null while there is none
  codec::bytes table;    ///< the last one; empty = none yet
  std::map<std::uint64_t, replica_actor>
      replicas;                                ///< connected, by incarnation
  std::map<std::uint64_t, codec::bytes> tunes; ///< newest, by incarnation
  std::map<std::string, std::uint64_t>
      failures; ///< the start of each replica whose end was logged last
  rank_meetings meetings;
  std::map<std::uint64_t, far_meeting>
      elsewhere; ///< by the start's incarnation
  gpu_allotment gpus;
  gpu_watch gpus_watched;
  std::shared_ptr<runtime::peer_directory> peers =
      std::make_shared<runtime::peer_directory>();
  std::vector<caf::typed_response_promise<bool>> draining;
  clock::time_point drain_until{};
  std::unique_ptr<process_host> host;
};

agent_shell_actor::behavior_type
agent(agent_shell_actor::stateful_pointer<agent_state> self,
      node_agent_options options, head_place head) {
  auto* state = &self->state;
  state->set_up(std::move(options), std::move(head));
  return {
      [state](register_atom, const codec::bytes& report,
              const replica_actor& replica) {
        return state->registered(report, replica);
      },
      [state](report_atom, const codec::bytes& report) {
        state->reported(report);
      },
      [state](assign_atom, const codec::bytes& assignment) {
        state->assigned(assignment);
      },
      [state](table_atom, const codec::bytes& table) {
        state->keep_table(table);
      },
      [state](death_atom, const codec::bytes& notice) {
        state->tell_death(notice);
      },
      [state](load_atom, const codec::bytes& report) {
        state->tell_load(report);
      },
      [state](others_atom, const codec::bytes& others) {
        state->tell_others(others);
      },
      [state](watch_atom, const router_actor& router, std::uint16_t port) {
        state->watch_router(router, port);
      },
      [state](drain_atom, std::uint32_t ms) { return state->drain(ms); },
      [state](meet_atom, const codec::bytes& word) { state->hear_word(word); },
      [state](meet_atom, std::uint64_t which, const std::string& key,
              const codec::bytes& word) {
        return state->put_word(which, key, word);
      },
      [state](meet_atom, std::uint64_t which, const std::string& key) {
        return state->get_word(which, key);
      },
      [state](tick_atom) { state->tick(); },
      [state](listens_atom, std::uint16_t port) { state->listens(port); },
      [state](reached_atom, std::uint64_t attempt) {
        state->reached(attempt, std::get<controller_actor>(state->head));
      },
      [state](spawned_atom, std::uint64_t which, std::int64_t pid) {
        state->run(state->machine->spawned(which, pid));
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
                                          head_place head) {
  auto shell = system.spawn(agent, std::move(options), std::move(head));
  auto out = caf::actor_cast<node_agent_actor>(shell);
  auto port = runtime::publish(out, loopback);
  if (!port) {
    caf::anon_send_exit(shell, caf::exit_reason::kill);
    return port.error();
  }
  caf::anon_send(shell, listens_atom::value, *port);
  return out;
}

} // namespace troupe::node_agent
