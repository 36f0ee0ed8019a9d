#include "node/provider/process_mark.hpp"
#include "node/provider/subprocess.hpp"

#include <catch2/catch.hpp>

#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <sstream>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

using namespace troupe;
using namespace troupe::node;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

/// Workers that are shell scripts.
struct place {
  fs::path path;
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::string, std::string> gone; ///< node, why
  std::unique_ptr<node_provider> provider;
  std::chrono::milliseconds end_max{20'000};

  place() {
    std::string name = (fs::temp_directory_path() / "troupe-nodes-XXXXXX");
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }

  ~place() {
    if (provider)
      provider->end_all(0ms);
    provider.reset();
    fs::remove_all(path);
  }

  fs::path script(const std::string& name, const std::string& text) const {
    auto file = path / name;
    std::ofstream{file} << "#!/bin/sh\n" << text << "\n";
    ::chmod(file.c_str(), 0700);
    return file;
  }

  void open(std::map<std::string, worker_command> types) {
    subprocess_options options;
    options.directory = path / "nodes";
    options.types = std::move(types);
    options.inherited = {"PATH=/usr/bin:/bin", "COLOUR=blue"};
    options.environment = [] {
      using variables = std::vector<std::pair<std::string, std::string>>;
      return result<variables>{variables{{"TROUPE_TOKEN", "secret"}}};
    };
    options.end_max = end_max;
    provider = make_subprocess_provider(std::move(options));
  }

  void listen() {
    provider->listen([this](const std::string& node, const std::string& why) {
      std::lock_guard guard{mutex};
      REQUIRE(gone.emplace(node, why).second);
      changed.notify_all();
    });
  }

  /// Waits for the end of a node; why.
  std::string end_of(const std::string& node) {
    std::unique_lock lock{mutex};
    REQUIRE(changed.wait_for(lock, 30s, [&] { return gone.contains(node); }));
    return gone.at(node);
  }

  /// Waits for a line in a node's log.
  std::string line_of(const std::string& node) const {
    for (int i = 0; i < 3'000; ++i) {
      std::ifstream log{path / "nodes" / node / "log"};
      std::string out;
      if (std::getline(log, out))
        return out;
      std::this_thread::sleep_for(10ms);
    }
    FAIL("no line");
    return {};
  }

  process_mark mark(const std::string& node) const {
    auto out = read_mark(path / "nodes" / node / "process");
    REQUIRE(out);
    return *out;
  }
};

} // namespace

TEST_CASE("a node is a process with its token, its name and its own state") {
  place here;
  auto program = here.script("worker", "echo \"$TROUPE_TOKEN $COLOUR $*\"\n"
                                       "exec sleep 1000");
  here.open({{"small", {program, {"start", "--num-cpus", "2"}}}});
  CHECK(here.provider->living().empty());
  here.listen();
  here.provider->ask("n1", "small");
  CHECK(here.line_of("n1") == "secret blue start --num-cpus 2 --node-name n1 "
                              "--state-dir " +
                                  (here.path / "nodes/n1/state").string());
  auto mark = here.mark("n1");
  CHECK(lives(mark));
  CHECK(::getsid(mark.pid) == mark.pid); // nobody's Ctrl-C

  SECTION("it ends as it is told to, and nothing is left") {
    here.provider->end("n1");
    CHECK(here.end_of("n1").empty());
    CHECK_FALSE(lives(mark));
    CHECK_FALSE(fs::exists(here.path / "nodes/n1"));
  }
  SECTION("it lives on without its provider, and the next one finds it") {
    here.provider.reset();
    CHECK(lives(mark));
    here.open({{"small", {program, {}}}});
    CHECK(here.provider->living() == std::vector<living_node>{{"n1", false}});
    here.listen();
    here.provider->end("n1");
    CHECK(here.end_of("n1").empty());
    CHECK_FALSE(lives(mark));
  }
  SECTION("it was told to end, and so ends when its provider does not see it") {
    here.provider.reset();
    std::ofstream{here.path / "nodes/n1/ending"};
    here.open({});
    CHECK(here.provider->living() == std::vector<living_node>{{"n1", true}});
    here.listen();
    CHECK(here.end_of("n1").empty());
    CHECK_FALSE(lives(mark));
  }
  SECTION("it ends by itself: that is told") {
    ::kill(mark.pid, SIGKILL);
    CHECK(here.end_of("n1").starts_with("killed by signal 9"));
  }
  SECTION("all are ended with the head") {
    here.provider->end_all(20s);
    CHECK_FALSE(lives(mark));
    here.provider->ask("n2", "small");
    CHECK(here.end_of("n2") == "the head ends");
  }
}

TEST_CASE("a node that cannot be brought says why") {
  place here;
  auto program = here.script("worker", "echo 'no such model' >&2\nexit 3");
  here.open({{"fails", {program, {}}}, {"none", {here.path / "missing", {}}}});
  here.listen();
  here.provider->ask("a", "fails");
  here.provider->ask("b", "none");
  here.provider->ask("c", "unknown");
  CHECK(here.end_of("a") == "ended with status 3: no such model");
  CHECK(here.end_of("b") ==
        (here.path / "missing").string() + " cannot be run");
  CHECK(here.end_of("c") == "there is no node type unknown");
  CHECK(fs::is_empty(here.path / "nodes"));
}

TEST_CASE("who does not end in order is killed") {
  place here;
  here.end_max = 100ms;
  auto program = here.script("worker", "trap '' TERM\necho up\n"
                                       "while true; do sleep 0.05; done");
  here.open({{"stubborn", {program, {}}}});
  here.listen();
  here.provider->ask("a", "stubborn");
  here.line_of("a");
  auto mark = here.mark("a");
  here.provider->end("a");
  CHECK(here.end_of("a").empty());
  CHECK_FALSE(lives(mark));
}

TEST_CASE("a process that has a node's id by chance is left alone") {
  place here;
  auto mine = mark_of(::getpid());
  REQUIRE(mine);
  CHECK(lives(*mine));
  for (int which = 0; which < 3; ++which) {
    auto other = *mine;
    if (which == 0)
      ++other.started;
    else if (which == 1)
      other.boot += "x";
    else
      other.pid = 0;
    CHECK_FALSE(lives(other));
    fs::create_directories(here.path / "nodes/a");
    REQUIRE(write_mark(here.path / "nodes/a/process", other).has_value());
    here.open({});
    CHECK(here.provider->living().empty());
    CHECK_FALSE(fs::exists(here.path / "nodes/a"));
    here.provider.reset();
  }
  fs::create_directories(here.path / "nodes/b");
  std::ofstream{here.path / "nodes/b/process"} << "nonsense";
  here.open({});
  CHECK(here.provider->living().empty());
}
