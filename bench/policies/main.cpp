// The policies that choose replicas and set their number, in a simulated fleet
// under one load; prints one JSON object. The matrix: bench/policies.py.
//
//   bench_policies --times STEP-TIMES.json --traces DIR --load azure ...
//
// Also `--ideal`: what caches would hit of the load, without a fleet.

#include "bench/policies/summary.hpp"

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <fmt/format.h>
#include <map>
#include <numeric>
#include <string>

using namespace troupe;
using namespace troupe::bench;

namespace {

/// The made loads' shape: a low and a high rate.
struct shape {
  double seconds = 600;
  double low = 1;
  double high = 6;
};

struct arguments {
  std::filesystem::path times;
  std::filesystem::path traces;
  std::string load = "azure";
  std::string lengths = "azure"; ///< of made loads
  trace_scale scale;
  shape made;
  std::string choice = "power_of_two";
  std::string scaler = "none";
  config::autoscaling_config scaling;
  std::string minimums; ///< "FROM-TO:REPLICAS,..." in minutes
  oracle_options oracle;
  bool ideal = false;
  bool timeline = false;
  scenario how;
};

constexpr double step_share = .25; // of the time that comes before the step

load made_load(const arguments& from, const load& like) {
  const auto& [seconds, low, high] = from.made;
  std::vector<rate_step> steps{{0, low}};
  bool linear = false;
  if (from.load == "step") {
    steps.push_back({step_share * seconds, high});
  } else if (from.load == "burst") {
    // Twenty seconds of every three minutes.
    for (double at = 60; at < seconds; at += 180) {
      steps.push_back({at, high});
      steps.push_back({at + 20, low});
    }
  } else if (from.load == "ramp") {
    linear = true;
    steps.push_back({.1 * seconds, low});
    steps.push_back({.6 * seconds, high});
    steps.push_back({.7 * seconds, high});
    steps.push_back({seconds, low});
  } else { // diurnal: two days
    linear = true;
    for (double at = 0; at <= seconds; at += seconds / 96)
      steps.push_back(
          {at,
           low + (high - low) * (1 - std::cos(4 * M_PI * at / seconds)) / 2});
  }
  return poisson_load(steps, linear, seconds, like, from.how.seed);
}

result<load> load_of(const arguments& from) {
  auto is_trace = from.load == "mooncake" || from.load == "azure";
  auto scale = from.scale;
  if (!is_trace)
    scale.seconds_max = 1e9;
  auto name = is_trace ? from.load : from.lengths;
  auto trace =
      name == "mooncake"
          ? read_mooncake(from.traces / "mooncake_conversation.jsonl", scale)
          : read_azure(from.traces / "azure_conv_2023.csv", scale);
  if (!trace || is_trace)
    return trace;
  return made_load(from, *trace);
}

bool read_minimums(const std::string& text, config::autoscaling_config& out) {
  for (std::size_t at = 0; at < text.size();) {
    auto end = std::min(text.find(',', at), text.size());
    config::scheduled_minimum one;
    if (std::sscanf(text.substr(at, end - at).c_str(), "%u-%u:%u",
                    &one.from_minute, &one.to_minute, &one.min_replicas) != 3)
      return false;
    out.schedule.push_back(one);
    at = end + 1;
  }
  return true;
}

bool complete(arguments& of, const load& what) {
  using protocol::choice_policy;
  const std::map<std::string, choice_policy> policies{
      {"power_of_two", choice_policy::power_of_two},
      {"round_robin", choice_policy::round_robin},
      {"prefix", choice_policy::prefix},
      {"kv_aware", choice_policy::kv_aware}};
  using config::scaling_policy;
  const std::map<std::string, scaling_policy> scalers{
      {"ongoing_requests", scaling_policy::ongoing_requests},
      {"tokens", scaling_policy::tokens},
      {"schedule", scaling_policy::schedule},
      {"latency", scaling_policy::latency}};
  auto policy = policies.find(of.choice);
  of.how.random_choice = of.choice == "random";
  if (policy != policies.end())
    of.how.rule.policy = policy->second;
  else if (!of.how.random_choice)
    return false;
  of.scaling.max_replicas = of.how.replicas_max;
  if (of.scaler == "oracle") {
    of.how.planned = plan_fleet(what, of.how.replica, of.oracle, of.how.birth_s,
                                of.how.replicas_max);
    of.how.replicas = of.how.planned.front().replicas;
  } else if (auto scaler = scalers.find(of.scaler); scaler != scalers.end()) {
    of.scaling.policy = scaler->second;
    of.how.scaling = of.scaling;
  } else if (of.scaler != "none") {
    return false;
  }
  return true;
}

void print_timeline(const load& what, const run_outcome& from) {
  std::printf(", \"sizes\": [");
  const char* comma = "";
  for (const auto& one : from.sizes) {
    std::printf("%s[%.1f, %u, %u]", comma, one.at_s, one.target, one.ready);
    comma = ", ";
  }
  std::printf("], \"arrivals_per_10_s\": [");
  std::vector<int> counts(static_cast<std::size_t>(what.seconds / 10) + 1);
  for (const auto& one : what.arrivals)
    ++counts[static_cast<std::size_t>(one.at_s / 10)];
  comma = "";
  for (auto one : counts) {
    std::printf("%s%d", comma, one);
    comma = ", ";
  }
  std::printf("]");
}

void print_ideal(const arguments& from, const load& what) {
  auto share = [&](const std::vector<std::uint32_t>& hits) {
    double prompts = 0;
    for (const auto& one : what.arrivals)
      prompts += one.prompt_tokens;
    return static_cast<double>(
               std::accumulate(hits.begin(), hits.end(), std::uint64_t{0})) /
           prompts;
  };
  double prompts = 0, outputs = 0, most = 0;
  for (const auto& one : what.arrivals) {
    prompts += one.prompt_tokens;
    outputs += one.output_tokens;
    most = std::max<double>(most, one.prompt_tokens);
  }
  auto work = work_of(what, from.how.replica);
  auto count = static_cast<double>(what.arrivals.size());
  auto size = from.how.replica.block_size;
  std::printf(
      "{\"requests\": %zu, \"seconds\": %.1f, \"prompt_mean\": %.1f, "
      "\"prompt_max\": %.0f, \"output_mean\": %.1f, "
      "\"repeated_blocks\": %.5f, \"ideal\": %.5f, \"pooled\": %.5f, "
      "\"work_replicas\": %.3f}\n",
      what.arrivals.size(), what.seconds, prompts / count, most,
      outputs / count, repeated_blocks(what), share(ideal_hits(what, size)),
      share(pooled_hits(what, size,
                        from.how.replica.cache_tokens * from.how.replicas)),
      std::accumulate(work.begin(), work.end(), 0.) / what.seconds);
}

void add_options(CLI::App& app, arguments& to) {
  app.add_option("--times", to.times)->required();
  app.add_option("--traces", to.traces)->required();
  app.add_option("--load", to.load)
      ->check(CLI::IsMember(
          {"mooncake", "azure", "step", "burst", "ramp", "diurnal"}));
  app.add_option("--lengths", to.lengths)
      ->check(CLI::IsMember({"mooncake", "azure"}));
  app.add_option("--divisor", to.scale.divisor, "of all lengths");
  app.add_option("--tokens-max", to.scale.tokens_max, "of a prompt");
  app.add_option("--trace-seconds", to.scale.seconds_max);
  app.add_flag("--stamped{false}", to.scale.spread,
               "requests of one time stamp come at once");
  app.add_option("--seconds", to.made.seconds, "of a made load");
  app.add_option("--low", to.made.low, "requests per second");
  app.add_option("--high", to.made.high);
  app.add_option("--choice", to.choice);
  app.add_option("--routers", to.how.routers);
  app.add_option("--expected-output", to.how.expected_output);
  app.add_option("--choices-max", to.how.choices_max);
  app.add_option("--replicas", to.how.replicas);
  app.add_option("--replicas-max", to.how.replicas_max);
  app.add_option("--birth", to.how.birth_s, "seconds");
  app.add_option("--slowness", to.how.replica.slowness);
  app.add_option("--rows", to.how.replica.rows_max);
  app.add_option("--cache-tokens", to.how.replica.cache_tokens);
  app.add_option("--answer-max", to.how.replica.answer_max);
  app.add_option("--first-token-max", to.how.first_token_max_s, "seconds");
  app.add_option("--first-token-times", to.how.first_token_times);
  app.add_option("--next-token-max", to.how.next_token_max_s, "seconds");
  app.add_option("--report-min", to.how.report_min_s, "seconds");
  app.add_option("--report-max", to.how.report_max_s, "seconds");
  app.add_option("--scaler", to.scaler,
                 "none, ongoing_requests, tokens, schedule, latency, oracle");
  app.add_option("--target", to.scaling.target_ongoing_requests);
  app.add_option("--queue-s", to.scaling.target_queue_s);
  app.add_option("--goal-first", to.scaling.first_token_s, "p95, seconds");
  app.add_option("--goal-next", to.scaling.next_token_s, "p95, seconds");
  app.add_option("--up-delay", to.scaling.upscale_delay_s);
  app.add_option("--down-delay", to.scaling.downscale_delay_s);
  app.add_option("--look-back", to.scaling.look_back_period_s);
  app.add_option("--metrics-interval", to.scaling.metrics_interval_s);
  app.add_option("--minimums", to.minimums);
  app.add_option("--oracle-window", to.oracle.window_s, "seconds");
  app.add_option("--oracle-utilization", to.oracle.utilization);
  app.add_option("--seed", to.how.seed);
  app.add_flag("--ideal", to.ideal);
  app.add_flag("--timeline", to.timeline);
}

int failed(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  return 1;
}

} // namespace

int main(int argc, char** argv) {
  arguments given;
  CLI::App app{"Simulates a fleet under the policies"};
  add_options(app, given);
  CLI11_PARSE(app, argc, argv);
  auto times = read_step_time(given.times);
  if (!times)
    return failed(times.error().message);
  given.how.replica.times = *times;
  auto what = load_of(given);
  if (!what)
    return failed(what.error().message);
  if (given.ideal) {
    print_ideal(given, *what);
    return 0;
  }
  if (!read_minimums(given.minimums, given.scaling) || !complete(given, *what))
    return failed("unknown policy or schedule");
  auto outcome = simulate(*what, given.how);
  auto figures =
      summarise(*what, given.how, outcome,
                given.load == "step" ? step_share * given.made.seconds : -1);
  std::printf("{%s", to_json(figures).c_str());
  if (given.timeline)
    print_timeline(*what, outcome);
  std::printf("}\n");
}
