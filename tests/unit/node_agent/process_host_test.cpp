#include "actors/node_agent/process_host.hpp"
#include "tests/actors/temporary_directory.hpp"

#include <catch2/catch.hpp>

#include <condition_variable>
#include <csignal>
#include <fstream>
#include <mutex>
#include <optional>
#include <sstream>

using namespace troupe;
using namespace troupe::node_agent;
using namespace std::chrono_literals;

namespace {

/// A host, and the end of the one process that it is asked for.
class one_process {
public:
  /// Runs a line of shell; it must first read what is on its lifeline.
  explicit one_process(const std::string& line,
                       std::uint64_t memory_bytes = 0) {
    process_host::events events;
    events.spawned = [](std::uint64_t, std::int64_t) {};
    events.ended = [this](std::uint64_t, process_end end) {
      std::lock_guard guard{mutex_};
      end_ = end;
      changed_.notify_all();
    };
    host_ = make_process_host(std::move(events));
    host_->spawn(1, {"/bin/sh", {"-c", line}, {}, memory_bytes});
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
