#include "actors/node_agent/node_agent.hpp"
#include "actors/node_agent/resources.hpp"
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

/// What a head heard of its node.
struct head_record {
  record_of<node_joined> joined;
  reports news;
  record_of<death_notice> deaths;
  record_of<node_agent_actor> agents;
  record_of<bool> lost; ///< one for each agent whose end was heard
};

constexpr std::uint64_t head_life = 3;

/// Welcomes a node each time it comes, with the next epoch.
controller_actor::behavior_type
recording_controller(controller_actor::pointer self, head_record* seen,
                     std::uint64_t head_epoch) {
  auto epochs = std::make_shared<std::uint64_t>(0);
  self->set_down_handler(
      [seen](const caf::down_msg&) { seen->lost.add(true); });
  return {
      [=](register_atom, const codec::bytes& node,
          const node_agent_actor& agent) {
        runtime::watch(self, agent);
        seen->agents.add(agent);
        node_welcome welcome{true, "", head_epoch, ++*epochs};
        seen->joined.add(decode_node_joined(node).value());
        return encode(welcome);
      },
      [seen](report_atom, const codec::bytes& bytes) {
        seen->news.add(decode_replica_news(bytes).value().report);
      },
      [seen](death_atom, const codec::bytes& bytes) {
        seen->deaths.add(decode_death_notice(bytes).value());
      },
      [](deploy_atom, const codec::bytes&) { return std::uint64_t{0}; },
      [](delete_atom, const std::string&) { return std::uint64_t{0}; },
      [](config_atom) { return codec::bytes{}; },
      [](status_atom) { return codec::bytes{}; },
  };
}

/// What the agent handed to its router.
struct router_record {
  record_of<std::uint64_t> tables; ///< their versions
  record_of<death_notice> deaths;
};

router_actor::behavior_type recording_router(router_actor::pointer,
                                             router_record* seen) {
  return {
      [](tokens_atom, const codec::bytes&) {},
      [seen](table_atom, const codec::bytes& bytes) {
        seen->tables.add(decode_routing_table(bytes).value().version);
      },
      [seen](death_atom, const codec::bytes& bytes) {
        seen->deaths.add(decode_death_notice(bytes).value());
      },
      [](others_atom, const codec::bytes&) {},
      [](watch_atom, const load_sink_actor&) {},
  };
}

token_sink_actor::behavior_type recording_sink(token_sink_actor::pointer,
                                               batches* seen) {
  return {[seen](tokens_atom, const codec::bytes& bytes) {
    seen->add(decode_token_batch(bytes).value());
  }};
}

/// Options of an agent whose replicas are real processes with fake engines.
node_agent::node_agent_options agent_options(const runtime::credentials& tls,
                                             std::filesystem::path directory) {
  node_agent::node_agent_options out;
  out.self = node_agent::describe_node("w1", "127.0.0.1", {});
  out.tls = tls;
  out.run_directory = std::move(directory);
  out.replica_executable = TROUPE_TEST_REPLICA;
  out.replica_logging.level = "critical";
  return out;
}

/// A node with its head in the same process.
struct live_node {
  live_node() {
    spdlog::set_level(spdlog::level::off);
    auto options = agent_options(files, tmp.path() / "run");
    options.on_welcome = [this](const node_welcome& x) { welcomes.add(x); };
    options.on_router_wanted = [this](bool x) { router_wanted.add(x); };
    agent = node_agent::spawn_node_agent(system, std::move(options), controller)
                .value();
    REQUIRE(welcomes.wait([](const auto&) { return true; }));
  }

  ~live_node() {
    for (const auto& sink : sinks)
      runtime::stop_actor(system, sink, 2s);
    runtime::stop_actor(system, agent, 5s);
    runtime::stop_actor(system, controller, 2s);
  }

  void assign(std::vector<replica_spec> specs, bool with_router = true) {
    node_assignment all{head_life, 1, ++sequence, std::move(specs),
                        with_router};
    caf::anon_send(agent, assign_atom::value, encode(all));
  }

