#include "actors/node_agent/node_agent.hpp"
#include "actors/protocol/request_record.hpp"
#include "actors/protocol/token_batch.hpp"
#include "actors/runtime/blob_listener.hpp"
#include "actors/runtime/link.hpp"
#include "actors/runtime/stop_actor.hpp"
#include "actors/runtime/system_config.hpp"
#include "tests/actors/replica_process/fake_engine.hpp"
#include "tests/actors/temporary_directory.hpp"

#include <catch2/catch.hpp>

#include <caf/send.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <spdlog/spdlog.h>

#include <condition_variable>
#include <csignal>
#include <fstream>
#include <sstream>

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace troupe;
using namespace troupe::protocol;
using namespace std::chrono_literals;

namespace {

/// What reached an actor of the test, in order; waited for from the test.
template <class T>
class record_of {
public:
  void add(T x) {
    std::lock_guard guard{mutex_};
    all_.push_back(std::move(x));
    changed_.notify_all();
  }

  /// Waits until one fits (one that came before counts too, from `from` on).
  template <class Fits>
  std::optional<T> wait(Fits fits, std::size_t from = 0) {
    std::unique_lock guard{mutex_};
    std::optional<T> out;
    changed_.wait_for(guard, 10s, [&] {
      for (auto i = from; i < all_.size() && !out; ++i)
        if (fits(all_[i]))
          out = all_[i];
      return out.has_value();
    });
    return out;
  }

  std::size_t size() {
    std::lock_guard guard{mutex_};
    return all_.size();
  }

private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<T> all_;
};

using reports = record_of<replica_report>;
using batches = record_of<token_batch>;

controller_actor::behavior_type recording_controller(controller_actor::pointer,
                                                     reports* seen) {
  return {
      [](register_atom, const codec::bytes&, const node_agent_actor&) {},
      [seen](report_atom, const codec::bytes& bytes) {
        seen->add(decode_replica_report(bytes).value());
      },
      [](watch_atom, const table_sink_actor&) {},
      [](deploy_atom, const codec::bytes&) { return std::uint64_t{0}; },
      [](status_atom) { return codec::bytes{}; },
  };
}

token_sink_actor::behavior_type recording_sink(token_sink_actor::pointer,
                                               batches* seen) {
  return {[seen](tokens_atom, const codec::bytes& bytes) {
    seen->add(decode_token_batch(bytes).value());
  }};
}

/// A node with an agent whose replicas are real processes with fake engines.
struct live_node {
  explicit live_node(node_agent::supervision_limits limits = {}) {
    spdlog::set_level(spdlog::level::off);
    node_agent::node_agent_options options{ca, tmp.path() / "run"};
    options.limits = limits;
    options.replica_executable = TROUPE_TEST_REPLICA;
    options.replica_logging.level = "critical";
    agent = node_agent::spawn_node_agent(system, std::move(options), controller)
                .value();
  }

  ~live_node() {
    for (const auto& sink : sinks)
      runtime::stop_actor(system, sink, 2s);
    runtime::stop_actor(system, agent, 5s);
    runtime::stop_actor(system, controller, 2s);
  }

  void start(replica_spec spec) {
    caf::anon_send(agent, start_atom::value, encode(spec));
  }

  replica_report wait(replica_phase phase, std::size_t from = 0) {
    auto out = seen.wait([&](const auto& x) { return x.phase == phase; }, from);
    REQUIRE(out.has_value());
    return *out;
  }

  /// Connects as a router.
  replica_actor attach(const endpoint& where, batches& tokens) {
    auto peer = runtime::connect_now<replica_actor>(system, where, 3s);
    REQUIRE(peer.has_value());
    sinks.push_back(system.spawn(recording_sink, &tokens));
    caf::scoped_actor self{system};
    std::uint64_t incarnation = 0;
    self->request(*peer, caf::duration{3s}, attach_atom::value,
                  std::uint64_t{1}, protocol_version, sinks.back())
        .receive([&](std::uint64_t x) { incarnation = x; },
                 [](const caf::error&) {});
    REQUIRE(incarnation == where.incarnation);
    return *peer;
  }

