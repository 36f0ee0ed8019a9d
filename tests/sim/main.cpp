#include "tests/sim/run.hpp"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>
#include <vector>

// troupe_sim SEEDS [--first N] [--seconds S] [--jobs N] [--trace] [--hash]
//   [--until-found] [--older-replicas]

namespace {

using namespace troupe::sim;
using steady = std::chrono::steady_clock;

struct choices {
  std::uint64_t seeds = 0;
  std::uint64_t first = 1;
  std::uint64_t seconds = 0; ///< 0 = no limit
  std::uint64_t jobs = std::max(1u, std::thread::hardware_concurrency());
  bool trace = false;
  /// Every seed is run thrice, once with wall clocks that do not jump, and must
  /// be the same run.
  bool hash = false;
  bool until_found = false;    ///< good is if a seed fails; stops there
  bool older_replicas = false; ///< of the protocol version before
};

std::optional<std::uint64_t> to_number(std::string_view text) {
  std::uint64_t out = 0;
  auto end = text.data() + text.size();
  auto [at, why] = std::from_chars(text.data(), end, out);
  if (why != std::errc{} || at != end)
    return std::nullopt;
  return out;
}

std::optional<choices> read_arguments(int argc, char** argv) {
  choices out;
  bool has_seeds = false;
  for (int i = 1; i < argc; ++i) {
    std::string_view name = argv[i];
    if (name == "--trace") {
      out.trace = true;
      out.jobs = 1;
      continue;
    }
    auto* flag = name == "--hash"             ? &out.hash
                 : name == "--until-found"    ? &out.until_found
                 : name == "--older-replicas" ? &out.older_replicas
                                              : nullptr;
    if (flag != nullptr) {
      *flag = true;
      continue;
    }
    auto* to = name == "--first"     ? &out.first
               : name == "--seconds" ? &out.seconds
               : name == "--jobs"    ? &out.jobs
                                     : nullptr;
    if (to == nullptr && !has_seeds) {
      to = &out.seeds;
      has_seeds = true;
    } else if (to == nullptr || ++i == argc) {
      return std::nullopt;
    }
    auto number = to_number(argv[i]);
    if (!number)
      return std::nullopt;
    *to = *number;
  }
  if (!has_seeds || out.jobs == 0)
    return std::nullopt;
  return out;
}

struct totals {
  std::mutex mutex;
  std::uint64_t seeds = 0;
  std::uint64_t failures = 0;
  std::uint64_t events = 0;
  std::uint64_t deployments = 0;
  instant longest_settling{0};
  double simulated_seconds = 0;
  outcome_counts requests;
  network_counts messages;
};

void add(totals& to, std::uint64_t seed, const run_report& x) {
  std::lock_guard guard{to.mutex};
  ++to.seeds;
  to.events += x.events;
  to.messages.arrived += x.messages.arrived;
  to.messages.lost += x.messages.lost;
  to.messages.overtaken += x.messages.overtaken;
  to.simulated_seconds += static_cast<double>(x.ended.count()) / 1e9;
  if (x.found) {
    ++to.failures;
    std::printf("seed %" PRIu64 ": %s: %s (at %.3f s)\n", seed,
                x.found->invariant.c_str(), x.found->what.c_str(),
                static_cast<double>(x.ended.count()) / 1e9);
    std::fflush(stdout);
    return;
  }
  to.requests.add(x.requests);
  to.deployments += x.deployments;
  to.longest_settling = std::max(to.longest_settling, x.ended - x.healed);
}

void run_seeds(const choices& chosen, totals& to, steady::time_point end,
               std::atomic<std::uint64_t>& next) {
  while (steady::now() < end) {
    auto i = next++;
    if (i >= chosen.seeds)
      return;
    auto seed = chosen.first + i;
    auto report = run_seed(seed, chosen.trace, true, chosen.older_replicas);
    auto differs = [&](bool wall_clocks_jump) {
      return run_seed(seed, false, wall_clocks_jump, chosen.older_replicas)
                 .trace_hash != report.trace_hash;
    };
    if (chosen.hash && !report.found && differs(true))
      report.found = {"trace", "another run of this seed differs"};
    if (chosen.hash && !report.found && differs(false))
      report.found = {"F23", "what a wall clock shows makes a difference"};
    add(to, seed, report);
    if (report.found && chosen.until_found)
      next = chosen.seeds;
  }
}

void print(const totals& x, double seconds) {
  const auto& r = x.requests;
  std::printf("%" PRIu64 " seeds, %" PRIu64 " failed; %.1f seeds/s, "
              "%.0f events/s, %.0f simulated seconds in %.1f s\n",
              x.seeds, x.failures, static_cast<double>(x.seeds) / seconds,
              static_cast<double>(x.events) / seconds, x.simulated_seconds,
              seconds);
  std::printf("%zu requests: %zu whole, %zu cancelled, %zu with their router "
              "lost, %zu guilty, %zu without a replica for 30 s, %zu after "
              "three unexplained losses, %zu late, %zu of deleted models; "
              "%zu tokens\n",
              r.submitted, r.whole, r.cancelled, r.router_died, r.guilty,
              r.no_replica, r.unexplained, r.late, r.model_gone, r.tokens);
  std::printf("%" PRIu64 " messages, %" PRIu64 " lost with their connections, "
              "%" PRIu64 " overtaken by those of newer ones\n",
              x.messages.arrived, x.messages.lost, x.messages.overtaken);
  std::printf("%" PRIu64 " deployments acknowledged; longest time from healing "
              "to rest %.1f s\n",
              x.deployments,
              static_cast<double>(x.longest_settling.count()) / 1e9);
}

} // namespace

int main(int argc, char** argv) {
  auto chosen = read_arguments(argc, argv);
  if (!chosen) {
    std::fprintf(stderr,
                 "usage: %s SEEDS [--first N] [--seconds S] "
                 "[--jobs N] [--trace] [--hash] "
                 "[--until-found] [--older-replicas]\n",
                 argv[0]);
    return 2;
  }
  totals all;
  auto begin = steady::now();
  auto end = chosen->seconds == 0
                 ? steady::time_point::max()
                 : begin + std::chrono::seconds{chosen->seconds};
  std::atomic<std::uint64_t> next{0};
  std::vector<std::thread> threads;
  for (std::uint64_t i = 0; i < chosen->jobs; ++i)
    threads.emplace_back([&] { run_seeds(*chosen, all, end, next); });
  for (auto& one : threads)
    one.join();
  print(all, std::chrono::duration<double>(steady::now() - begin).count());
  if (chosen->until_found)
    return all.failures > 0 ? 0 : 1;
  return all.failures == 0 && all.seeds > 0 ? 0 : 1;
}
