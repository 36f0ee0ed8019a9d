#include "autoscaler/policy/latency.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace troupe::autoscaler {

namespace {

constexpr double step_max = 2; // times as many
constexpr double low = 0.5;    // of the set-point
constexpr double spare = 0.8;  // of what the others run well

/// The time that is farthest above its set-point, or least below it.
struct worst {
  double ratio = 0;
  std::string text;
  std::string goal;
};

std::optional<worst> worst_of(const latency_seen& seen,
                              const latency_goal& goal) {
  std::optional<worst> out;
  auto consider = [&](const char* what, std::optional<double> time,
                      std::optional<double> at_most) {
    if (!time || !at_most)
      return;
    worst one{*time / *at_most, fmt::format("{} of {:.3g} s", what, *time),
              fmt::format("{:g} s at most", *at_most)};
    if (!out || one.ratio > out->ratio)
      out = std::move(one);
  };
  consider("p95 first token", seen.first_token_s, goal.first_token_s);
  consider("p95 between tokens", seen.next_token_s, goal.next_token_s);
  // Who waits longer than that already is as good as seen.
  if (goal.first_token_s && seen.oldest_wait_s > *goal.first_token_s)
    consider("a wait", seen.oldest_wait_s, goal.first_token_s);
  return out;
}

} // namespace

scaling_decision latency(const latency_seen& seen, const latency_goal& goal,
                         const scaling_options& options,
                         const scaling_state& state, const scaling_view& view,
                         time_point now) {
  double replicas = view.replicas;
  replica_wish wish{static_cast<double>(view.target), "not enough seen yet",
                    "any time"};
  auto is_settled = view.replicas == view.target;
  if (auto found = worst_of(seen, goal); found && is_settled) {
    wish.load = found->text;
    wish.each = found->goal;
    auto load = view.running + view.queued;
    auto others = (replicas - 1) * options.target_ongoing_requests;
    auto others_can = load <= spare * others;
    if (found->ratio > 1 && load > replicas)
      wish.replicas = std::min(replicas * std::min(found->ratio, step_max),
                               std::ceil(load));
    else if (others_can && (found->ratio < low || load < replicas - 1))
      wish.replicas = replicas - 1;
  } else if (view.running + view.queued == 0) {
    // Nor is a change waited for that there may be no room for.
    wish.load = "nothing to do";
    wish.replicas = replicas - 1;
  }
  return step_towards(wish, options, state, view, now);
}

} // namespace troupe::autoscaler