  replica_report wait(replica_phase phase, std::size_t from = 0) {
    auto out =
        seen.news.wait([&](const auto& x) { return x.phase == phase; }, from);
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
        .receive([&](std::uint64_t x, std::uint32_t) { incarnation = x; },
                 [](const caf::error&) {});
    REQUIRE(incarnation == where.incarnation);
    return *peer;
  }

  test::temporary_directory tmp;
  runtime::authority ca = runtime::authority::open(tmp.path() / "tls").value();
  runtime::credentials files = ca.issue("head", tmp.path() / "head").value();
  runtime::system_config config{{files}};
  caf::actor_system system{config};
  head_record seen;
  record_of<node_welcome> welcomes;
  record_of<bool> router_wanted;
  controller_actor controller =
      system.spawn(recording_controller, &seen, head_life);
  node_agent_actor agent;
  std::uint64_t sequence = 0; ///< of assignments
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

/// The first news of a choice.
std::optional<choice_tokens> choice_of(batches& tokens, std::uint64_t id) {
  std::optional<choice_tokens> out;
  tokens.wait([&](const token_batch& batch) {
    for (const auto& x : batch.choices)
      if (x.id == id && !out)
        out = x;
    return out.has_value();
  });
  return out;
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
  auto patient = spec();
  patient.graceful_shutdown_timeout_ms = 10'000;
  node.assign({patient});
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
                 request(6, {100}, 200));
  REQUIRE(
      tokens.wait([](const auto& x) { return x.choices[0].id == 6; }, before));
  node.assign({});
  node.wait(replica_phase::draining);
  // The agent says so first; the replica hears of it a little later.
  bool refused = false;
  for (std::uint64_t id = 7; id < 500 && !refused; ++id) {
    caf::anon_send(replica, generate_atom::value, std::uint64_t{1},
                   request(id, {1}, 1));
    auto answer = choice_of(tokens, id);
    REQUIRE(answer.has_value());
    refused = answer->code == errc::unavailable;
  }
  CHECK(refused);
  auto last = tokens.wait([](const auto& x) {
    return x.choices[0].id == 6 && x.choices[0].reason != finish::none;
  });
  REQUIRE(last.has_value());
  CHECK(last->choices[0].reason == finish::length);
  CHECK(last->choices[0].tokens == std::vector<token_id>{300});
  node.wait(replica_phase::stopped);
  CHECK(dies(ready.pid));
  CHECK(std::filesystem::is_empty(node.tmp.path() / "run"));
}

