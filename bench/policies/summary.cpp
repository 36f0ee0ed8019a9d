#include "bench/policies/summary.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <numeric>
#include <vector>

namespace troupe::bench {

namespace {

constexpr double never_s = 1e6;

/// The nearest rank.
double quantile(std::vector<double>& of, double share) {
  if (of.empty())
    return 0;
  auto rank = std::ceil(share * static_cast<double>(of.size()));
  auto place = of.begin() + std::max<std::ptrdiff_t>(
                                static_cast<std::ptrdiff_t>(rank) - 1, 0);
  std::nth_element(of.begin(), place, of.end());
  return *place;
}

double next_token_s(const request_outcome& of) {
  return of.tokens < 2 ? 0 : (of.end_s - of.first_token_s) / (of.tokens - 1);
}

bool keeps_objective(const request_outcome& of, const arrival& asked,
                     const scenario& how) {
  auto alone =
      how.replica.slowness *
      how.replica.times.prompt(asked.prompt_tokens, 0, how.replica.rows_max);
  return !of.failed && of.first_token_s >= 0 &&
         of.first_token_s <=
             how.first_token_max_s + how.first_token_times * alone &&
         next_token_s(of) <= how.next_token_max_s;
}

void read_requests(const load& what, const scenario& how,
                   const run_outcome& from, summary& out) {
  std::vector<double> first, next;
  std::uint64_t good = 0, cached = 0, prompts = 0;
  for (std::size_t i = 0; i < from.requests.size(); ++i) {
    const auto& one = from.requests[i];
    ++out.requests;
    out.failed += one.failed ? 1 : 0;
    out.served += !one.failed && one.endings == 1 &&
                          one.tokens == what.arrivals[i].output_tokens
                      ? 1
                      : 0;
    first.push_back(one.failed || one.first_token_s < 0 ? never_s
                                                        : one.first_token_s);
    next.push_back(next_token_s(one));
    good += keeps_objective(one, what.arrivals[i], how) ? 1 : 0;
    cached += one.cached_tokens;
    prompts += what.arrivals[i].prompt_tokens;
  }
  out.first_token_p50_s = quantile(first, .5);
  out.first_token_p95_s = quantile(first, .95);
  out.first_token_p99_s = quantile(first, .99);
  out.next_token_p95_s = quantile(next, .95);
  auto all = static_cast<double>(std::max<std::uint64_t>(out.requests, 1));
  out.goodput = static_cast<double>(good) / all;
  auto ideal = ideal_hits(what, how.replica.block_size);
  auto tokens = static_cast<double>(std::max<std::uint64_t>(prompts, 1));
  out.hits = static_cast<double>(cached) / tokens;
  out.hits_ideal = static_cast<double>(std::accumulate(
                       ideal.begin(), ideal.end(), std::uint64_t{0})) /
                   tokens;
}

/// Changes of the target and those that take one back at once.
void read_targets(const run_outcome& from, summary& out) {
  constexpr double back_within_s = 120;
  double changed_s = -1e9;
  int direction = 0;
  for (std::size_t i = 1; i < from.sizes.size(); ++i) {
    auto before = from.sizes[i - 1].target;
    auto now = from.sizes[i].target;
    out.replicas_most = std::max(out.replicas_most, from.sizes[i].ready);
    if (now == before)
      continue;
    ++out.changes;
    auto turned = now > before ? 1 : -1;
    if (turned == -direction && from.sizes[i].at_s - changed_s < back_within_s)
      ++out.flaps;
    direction = turned;
    changed_s = from.sizes[i].at_s;
  }
}

/// Time-weighted, of those that are ready.
double mean_ready(const std::vector<fleet_size>& sizes, double from_s,
                  double to_s) {
  double area = 0;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    auto begin = std::max(sizes[i].at_s, from_s);
    auto end = std::min(i + 1 < sizes.size() ? sizes[i + 1].at_s : to_s, to_s);
    if (end > begin)
      area += sizes[i].ready * (end - begin);
  }
  return to_s > from_s ? area / (to_s - from_s) : 0;
}

void read_step(const load& what, const scenario& how, const run_outcome& from,
               double step_s, summary& out) {
  auto needed = std::floor(
      mean_ready(from.sizes, (step_s + what.seconds) / 2, what.seconds));
  std::uint32_t before = 0;
  for (const auto& one : from.sizes) {
    if (one.at_s < step_s) {
      before = one.target;
      continue;
    }
    if (out.first_order_s < 0 && one.target > before)
      out.first_order_s = one.at_s - step_s;
    if (out.followed_s < 0 && one.ready >= needed)
      out.followed_s = one.at_s - step_s;
  }
  // Until a quarter of a minute passes in which nine of ten keep it.
  constexpr double span_s = 15;
  for (double at = step_s; at + span_s <= what.seconds; at += 1) {
    double all = 0, good = 0;
    for (std::size_t i = 0; i < from.requests.size(); ++i) {
      const auto& one = from.requests[i];
      if (one.at_s < at || one.at_s >= at + span_s)
        continue;
      ++all;
      good += keeps_objective(one, what.arrivals[i], how) ? 1 : 0;
    }
    if (good >= .9 * all) {
      out.recovered_s = at - step_s;
      break;
    }
  }
}

} // namespace

summary summarise(const load& what, const scenario& how,
                  const run_outcome& from, double step_s) {
  summary out;
  read_requests(what, how, from, out);
  read_targets(from, out);
  out.replica_hours = from.replica_hours;
  out.replicas_mean = from.replica_hours * 3600 / std::max(what.seconds, 1.);
  out.preemptions = from.preemptions;
  if (step_s >= 0)
    read_step(what, how, from, step_s, out);
  return out;
}

std::string to_json(const summary& of) {
  return fmt::format(
      "\"requests\": {}, \"served\": {}, \"failed\": {}, "
      "\"first_token_p50_s\": {:.4f}, \"first_token_p95_s\": {:.4f}, "
      "\"first_token_p99_s\": {:.4f}, \"next_token_p95_s\": {:.4f}, "
      "\"goodput\": {:.5f}, \"replica_hours\": {:.5f}, "
      "\"replicas_mean\": {:.3f}, \"replicas_most\": {}, \"hits\": {:.5f}, "
      "\"hits_ideal\": {:.5f}, \"flaps\": {}, \"changes\": {}, "
      "\"first_order_s\": {:.2f}, \"followed_s\": {:.2f}, "
      "\"recovered_s\": {:.2f}, \"preemptions\": {}",
      of.requests, of.served, of.failed, of.first_token_p50_s,
      of.first_token_p95_s, of.first_token_p99_s, of.next_token_p95_s,
      of.goodput, of.replica_hours, of.replicas_mean, of.replicas_most, of.hits,
      of.hits_ideal, of.flaps, of.changes, of.first_order_s, of.followed_s,
      of.recovered_s, of.preemptions);
}

} // namespace troupe::bench
