#include "actors/node_agent/process_host.hpp"
#include "tests/actors/temporary_directory.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <fstream>
#include <mutex>
#include <optional>
#include <sstream>
#include <thread>

using namespace troupe;
using namespace troupe::node_agent;
using namespace std::chrono_literals;

namespace {

/// A host, and the end of the one replica that it is asked for.
class one_process {
public:
  /// Runs a line of shell, in so many processes.
  explicit one_process(const std::string& line, std::uint64_t memory_bytes = 0,
                       std::size_t processes = 1) {
    process_host::events events;
    events.spawned = [](std::uint64_t, std::int64_t) {};
    events.ended = [this](std::uint64_t, process_end end) {
      std::lock_guard guard{mutex_};
      CHECK_FALSE(end_.has_value());
      end_ = end;
      changed_.notify_all();
    };
    host_ = make_process_host(std::move(events));
    host_->spawn(1, {"/bin/sh",
                     {"-c", line},
                     std::vector<codec::bytes>(processes),
                     memory_bytes});
  }

  process_end wait() {
    std::unique_lock guard{mutex_};
    REQUIRE(changed_.wait_for(guard, 10s, [&] { return end_.has_value(); }));
    return *end_;
  }

  process_host& host() {
    return *host_;
  }

private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<process_end> end_;
  std::unique_ptr<process_host> host_; // last: it calls until it is gone
};

std::string content_of(const std::filesystem::path& path) {
  std::ostringstream out;
  out << std::ifstream{path}.rdbuf();
  return out.str();
}

} // namespace

TEST_CASE("how a process ended is told") {
  CHECK(one_process{"exit 3"}.wait().exit_code == 3);
  CHECK(one_process{"kill -SEGV $$"}.wait().signal == SIGSEGV);
}

TEST_CASE("a process has its memory limit and leaves no core dump") {
  test::temporary_directory tmp;
  auto file = (tmp.path() / "limits").string();
  // The limits are set right after the start, core dumps last.
  auto line = "for i in $(seq 200); do"
              "  grep -q 'core file size *1 ' /proc/$$/limits && break;"
              "  sleep 0.02;"
              "done; cat /proc/$$/limits > " +
              file;
  std::string data;
  std::string core;
  SECTION("with a limit") {
    one_process{line, 64u << 20}.wait();
    data = "67108864";
  }
  SECTION("without one") {
    one_process{line}.wait();
    data = "unlimited";
  }
  std::istringstream lines{content_of(file)};
  std::string found_data;
  for (std::string text; std::getline(lines, text);) {
    std::istringstream words{
        text.substr(std::min<std::size_t>(26, text.size()))};
    if (text.starts_with("Max data size"))
      words >> found_data;
    if (text.starts_with("Max core file size"))
      words >> core;
  }
  CHECK(found_data == data);
  CHECK(core == "1"); // less than the smallest dump, and not ignored
}

TEST_CASE("a replica's processes end together, as the first to end does") {
  test::temporary_directory tmp;
  auto count = [&] {
    std::size_t out = 0;
    for ([[maybe_unused]] const auto& file :
         std::filesystem::directory_iterator{tmp.path()})
      ++out;
    return out;
  };
  // Each says that it is there; one of them, that has the directory to itself,
  // ends when all are.
  const auto here = tmp.path().string();
  auto line = "touch " + here + "/$$; mkdir " + here +
              "/first 2>/dev/null || exec sleep 1000; "
              "until [ $(ls " +
              here + " | wc -l) = 5 ]; do sleep 0.02; done; ";
  SECTION("by itself") {
    CHECK(one_process{line + "exit 7", 0, 4}.wait().exit_code == 7);
  }
  SECTION("by a signal") {
    CHECK(one_process{line + "kill -SEGV $$", 0, 4}.wait().signal == SIGSEGV);
  }
  REQUIRE(count() == 5);
  for (const auto& file : std::filesystem::directory_iterator{tmp.path()})
    if (auto pid = std::atoi(file.path().filename().c_str()); pid != 0)
      CHECK(::kill(pid, 0) != 0); // nobody is left
}

TEST_CASE("a signal is for a replica's first process") {
  test::temporary_directory tmp;
  const auto here = tmp.path().string();
  one_process replica{"echo $$ >> " + here + "/pids; exec sleep 1000", 0, 3};
  auto lines = [&] {
    auto text = content_of(tmp.path() / "pids");
    return std::count(text.begin(), text.end(), '\n');
  };
  while (lines() < 3)
    std::this_thread::sleep_for(10ms);
  replica.host().signal(1, SIGTERM);
  CHECK(replica.wait().signal == SIGTERM);
}

TEST_CASE("a process that ends well when the first one tells it to is not how "
          "the replica ended") {
  test::temporary_directory tmp;
  const auto here = tmp.path().string();
  // The first one writes its id before the others can; it outlives them.
  auto line = "if mkdir " + here + "/first 2>/dev/null; then echo $$ > " +
              here + "/pid; sleep 0.5; exit 5; fi; exit 0";
  // Which process is the first to run is not known: only if it is the host's
  // first is it the one that counts.
  for (int again = 0; again < 20; ++again) {
    std::filesystem::remove_all(tmp.path() / "first");
    auto end = one_process{line, 0, 3}.wait();
    if (end.exit_code == 5)
      return;
  }
  FAIL("the first process's end never counted");
}