  test::temporary_directory tmp;
  runtime::authority ca = runtime::authority::open(tmp.path() / "tls").value();
  runtime::credentials files = ca.issue("head", tmp.path() / "head").value();
  runtime::system_config config{{files}};
  caf::actor_system system{config};
  reports seen;
  controller_actor controller = system.spawn(recording_controller, &seen);
  node_agent_actor agent;
  std::vector<token_sink_actor> sinks;
};

replica_spec spec() {
  replica_spec x;
  x.replica = "m#1";
  x.graceful_shutdown_timeout_ms = 500;
  return x;
}

codec::bytes request(std::uint64_t id, std::vector<token_id> prompt,
                     std::uint32_t max_tokens) {
  request_record x;
  x.id = id;
  x.prompt = std::move(prompt);
  x.params.max_tokens = max_tokens;
  return encode(x);
}

bool alive(std::int64_t pid) {
  return ::kill(static_cast<pid_t>(pid), 0) == 0;
}

bool dies(std::int64_t pid) {
  for (int i = 0; i < 500 && alive(pid); ++i)
    std::this_thread::sleep_for(10ms);
  return !alive(pid);
}

/// Local addresses of the listening sockets of a process.
std::vector<std::string> listening(std::int64_t pid) {
  auto proc = "/proc/" + std::to_string(pid);
  std::string inodes;
  std::error_code ignored;
  for (const auto& fd :
       std::filesystem::directory_iterator{proc + "/fd", ignored})
    inodes += std::filesystem::read_symlink(fd, ignored).string() + "\n";
  std::vector<std::string> out;
  for (const char* table : {"/net/tcp", "/net/tcp6"}) {
    std::ifstream in{proc + table};
    for (std::string line; std::getline(in, line);) {
      std::istringstream words{line};
      std::vector<std::string> word(10);
      for (auto& x : word)
        words >> x;
      if (word[3] == "0A" &&
          inodes.find("socket:[" + word[9] + "]") != std::string::npos)
        out.push_back(word[1]);
    }
  }
  return out;
}

} // namespace

TEST_CASE("a replica process serves a router until it is drained") {
  live_node node;
  node.start(spec());
  auto ready = node.wait(replica_phase::ready);
  CHECK(ready.arithmetic_class == "fake");
  CHECK(ready.pid != ::getpid());
  auto card = runtime::fetch_blob(ready.where, ready.card_hash, node.files, 3s);
  REQUIRE(card.has_value());
  CHECK(*card == "card");

  // It listens where it says and nowhere else.
  auto sockets = listening(ready.pid);
  CHECK(sockets.size() == 2);
  for (const auto& address : sockets)
    CHECK(address.starts_with("0100007F:"));

  batches tokens;
  auto replica = node.attach(ready.where, tokens);
  caf::anon_send(replica, generate_atom::value, std::uint64_t{1},
                 request(5, {10}, 3));
  std::vector<token_id> got;
  REQUIRE(tokens.wait([&](const token_batch& x) {
    const auto& choice = x.choices.at(0);
    got.insert(got.end(), choice.tokens.begin(), choice.tokens.end());
    return choice.reason == finish::length;
  }));
  CHECK(got.back() == 13);

  // A broken record does no harm.
  caf::anon_send(replica, generate_atom::value, std::uint64_t{1},
                 codec::bytes{1, 2, 3});

  // Draining lets the running choice end and refuses another.
  auto before = tokens.size();
  caf::anon_send(replica, generate_atom::value, std::uint64_t{1},
                 request(6, {100}, 40));
  REQUIRE(
      tokens.wait([](const auto& x) { return x.choices[0].id == 6; }, before));
  caf::anon_send(node.agent, stop_atom::value, std::string{"m#1"});
  node.wait(replica_phase::draining);
  caf::anon_send(replica, generate_atom::value, std::uint64_t{1},
                 request(7, {1}, 1));
  auto refused =
      tokens.wait([](const auto& x) { return x.choices[0].id == 7; });
  REQUIRE(refused.has_value());
  CHECK(refused->choices[0].code == errc::unavailable);
  auto last = tokens.wait([](const auto& x) {
    return x.choices[0].id == 6 && x.choices[0].reason != finish::none;
  });
  REQUIRE(last.has_value());
  CHECK(last->choices[0].reason == finish::length);
  CHECK(last->choices[0].tokens == std::vector<token_id>{140});
  node.wait(replica_phase::stopped);
  CHECK(dies(ready.pid));
  CHECK(std::filesystem::is_empty(node.tmp.path() / "run"));
}

