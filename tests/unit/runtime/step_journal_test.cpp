#include "actors/runtime/step_journal.hpp"
#include "tests/actors/temporary_directory.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace troupe;
using runtime::read_step_journal;
using runtime::step_journal;
using runtime::step_member;

namespace {

using members = std::vector<step_member>;

std::string content_of(const std::filesystem::path& path) {
  std::ifstream file{path, std::ios::binary};
  return {std::istreambuf_iterator<char>{file}, {}};
}

void overwrite(const std::filesystem::path& path, const std::string& content) {
  std::ofstream{path, std::ios::binary} << content;
}

/// Runs `life` in a process of its own and returns the signal that ended it.
template <class Life>
int signal_that_ends(Life life) {
  auto pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    // Not the test's own handling, and no core file.
    for (int number : {SIGSEGV, SIGABRT})
      ::signal(number, SIG_DFL);
    rlimit none{0, 0};
    ::setrlimit(RLIMIT_CORE, &none);
    life();
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

} // namespace

TEST_CASE("the journal tells the choices of the running step only") {
  test::temporary_directory tmp;
  auto path = tmp.path() / "steps";
  auto journal = step_journal::create(path, 4);
  REQUIRE(journal.has_value());
  CHECK(read_step_journal(path).value().empty());
  members step{{1, 10}, {2, 20}, {~0ull, ~0ull}};
  (*journal)->begin(step);
  CHECK(read_step_journal(path).value() == step);
  (*journal)->end();
  CHECK(read_step_journal(path).value().empty());
  (*journal)->begin({});
  CHECK(read_step_journal(path).value().empty());
  // A step that begins takes the place of one that did not end.
  (*journal)->begin(step);
  (*journal)->begin(members{{3, 30}});
  CHECK(read_step_journal(path).value() == members{{3, 30}});
}

TEST_CASE("of a step that is too large the journal tells the first choices") {
  test::temporary_directory tmp;
  auto path = tmp.path() / "steps";
  auto journal = step_journal::create(path, 2);
  REQUIRE(journal.has_value());
  (*journal)->begin(members{{1, 1}, {2, 2}, {3, 3}});
  CHECK(read_step_journal(path).value() == members{{1, 1}, {2, 2}});
}

TEST_CASE("a process that dies in a step leaves it in its journal") {
  test::temporary_directory tmp;
  auto path = tmp.path() / "steps";
  members step{{7, 1}, {7, 2}};
  for (int number : {SIGKILL, SIGSEGV, SIGABRT}) {
    std::filesystem::remove(path);
    auto ended_by = signal_that_ends([&] {
      auto journal = step_journal::create(path, 8);
      (*journal)->begin(members{{1, 1}});
      (*journal)->end();
      (*journal)->begin(step);
      ::raise(number);
    });
    CHECK(ended_by == number);
    CHECK(read_step_journal(path).value() == step);
  }
}

TEST_CASE("a process that dies between two steps leaves none") {
  test::temporary_directory tmp;
  auto path = tmp.path() / "steps";
  auto ended_by = signal_that_ends([&] {
    auto journal = step_journal::create(path, 8);
    (*journal)->begin(members{{1, 1}});
    (*journal)->end();
    ::raise(SIGKILL);
  });
  CHECK(ended_by == SIGKILL);
  CHECK(read_step_journal(path).value().empty());
}

TEST_CASE("a death at any time leaves one whole step or none") {
  test::temporary_directory tmp;
  auto path = tmp.path() / "steps";
  constexpr std::size_t members_max = 64;
  for (int round = 0; round < 50; ++round) {
    std::filesystem::remove(path);
    int started[2];
    REQUIRE(::pipe(started) == 0);
    auto pid = ::fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
      auto journal = step_journal::create(path, members_max);
      [[maybe_unused]] auto n = ::write(started[1], "!", 1);
      for (std::uint64_t i = 1;; ++i) {
        // All members of a step are equal, and there are as many as they say.
        (*journal)->begin(
            members(i % members_max + 1, {i, i % members_max + 1}));
        (*journal)->end();
      }
    }
    char byte = 0;
    REQUIRE(::read(started[0], &byte, 1) == 1);
    ::usleep(static_cast<useconds_t>(round * 20));
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    ::close(started[0]);
    ::close(started[1]);
    auto last = read_step_journal(path).value();
    if (!last.empty()) {
      CHECK(last == members(last.size(), last[0]));
      CHECK(last[0].second == last.size());
    }
  }
}

TEST_CASE("a journal is made once, in a place that is there") {
  test::temporary_directory tmp;
  auto path = tmp.path() / "steps";
  CHECK(step_journal::create(path, 1).has_value());
  CHECK_FALSE(step_journal::create(path, 1).has_value());
  CHECK_FALSE(step_journal::create(tmp.path() / "no" / "steps", 1).has_value());
  CHECK_FALSE(step_journal::create(tmp.path() / "none", 0).has_value());
  CHECK_FALSE(step_journal::create(tmp.path() / "all", ~0ull).has_value());
}

TEST_CASE("what is no journal is refused") {
  test::temporary_directory tmp;
  auto path = tmp.path() / "steps";
  SECTION("no file") {
    CHECK(read_step_journal(path).error().code == errc::not_found);
  }
  SECTION("a directory") {
    CHECK_FALSE(read_step_journal(tmp.path()).has_value());
  }
  SECTION("an empty file") {
    overwrite(path, "");
    CHECK(read_step_journal(path).error().code == errc::corrupt);
  }
  SECTION("a link") {
    step_journal::create(tmp.path() / "real", 1).value();
    std::filesystem::create_symlink(tmp.path() / "real", path);
    CHECK_FALSE(read_step_journal(path).has_value());
  }
}

TEST_CASE("no damage to a journal harms its reader") {
  test::temporary_directory tmp;
  auto path = tmp.path() / "steps";
  constexpr std::size_t members_max = 3;
  step_journal::create(path, members_max)
      .value()
      ->begin(members{{1, 1}, {2, 2}});
  const auto whole = content_of(path);
  SECTION("cut short or grown") {
    for (std::size_t size = 0; size < whole.size(); ++size) {
      overwrite(path, whole.substr(0, size));
      CHECK_FALSE(read_step_journal(path).has_value());
    }
    overwrite(path, whole + "x");
    CHECK_FALSE(read_step_journal(path).has_value());
  }
  SECTION("any bytes") {
    std::mt19937 random{3};
    for (int round = 0; round < 2000; ++round) {
      auto damaged = whole;
      for (int i = 0; i <= round % 4; ++i)
        damaged[random() % damaged.size()] = static_cast<char>(random());
      overwrite(path, damaged);
      auto read = read_step_journal(path);
      CHECK((!read || read->size() <= members_max));
    }
  }
}
