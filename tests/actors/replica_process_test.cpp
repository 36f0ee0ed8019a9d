#include "actors/protocol/launch_record.hpp"
#include "actors/protocol/request_record.hpp"
#include "actors/protocol/token_batch.hpp"
#include "actors/replica/replica.hpp"
#include "actors/runtime/authority.hpp"
#include "actors/runtime/link.hpp"
#include "actors/runtime/step_journal.hpp"
#include "actors/runtime/stop_actor.hpp"
#include "actors/runtime/system_config.hpp"
#include "tests/actors/replica_process/fake_engine.hpp"
#include "tests/actors/temporary_directory.hpp"

#include <catch2/catch.hpp>

#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <map>
#include <mutex>
#include <optional>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace troupe;
using namespace troupe::protocol;
using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t replica_life = 77; // its incarnation
constexpr std::uint64_t router_life = 5;
constexpr auto long_enough = 20s;

/// What a replica's process said to the test, which is its node agent and its
/// router.
class heard {
public:
  template <class Change>
  void note(Change change) {
    std::lock_guard guard{mutex_};
    change();
    changed_.notify_all();
  }

  template <class Happened>
  bool wait(Happened happened) {
    std::unique_lock guard{mutex_};
    return changed_.wait_for(guard, long_enough, happened);
  }

  /// Looks at what is there, undisturbed.
  template <class Look>
  auto see(Look look) {
    std::lock_guard guard{mutex_};
    return look();
  }

  std::vector<replica_report> registrations;
  replica_report last; ///< registered or reported
  std::vector<choice_tokens> news;
  /// Who heard of the ends of choices; and that it has no session.
  std::map<std::uint64_t, caf::actor_addr> cancelled;
  std::map<std::uint64_t, caf::actor_addr> disowned;
  int agent_links_lost = 0;
  bool is_wanted = true; ///< the answer to registrations

private:
  std::mutex mutex_;
  std::condition_variable changed_;
};

struct agent_state {
  explicit agent_state(node_agent_actor::pointer) {
    // nop
  }

  replica_actor replica; ///< kept, so that its end is heard
};

node_agent_actor::behavior_type
recording_agent(node_agent_actor::stateful_pointer<agent_state> self,
                heard* from, std::shared_ptr<runtime::peer_directory> peers) {
  self->set_down_handler([=](const caf::down_msg&) {
    peers->lost(replica_life);
    self->state.replica = nullptr;
    from->note([&] { ++from->agent_links_lost; });
  });
  return {
      [=](register_atom, const codec::bytes& bytes, const replica_actor& who) {
        auto report = decode_replica_report(bytes).value();
        if (!self->state.replica) {
          self->state.replica = who;
          runtime::watch(self, who);
          peers->met(replica_life, caf::actor_cast<caf::strong_actor_ptr>(who));
        }
        bool answer = true;
        from->note([&] {
          from->registrations.push_back(report);
          from->last = report;
          answer = from->is_wanted;
        });
        return answer;
      },
      [=](report_atom, const codec::bytes& bytes) {
        auto report = decode_replica_report(bytes).value();
        from->note([&] { from->last = report; });
      },
      [](assign_atom, const codec::bytes&) {},
      [](table_atom, const codec::bytes&) {},
      [](death_atom, const codec::bytes&) {},
      [](load_atom, const codec::bytes&) {},
      [](others_atom, const codec::bytes&) {},
      [](watch_atom, const router_actor&, std::uint16_t) {},
      [](drain_atom, std::uint32_t) { return true; },
  };
}

token_sink_actor::behavior_type recording_sink(token_sink_actor::pointer self,
                                               heard* from,
                                               std::uint32_t version) {
  return {[=](tokens_atom, const codec::bytes& bytes) {
    auto batch = decode_token_batch(bytes, version).value();
    from->note([&] {
      for (const auto& one : batch.choices)
        if (one.reason == finish::cancelled)
          (batch.no_session ? from->disowned : from->cancelled)[one.id] =
              self->address();
      for (auto& one : batch.choices)
        from->news.push_back(std::move(one));
    });
  }};
}