TEST_CASE("a killed replica process is started again") {
  live_node node;
  node.start(spec());
  auto first = node.wait(replica_phase::ready);
  ::kill(static_cast<pid_t>(first.pid), SIGKILL);
  auto dead = node.wait(replica_phase::failed);
  CHECK(dead.reason == "killed by SIGKILL");
  auto second = node.seen.wait([&](const replica_report& x) {
    return x.phase == replica_phase::ready && x.pid != first.pid;
  });
  REQUIRE(second.has_value());
  CHECK(second->incarnation != first.incarnation);
  CHECK(second->restarts == 1);
  batches tokens;
  auto replica = node.attach(second->where, tokens);
  caf::anon_send(replica, generate_atom::value, std::uint64_t{1},
                 request(1, {1}, 1));
  CHECK(tokens.wait([](const auto& x) { return x.choices[0].id == 1; }));
}

TEST_CASE("a replica that cannot load says why") {
  live_node node;
  auto broken = spec();
  broken.start_retries = 1;
  broken.model_source = "/missing";
  node.start(broken);
  auto last =
      node.seen.wait([](const replica_report& x) { return x.budget_spent; });
  REQUIRE(last.has_value());
  CHECK(last->reason == "/missing: no such file");
  CHECK(last->restarts == 1);
}

TEST_CASE("a replica can be stopped while it loads") {
  live_node node;
  auto slow = spec();
  slow.model_source = "/slow";
  node.start(slow);
  auto loading = node.wait(replica_phase::loading);
  caf::anon_send(node.agent, stop_atom::value, std::string{"m#1"});
  node.wait(replica_phase::stopped);
  CHECK(dies(loading.pid));
}

TEST_CASE("a replica whose engine hangs is killed and started again") {
  live_node node;
  auto watched = spec();
  watched.health_check_period_ms = 500;
  watched.health_check_timeout_ms = 1500;
  node.start(watched);
  auto first = node.wait(replica_phase::ready);
  batches tokens;
  auto replica = node.attach(first.where, tokens);
  caf::anon_send(replica, generate_atom::value, std::uint64_t{1},
                 request(1, {test::fake_engine::hang_prompt}, 5));
  auto dead = node.wait(replica_phase::failed);
  CHECK(dead.reason == "it made no step while requests were running");
  CHECK(node.seen.wait([&](const replica_report& x) {
    return x.phase == replica_phase::ready && x.pid != first.pid;
  }));
}

TEST_CASE("a stopped replica process is found out and replaced") {
  live_node node;
  auto watched = spec();
  watched.health_check_period_ms = 500;
  watched.health_check_timeout_ms = 1500;
  node.start(watched);
  auto first = node.wait(replica_phase::ready);
  ::kill(static_cast<pid_t>(first.pid), SIGSTOP);
  CHECK(node.wait(replica_phase::failed).reason == "it stopped reporting");
  CHECK(dies(first.pid));
}

TEST_CASE("draining the node answers when no replica is left") {
  live_node node;
  node.start(spec());
  auto ready = node.wait(replica_phase::ready);
  caf::scoped_actor self{node.system};
  bool done = false;
  self->request(node.agent, caf::duration{5s}, drain_atom::value,
                std::uint32_t{3000})
      .receive([&](bool x) { done = x; }, [](const caf::error&) {});
  CHECK(done);
  CHECK_FALSE(alive(ready.pid));
}

TEST_CASE("when the agent's process is killed no replica survives it") {
  test::temporary_directory tmp;
  int output[2];
  REQUIRE(::pipe(output) == 0);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, output[1], STDOUT_FILENO);
  posix_spawn_file_actions_addclosefrom_np(&files, 3);
  std::string program = TROUPE_TEST_REPLICA;
  std::string verb = "agent";
  std::string directory = tmp.path().string();
  char* argv[] = {program.data(), verb.data(), directory.data(), nullptr};
  pid_t agent = 0;
  REQUIRE(::posix_spawn(&agent, program.c_str(), &files, nullptr, argv,
                        environ) == 0);
  posix_spawn_file_actions_destroy(&files);
  ::close(output[1]);
  std::set<std::int64_t> replicas;
  std::string line;
  for (char c = 0; replicas.size() < 2 && ::read(output[0], &c, 1) == 1;) {
    if (c != '\n') {
      line += c;
      continue;
    }
    replicas.insert(std::stoll(line));
    line.clear();
  }
  REQUIRE(replicas.size() == 2);
  for (auto pid : replicas)
    CHECK(alive(pid));
  ::kill(agent, SIGKILL);
  ::waitpid(agent, nullptr, 0);
  for (auto pid : replicas)
    CHECK(dies(pid));
  ::close(output[0]);
}
