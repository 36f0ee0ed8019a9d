#include "client/load.hpp"

#include "router/api/json_writer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

namespace troupe::client {

namespace {

constexpr double shares[] = {0.5, 0.9, 0.95, 0.99};

struct row {
  const char* key;
  const char* title;
  std::vector<float> load_result::*values;
};

constexpr row rows[] = {
    {"time_to_first_token_ms", "time to first token",
     &load_result::first_token},
    {"inter_token_ms", "between two tokens", &load_result::gaps},
    {"request_ms", "whole request", &load_result::whole}};

double per_second(std::uint64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

float mean(const std::vector<float>& values) {
  double sum = 0;
  for (auto one : values)
    sum += one;
  return values.empty()
             ? 0
             : static_cast<float>(sum / static_cast<double>(values.size()));
}

float ms(float seconds) {
  return seconds * 1000;
}

} // namespace

float percentile(std::vector<float>& values, double share) {
  if (values.empty())
    return 0;
  std::sort(values.begin(), values.end());
  auto rank = std::ceil(share * static_cast<double>(values.size()));
  auto at = static_cast<std::size_t>(std::max(rank, 1.0)) - 1;
  return values[std::min(at, values.size() - 1)];
}

std::string to_json(const load_plan& plan, load_result& of) {
  api::json_writer out;
  out.begin_object().key("model").text(plan.model);
  if (plan.rate > 0)
    out.key("rate").real(static_cast<float>(plan.rate));
  out.key("concurrency").natural(plan.concurrency);
  out.key("prompt_words").natural(plan.prompt_words);
  out.key("max_tokens").natural(plan.max_tokens);
  out.key("seed").natural(plan.seed);
  out.key("begun").natural(of.begun).key("answered").natural(of.answered);
  out.key("refused").natural(of.refused).key("failed").natural(of.failed);
  out.key("skipped").natural(of.skipped);
  out.key("interrupted").json(of.interrupted ? "true" : "false");
  out.key("failure").text_or_null(of.failure);
  out.key("seconds").real(static_cast<float>(of.seconds));
  out.key("prompt_tokens").natural(of.prompt_tokens);
  out.key("output_tokens").natural(of.output_tokens);
  out.key("requests_per_s")
      .real(static_cast<float>(per_second(of.answered, of.seconds)));
  out.key("output_tokens_per_s")
      .real(static_cast<float>(per_second(of.output_tokens, of.seconds)));
  for (const auto& [key, title, values] : rows) {
    out.key(key).begin_object().key("mean").real(ms(mean(of.*values)));
    for (auto share : shares)
      out.key(fmt::format("p{:.0f}", share * 100))
          .real(ms(percentile(of.*values, share)));
    out.key("max").real(ms(percentile(of.*values, 1)));
    out.end_object();
  }
  out.end_object();
  return out.take("\n");
}

std::string to_table(const load_plan& plan, load_result& of) {
  std::string out;
  auto to = std::back_inserter(out);
  fmt::format_to(to, "{} at {}: {}\n", plan.model, plan.where.authority(),
                 plan.rate > 0
                     ? fmt::format("{} requests/s at random times", plan.rate)
                     : fmt::format("{} at a time", plan.concurrency));
  fmt::format_to(to, "{} answered, {} refused, {} failed", of.answered,
                 of.refused, of.failed);
  if (of.skipped > 0)
    fmt::format_to(to, ", {} not begun: {} were under way", of.skipped,
                   plan.concurrency);
  fmt::format_to(to, ", in {:.2f} s\n", of.seconds);
  if (of.interrupted)
    fmt::format_to(to,
                   "interrupted: {} of {} requests were begun, {} of them "
                   "given up\n",
                   of.begun, plan.requests, of.given_up());
  if (!of.failure.empty())
    fmt::format_to(to, "first failure: {}\n", of.failure);
  fmt::format_to(to,
                 "{:.2f} requests/s, {:.1f} output tokens/s, {:.1f} prompt "
                 "tokens/s\n\n",
                 per_second(of.answered, of.seconds),
                 per_second(of.output_tokens, of.seconds),
                 per_second(of.prompt_tokens, of.seconds));
  fmt::format_to(to, "{:22}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}\n", "ms",
                 "mean", "p50", "p90", "p95", "p99", "max");
  for (const auto& [key, title, values] : rows) {
    fmt::format_to(to, "{:22}{:>10.2f}", title, ms(mean(of.*values)));
    for (auto share : shares)
      fmt::format_to(to, "{:>10.2f}", ms(percentile(of.*values, share)));
    fmt::format_to(to, "{:>10.2f}\n", ms(percentile(of.*values, 1)));
  }
  return out;
}

} // namespace troupe::client