/// A replica's process with a fake engine, started as a node agent does.
class live_replica {
public:
  struct session {
    std::uint64_t incarnation = 0;
    std::uint32_t version = 0;
    std::string refusal; ///< empty: it is open
  };

  explicit live_replica(std::uint32_t version = protocol_version,
                        std::uint32_t max_ongoing_requests = 0) {
    spdlog::set_level(spdlog::level::off);
    spec.replica = "m#1";
    spec.max_ongoing_requests = max_ongoing_requests;
    launch.spec = spec;
    launch.incarnation = replica_life;
    launch.listen_address = "127.0.0.1";
    launch.certificate = files.certificate;
    launch.key = files.key;
    launch.authority = files.authority;
    launch.log_level = "critical";
    launch.journal = (tmp.path() / "journal").string();
    config.peers->expect(replica_life);
    agent = system.spawn(recording_agent, &from, config.peers);
    launch.agent = {"127.0.0.1", *runtime::publish(agent, "127.0.0.1"), 0, 1};
    start(version);
  }

  ~live_replica() {
    if (pid > 0) {
      ::kill(pid, SIGCONT);
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
    ::close(lifeline);
    for (const auto& sink : sinks)
      runtime::stop_actor(system, sink, 2s);
    runtime::stop_actor(system, agent, 2s);
  }

  /// Waits until it takes requests.
  void wait_ready() {
    REQUIRE(
        from.wait([this] { return from.last.phase == replica_phase::ready; }));
    auto where = from.see([this] { return from.last.where; });
    auto peer = runtime::connect_now<replica_actor>(system, where, 5s);
    REQUIRE(peer.has_value());
    actor = *peer;
  }

  /// The router's actor as it is seen over one connection.
  token_sink_actor add_sink(std::uint32_t version = protocol_version) {
    return sinks.emplace_back(system.spawn(recording_sink, &from, version));
  }

  /// As a router that speaks `version`.
  session attach(std::uint32_t version = protocol_version) {
    return attach(add_sink(version), version);
  }

  session attach(const token_sink_actor& sink, std::uint32_t version) {
    session out;
    caf::scoped_actor self{system};
    self->request(actor, caf::duration{5s}, attach_atom::value, router_life,
                  version, sink)
        .receive(
            [&](std::uint64_t incarnation, std::uint32_t theirs) {
              out = {incarnation, theirs, {}};
            },
            [&](const caf::error& why) { out.refusal = system.render(why); });
    return out;
  }

  void generate(const request_record& record,
                std::uint32_t version = protocol_version) {
    caf::anon_send(actor, generate_atom::value, router_life,
                   encode(record, version));
  }

  /// From the router over the connection of this one.
  void generate(const token_sink_actor& sink, const request_record& record) {
    caf::send_as(sink, actor, generate_atom::value, router_life,
                 encode(record));
  }

  void tune(const replica_spec& to) {
    caf::anon_send(actor, tune_atom::value, encode(to));
  }

  void signal(int what) {
    ::kill(pid, what);
  }

  /// The news of a choice's end.
  std::optional<choice_tokens> wait_for_end(std::uint64_t id) {
    std::optional<choice_tokens> out;
    from.wait([&] {
      for (const auto& x : from.news)
        if (x.id == id && x.reason != finish::none)
          out = x;
      return out.has_value();
    });
    return out;
  }

  std::vector<token_id> tokens_of(std::uint64_t id) {
    return from.see([&] {
      std::vector<token_id> out;
      for (const auto& x : from.news)
        if (x.id == id)
          out.insert(out.end(), x.tokens.begin(), x.tokens.end());
      return out;
    });
  }

  bool wait_for_tokens(std::uint64_t id, std::size_t count) {
    return from.wait([&] {
      std::size_t seen = 0;
      for (const auto& x : from.news)
        seen += x.id == id ? x.tokens.size() : 0;
      return seen >= count;
    });
  }

  /// What waitpid says of its end.
  std::optional<int> wait_for_exit() {
    int status = 0;
    for (int i = 0; i < 2000; ++i) {
      if (::waitpid(pid, &status, WNOHANG) == pid) {
        pid = 0;
        return status;
      }
      std::this_thread::sleep_for(10ms);
    }
    return std::nullopt;
  }

  heard from; // outlives the actors
  test::temporary_directory tmp;
  replica_spec spec;
  launch_record launch;
  replica_actor actor;

private:
  void start(std::uint32_t version) {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    lifeline = ends[1];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    // Through a number that is not lifeline_fd, or close-on-exec would stay.
    int other = ::fcntl(ends[0], F_DUPFD_CLOEXEC, 10);
    posix_spawn_file_actions_adddup2(&actions, other, lifeline_fd);
    std::string program = TROUPE_TEST_REPLICA;
    std::string verb = "replica";
    std::string speaks = std::to_string(version);
    char* argv[] = {program.data(), verb.data(), speaks.data(), nullptr};
    auto failed =
        ::posix_spawn(&pid, program.c_str(), &actions, nullptr, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    ::close(ends[0]);
    ::close(other);
    REQUIRE(failed == 0);
    auto bytes = encode(launch);
    auto size = static_cast<std::uint32_t>(bytes.size());
    REQUIRE(::write(lifeline, &size, sizeof size) == sizeof size);
    REQUIRE(::write(lifeline, bytes.data(), size) ==
            static_cast<ssize_t>(size));
  }

  runtime::authority ca = runtime::authority::open(tmp.path() / "tls").value();
  runtime::credentials files = ca.issue("head", tmp.path() / "head").value();
  runtime::system_config config{{files}};
  caf::actor_system system{config};
  node_agent_actor agent;
  std::vector<token_sink_actor> sinks;
  pid_t pid = 0;
  int lifeline = -1;
};

request_record ask(std::uint64_t id, token_id prompt,
                   std::uint32_t max_tokens) {
  request_record x;
  x.id = id;
  x.prompt = {prompt};
  x.params.max_tokens = max_tokens;
  return x;
}

constexpr std::uint32_t endless = 1'000'000;

} // namespace

TEST_CASE("a router and a replica say what version they speak") {
  live_replica replica;
  replica.wait_ready();
  CHECK(replica.from.see([&] { return replica.from.last.version; }) ==
        protocol_version);
  auto session = replica.attach();
  CHECK(session.refusal == "");
  CHECK(session.incarnation == replica_life);
  CHECK(session.version == protocol_version);
}

TEST_CASE("a replica serves a router one protocol version apart") {
  for (auto version : {protocol_version - 1, protocol_version + 1}) {
    live_replica replica{version};
    replica.wait_ready();
    auto session = replica.attach();
    REQUIRE(session.refusal == "");
    REQUIRE(session.version == version);
    auto common = std::min(version, protocol_version);
    auto record = ask(1, 10, 3);
    record.alone = true; // newer than the older of the two may know
    replica.generate(record, common);
    auto end = replica.wait_for_end(1);
    REQUIRE(end.has_value());
    CHECK(end->reason == finish::length);
    CHECK(replica.tokens_of(1) == std::vector<token_id>{11, 12, 13});
  }
}

TEST_CASE("an older replica refuses what it does not know by number") {
  live_replica replica{1};
  replica.wait_ready();
  REQUIRE(replica.attach(2).refusal == "");
  auto record = ask(1, 10, 3);
  record.alone = true;
  replica.generate(record, 2); // not what it asked for
  auto end = replica.wait_for_end(1);
  REQUIRE(end.has_value());
  CHECK(end->reason == finish::error);
  CHECK(end->code == errc::unsupported);
  CHECK(end->message.find("field 9") != std::string::npos);
}

TEST_CASE("a replica two protocol versions apart refuses by name") {
  live_replica replica{protocol_version + 2};
  replica.wait_ready();
  auto session = replica.attach();
  CHECK(session.incarnation == 0);
  CHECK(session.refusal.find("protocol version " +
                             std::to_string(protocol_version)) !=
        std::string::npos);
  CHECK(session.refusal.find("m#1 " + std::to_string(protocol_version + 2)) !=
        std::string::npos);
}

TEST_CASE("what a running replica may take is changed in place") {
  live_replica replica{protocol_version, 1};
  replica.wait_ready();
  REQUIRE(replica.attach().refusal == "");
  replica.generate(ask(1, 10, endless));
  REQUIRE(replica.wait_for_tokens(1, 1));
  replica.generate(ask(2, 10, 1));
  CHECK(replica.wait_for_end(2)->code == errc::limit);

  auto other = replica.spec;
  other.max_ongoing_requests = 2;
  other.model_source = "/another";
  replica.tune(other); // it would need another process
  replica.generate(ask(3, 10, 1));
  CHECK(replica.wait_for_end(3)->code == errc::limit);

  other.model_source = replica.spec.model_source;
  replica.tune(other);
  replica.generate(ask(4, 10, 1));
  CHECK(replica.wait_for_end(4)->reason == finish::length);
  // The stream that ran all the while was not touched.
  auto tokens = replica.tokens_of(1);
  for (std::size_t i = 0; i < tokens.size(); ++i)
    CHECK(tokens[i] == static_cast<token_id>(11 + i));
}

TEST_CASE("a broken or senseless change is ignored") {
  live_replica replica;
  replica.wait_ready();
  REQUIRE(replica.attach().refusal == "");
  caf::anon_send(replica.actor, tune_atom::value, codec::bytes{1, 2, 3});
  replica.generate(ask(1, 10, 1));
  CHECK(replica.wait_for_end(1)->reason == finish::length);
}

TEST_CASE("a drained replica ends at its time though choices run") {
  live_replica replica;
  replica.wait_ready();
  REQUIRE(replica.attach().refusal == "");
  replica.generate(ask(1, 10, endless));
  REQUIRE(replica.wait_for_tokens(1, 3));
  caf::anon_send(replica.actor, drain_atom::value, std::uint32_t{300});
  auto status = replica.wait_for_exit();
  REQUIRE(status.has_value());
  CHECK(WIFEXITED(*status));
  CHECK(WEXITSTATUS(*status) == replica::exit_stopped);
  // Its last word came after its last tokens, and they form a beginning.
  CHECK(replica.from.see([&] {
    return replica.from.registrations.back().phase == replica_phase::draining;
  }));
  auto tokens = replica.tokens_of(1);
  for (std::size_t i = 0; i < tokens.size(); ++i)
    REQUIRE(tokens[i] == static_cast<token_id>(11 + i));
}

TEST_CASE("what was drawn arrives though the replica ends with it") {
  constexpr std::int64_t choices = 2000; // more than a socket takes at once
  for (int i = 0; i < 3; ++i) {
    live_replica replica;
    replica.wait_ready();
    REQUIRE(replica.attach().refusal == "");
    for (std::uint64_t id = 1; id <= choices; ++id)
      replica.generate(ask(id, 10, 8));
    REQUIRE(replica.wait_for_tokens(choices, 1));
    caf::anon_send(replica.actor, drain_atom::value, std::uint32_t{20'000});
    REQUIRE(replica.wait_for_exit() == 0);
    REQUIRE(replica.from.wait([&] {
      return std::count_if(replica.from.news.begin(), replica.from.news.end(),
                           [](const auto& x) {
                             return x.reason == finish::length;
                           }) == choices;
    }));
  }
}

TEST_CASE("a drained replica ends as asked though its engine is in a step") {
  live_replica replica;
  replica.wait_ready();
  REQUIRE(replica.attach().refusal == "");
  replica.generate(ask(1, test::fake_engine::endless_prompt, 1));
  REQUIRE(replica.from.wait([&] { return replica.from.last.load.running; }));
  caf::anon_send(replica.actor, drain_atom::value, std::uint32_t{0});
  CHECK(replica.wait_for_exit() == 0);
}

TEST_CASE("the journal names the choices of the step that killed a replica") {
  live_replica replica;
  replica.wait_ready();
  REQUIRE(replica.attach().refusal == "");
  replica.generate(ask(1, 10, endless));
  REQUIRE(replica.wait_for_tokens(1, 1));
  replica.generate(ask(2, test::fake_engine::abort_prompt, 1));
  auto status = replica.wait_for_exit();
  REQUIRE(status.has_value());
  REQUIRE(WIFSIGNALED(*status));
  CHECK(WTERMSIG(*status) == SIGABRT);
  auto running = runtime::read_step_journal(replica.launch.journal);
  REQUIRE(running.has_value());
  std::sort(running->begin(), running->end());
  CHECK(*running ==
        std::vector<runtime::step_member>{{router_life, 1}, {router_life, 2}});
}

TEST_CASE("an attach that comes late, by another connection, leaves nobody "
          "waiting") {
  live_replica replica;
  replica.wait_ready();
  auto& from = replica.from;
  auto live = replica.add_sink();
  auto dead = replica.add_sink();
  auto told = [&](auto& whom, std::uint64_t id) {
    caf::actor_addr out;
    from.wait([&] {
      if (auto known = whom.find(id); known != whom.end())
        out = known->second;
      return static_cast<bool>(out);
    });
    return out;
  };
  replica.generate(live, ask(1, 10, endless)); // ahead of any session
  CHECK(told(from.disowned, 1) == live.address());
  REQUIRE(replica.attach(live, protocol_version).refusal == "");
  replica.generate(live, ask(2, 10, endless));
  REQUIRE(replica.wait_for_tokens(2, 3));
  REQUIRE(replica.attach(dead, protocol_version).refusal == "");
  // Who counts on the choices of the session that is replaced hears of it, ...
  CHECK(told(from.cancelled, 2) == live.address());
  // ... and then that there is no session.
  replica.generate(live, ask(3, 10, endless));
  CHECK(told(from.disowned, 3) == live.address());
  replica.generate(dead, ask(4, 10, 3));
  auto end = replica.wait_for_end(4);
  REQUIRE(end.has_value());
  CHECK(end->reason == finish::length);
}

TEST_CASE("a replica that stood still cancels what nobody waits for") {
  live_replica replica;
  replica.wait_ready();
  REQUIRE(replica.attach().refusal == "");
  replica.generate(ask(1, 10, endless));
  REQUIRE(replica.wait_for_tokens(1, 3));
  REQUIRE(replica.from.wait([&] { return replica.from.last.load.running; }));

  // Nobody hears of it: the links end. It is wanted still, and comes back.
  replica.signal(SIGSTOP);
  REQUIRE(
      replica.from.wait([&] { return replica.from.agent_links_lost == 1; }));
  auto said =
      replica.from.see([&] { return replica.from.registrations.size(); });
  auto told = replica.tokens_of(1).size();
  replica.signal(SIGCONT);
  REQUIRE(replica.from.wait(
      [&] { return replica.from.registrations.size() > said; }));
  CHECK(replica.from.wait([&] { return replica.from.last.load.running == 0; }));
  CHECK(replica.tokens_of(1).size() == told);

  // Once more; by now another one is there in its place.
  replica.signal(SIGSTOP);
  REQUIRE(
      replica.from.wait([&] { return replica.from.agent_links_lost == 2; }));
  replica.from.note([&] { replica.from.is_wanted = false; });
  replica.signal(SIGCONT);
  auto status = replica.wait_for_exit();
  REQUIRE(status.has_value());
  CHECK(WIFEXITED(*status));
  CHECK(WEXITSTATUS(*status) == replica::exit_refused);
}