TEST_CASE("a killed replica process is started again") {
  live_node node;
  node.assign({spec()});
  auto first = node.wait(replica_phase::ready);
  ::kill(static_cast<pid_t>(first.pid), SIGKILL);
  auto dead = node.wait(replica_phase::failed);
  CHECK(dead.reason == "killed by SIGKILL");
  auto second = node.seen.news.wait([&](const replica_report& x) {
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
  node.assign({broken});
  auto last = node.seen.news.wait(
      [](const replica_report& x) { return x.budget_spent; });
  REQUIRE(last.has_value());
  CHECK(last->reason == "/missing: no such file");
  CHECK(last->restarts == 1);
}

TEST_CASE("a replica whose model cannot be served is not tried again") {
  live_node node;
  auto broken = spec();
  broken.model_source = "/unfit";
  node.assign({broken});
  auto last = node.seen.news.wait(
      [](const replica_report& x) { return x.budget_spent; });
  REQUIRE(last.has_value());
  CHECK(last->reason == "/unfit: no model that is known");
  CHECK(last->restarts == 0);
}

TEST_CASE("a replica can be stopped while it loads") {
  live_node node;
  auto slow = spec();
  slow.model_source = "/slow";
  node.assign({slow});
  auto loading = node.wait(replica_phase::loading);
  node.assign({});
  node.wait(replica_phase::stopped);
  CHECK(dies(loading.pid));
}

TEST_CASE("a replica whose engine hangs is killed and started again") {
  live_node node;
  auto watched = spec();
  watched.health_check_period_ms = 500;
  node.assign({watched});
  auto first = node.wait(replica_phase::ready);
  batches tokens;
  auto replica = node.attach(first.where, tokens);
  caf::anon_send(replica, generate_atom::value, std::uint64_t{1},
                 request(1, {test::fake_engine::hang_prompt}, 5));
  auto dead = node.wait(replica_phase::failed);
  CHECK(dead.reason == "it made no step while requests were running");
  CHECK(node.seen.news.wait([&](const replica_report& x) {
    return x.phase == replica_phase::ready && x.pid != first.pid;
  }));
}

TEST_CASE("a stopped replica process is found out and replaced") {
  live_node node;
  auto watched = spec();
  watched.health_check_period_ms = 500;
  watched.health_check_timeout_ms = 1500;
  node.assign({watched});
  auto first = node.wait(replica_phase::ready);
  ::kill(static_cast<pid_t>(first.pid), SIGSTOP);
  CHECK(node.wait(replica_phase::failed).reason == "it stopped reporting");
  CHECK(dies(first.pid));
}

TEST_CASE("a replica that dies in a step leaves word of what it did") {
  live_node node;
  node.assign({spec()});
  auto first = node.wait(replica_phase::ready);
  CHECK(first.node == "w1");
  batches tokens;
  auto replica = node.attach(first.where, tokens);
  caf::anon_send(replica, generate_atom::value, std::uint64_t{1},
                 request(9, {test::fake_engine::abort_prompt}, 5));
  auto notice = node.seen.deaths.wait([](const auto&) { return true; });
  REQUIRE(notice.has_value());
  CHECK(notice->own_fault);
  CHECK(notice->incarnation == first.incarnation);
  CHECK(notice->replica == "m#1");
  CHECK(notice->node == "w1");
  CHECK(notice->reason == "killed by SIGABRT");
  CHECK(notice->running ==
        std::vector<std::pair<std::uint64_t, std::uint64_t>>{{1, 9}});
  auto second = node.seen.news.wait([&](const replica_report& x) {
    return x.phase == replica_phase::ready && x.pid != first.pid;
  });
  REQUIRE(second.has_value());
  ::kill(static_cast<pid_t>(second->pid), SIGKILL);
  auto other = node.seen.deaths.wait([&](const death_notice& x) {
    return x.incarnation == second->incarnation;
  });
  REQUIRE(other.has_value());
  CHECK_FALSE(other->own_fault);
}

TEST_CASE("a replica keeps its process when it is tuned") {
  live_node node;
  auto x = spec();
  x.max_ongoing_requests = 1;
  node.assign({x});
  auto ready = node.wait(replica_phase::ready);
  batches tokens;
  auto replica = node.attach(ready.where, tokens);
  auto ask = [&](std::uint64_t id) {
    caf::anon_send(replica, generate_atom::value, std::uint64_t{1},
                   request(id, {10}, 1'000'000));
  };
  ask(1);
  REQUIRE(tokens.wait([](const auto& b) { return b.choices[0].id == 1; }));
  ask(2); // one too many
  auto refused = tokens.wait([](const token_batch& b) {
    return b.choices[0].id == 2 && b.choices[0].reason != finish::none;
  });
  REQUIRE(refused.has_value());
  x.max_ongoing_requests = 8;
  node.assign({x});
  // It is another actor that tells it, so it may hear of it a little later.
  bool taken = false;
  for (std::uint64_t id = 3; id < 500 && !taken; ++id) {
    ask(id);
    auto answer = choice_of(tokens, id);
    REQUIRE(answer.has_value());
    taken = answer->reason == finish::none;
    if (!taken)
      std::this_thread::sleep_for(10ms);
  }
  CHECK(taken);
  CHECK(alive(ready.pid));
}

TEST_CASE("the node's router gets what the head tells, also if it comes late") {
  live_node node;
  router_record seen;
  auto tell = [&](std::uint64_t version) {
    routing_table table;
    table.version = version;
    caf::anon_send(node.agent, table_atom::value, encode(table));
  };
  tell(1);
  tell(2);
  auto router = node.system.spawn(recording_router, &seen);
  caf::anon_send(node.agent, watch_atom::value, router, std::uint16_t{8001});
  REQUIRE(seen.tables.wait([](auto version) { return version == 2; }));
  tell(3);
  REQUIRE(seen.tables.wait([](auto version) { return version == 3; }));
  CHECK(seen.tables.size() == 2);
  death_notice notice;
  notice.replica = "m#1";
  caf::anon_send(node.agent, death_atom::value, encode(notice));
  REQUIRE(seen.deaths.wait([](const auto& x) { return x.replica == "m#1"; }));
  // The head hears where the router listens.
  CHECK(
      node.seen.joined.wait([](const auto& x) { return x.http_port == 8001; }));
  REQUIRE(node.welcomes.wait([](const auto& x) { return x.node_epoch == 2; }));
  // ... and that it is gone.
  auto before = node.seen.joined.size();
  runtime::stop_actor(node.system, router, 2s);
  CHECK(node.seen.joined.wait([](const auto& x) { return x.http_port == 0; },
                              before));
}

TEST_CASE("the head says whether the node's router is wanted") {
  live_node node;
  node.assign({}, false);
  CHECK(node.router_wanted.wait([](bool x) { return !x; }));
  node.assign({}, true);
  CHECK(node.router_wanted.wait([](bool x) { return x; }));
}

TEST_CASE("nothing broken that is sent to an agent harms it") {
  live_node node;
  for (const codec::bytes& broken :
       {codec::bytes{}, codec::bytes{1}, codec::bytes{1, 0, 255, 255, 255, 255},
        codec::bytes(1000, 7)}) {
    caf::anon_send(node.agent, assign_atom::value, broken);
    caf::anon_send(node.agent, report_atom::value, broken);
    caf::anon_send(node.agent, table_atom::value, broken);
    caf::anon_send(node.agent, death_atom::value, broken);
    caf::scoped_actor self{node.system};
    bool known = true;
    self->request(node.agent, caf::duration{5s}, register_atom::value, broken,
                  replica_actor{})
        .receive([&](bool x) { known = x; }, [](const caf::error&) {});
    CHECK_FALSE(known);
  }
  node.assign({spec()});
  node.wait(replica_phase::ready);
}

namespace {

/// The test's other program, until it is killed.
class child_process {
public:
  explicit child_process(std::vector<std::string> arguments) {
    std::string program = TROUPE_TEST_REPLICA;
    std::vector<char*> argv{program.data()};
    for (auto& argument : arguments)
      argv.push_back(argument.data());
    argv.push_back(nullptr);
    REQUIRE(::posix_spawn(&pid_, program.c_str(), nullptr, nullptr, argv.data(),
                          environ) == 0);
  }

  child_process(const child_process&) = delete;
  child_process& operator=(const child_process&) = delete;

  ~child_process() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  pid_t pid() const {
    return pid_;
  }

private:
  pid_t pid_ = 0;
};

/// A head in an actor system of its own, as in another process.
struct live_head {
  live_head(const runtime::credentials& tls, std::uint64_t epoch,
            std::uint16_t wanted_port)
      : config{{tls}}, system{config},
        controller{system.spawn(recording_controller, &seen, epoch)} {
    // The port of a head that is gone may take a moment to be free.
    for (int i = 0; i < 100 && port == 0; ++i) {
      auto bound = runtime::publish(controller, "127.0.0.1", wanted_port);
      if (bound)
        port = *bound;
      else
        std::this_thread::sleep_for(50ms);
    }
    REQUIRE(port != 0);
  }

  ~live_head() {
    runtime::stop_actor(system, controller, 2s);
  }

  head_record seen;
  runtime::system_config config;
  caf::actor_system system;
  controller_actor controller;
  std::uint16_t port = 0;
};

} // namespace

TEST_CASE("an agent finds its head again and loses no replica meanwhile") {
  spdlog::set_level(spdlog::level::off);
  test::temporary_directory tmp;
  auto ca = runtime::authority::open(tmp.path() / "tls").value();
  auto head_files = ca.issue("head", tmp.path() / "head").value();
  auto node_files = ca.issue("w1", tmp.path() / "w1").value();
  auto head = std::make_unique<live_head>(head_files, 1, 0);
  auto port = head->port;

  runtime::system_config config{{node_files}};
  caf::actor_system system{config};
  record_of<node_welcome> welcomes;
  auto options = agent_options(node_files, tmp.path() / "run");
  options.on_welcome = [&](const node_welcome& x) { welcomes.add(x); };
  auto agent = node_agent::spawn_node_agent(system, std::move(options),
                                            endpoint{"127.0.0.1", port, 0, 0})
                   .value();
  REQUIRE(welcomes.wait([](const auto& x) { return x.head_epoch == 1; }));
  node_assignment all{1, 1, 1, {spec()}, true};
  caf::anon_send(agent, assign_atom::value, encode(all));
  auto ready = head->seen.news.wait(
      [](const auto& x) { return x.phase == replica_phase::ready; });
  REQUIRE(ready.has_value());

  head.reset();
  CHECK(alive(ready->pid));
  head = std::make_unique<live_head>(head_files, 2, port);
  auto again = head->seen.joined.wait([](const auto&) { return true; });
  REQUIRE(again.has_value());
  CHECK(again->head_epoch == 1);
  REQUIRE(again->replicas.size() == 1);
  CHECK(again->replicas[0].spec == spec());
  CHECK(again->replicas[0].report.pid == ready->pid);
  CHECK(head->seen.news.wait([&](const replica_report& x) {
    return x.phase == replica_phase::ready && x.pid == ready->pid;
  }));
  REQUIRE(welcomes.wait([](const auto& x) { return x.head_epoch == 2; }));
  CHECK(alive(ready->pid));

  runtime::stop_actor(system, agent, 5s);
  CHECK(dies(ready->pid));
}

TEST_CASE("a worker that stood still joins the same head again") {
  spdlog::set_level(spdlog::level::off);
  test::temporary_directory tmp;
  auto ca = runtime::authority::open(tmp.path() / "tls").value();
  auto head_files = ca.issue("head", tmp.path() / "head").value();
  live_head head{head_files, 1, 0};
  child_process worker{
      {"worker", tmp.path().string(), std::to_string(head.port)}};
  auto any = [](const auto&) { return true; };
  auto assign = [](const node_agent_actor& to, std::uint64_t node_epoch,
                   std::vector<replica_spec> specs) {
    node_assignment all{1, node_epoch, 1, std::move(specs), true};
    caf::anon_send(to, assign_atom::value, encode(all));
  };
  auto first = head.seen.agents.wait(any);
  REQUIRE(first.has_value());
  assign(*first, 1, {spec()});
  auto ready = head.seen.news.wait(
      [](const auto& x) { return x.phase == replica_phase::ready; });
  REQUIRE(ready.has_value());

  ::kill(worker.pid(), SIGSTOP);
  REQUIRE(head.seen.lost.wait(any));
  ::kill(worker.pid(), SIGCONT);
  auto again = head.seen.joined.wait(any, 1);
  REQUIRE(again.has_value());
  REQUIRE(again->replicas.size() == 1);
  CHECK(again->replicas[0].report.pid == ready->pid);
  CHECK(alive(ready->pid));
  auto second = head.seen.agents.wait(any, 1);
  REQUIRE(second.has_value());
  assign(*second, 2, {});
  CHECK(head.seen.news.wait(
      [](const auto& x) { return x.phase == replica_phase::stopped; }));
  CHECK(dies(ready->pid));
}

TEST_CASE("draining the node answers when no replica is left") {
  live_node node;
  node.assign({spec()});
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
