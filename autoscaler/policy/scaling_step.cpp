#include "autoscaler/policy/scaling_step.hpp"

#include "config/autoscaling_config.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fmt/format.h>
#include <string_view>

namespace troupe::autoscaler {

namespace {

double upscaling_factor(const scaling_options& options) {
  return options.upscaling_factor.value_or(
      options.upscale_smoothing_factor.value_or(options.smoothing_factor));
}

double downscaling_factor(const scaling_options& options) {
  return options.downscaling_factor.value_or(
      options.downscale_smoothing_factor.value_or(options.smoothing_factor));
}

struct bound {
  std::uint32_t replicas;
  std::string name; ///< for people
};

bound bound_of(std::string_view key, std::uint32_t replicas,
               const scaling_view& view) {
  auto name = fmt::format("{} {}", key, replicas);
  if (view.target_capacity && *view.target_capacity < 100)
    name += fmt::format(" at {:g} % target capacity", *view.target_capacity);
  return {config::at_capacity(replicas, view.target_capacity), std::move(name)};
}

bound lower_bound(const scaling_options& options, const scaling_view& view) {
  if (options.initial_replicas && view.capacity_rising)
    return bound_of("initial_replicas", *options.initial_replicas, view);
  return bound_of("min_replicas", options.min_replicas, view);
}

/// Also what is no number or beyond every integer has a place within bounds.
std::uint32_t clip(double replicas, const bound& low, const bound& high) {
  return static_cast<std::uint32_t>(
      std::fmin(std::fmax(replicas, low.replicas), high.replicas));
}

/// What the load asks for, before bounds and delays; may be below 0.
double wanted_replicas(double desired, const scaling_options& options,
                       const scaling_view& view) {
  double replicas = view.replicas;
  if (view.replicas == 0)
    return view.running + view.queued > 0
               ? std::fmax(std::ceil(upscaling_factor(options)), view.target)
               : view.target;
  auto factor = desired > replicas ? upscaling_factor(options)
                                   : downscaling_factor(options);
  auto scaled = std::ceil(replicas + factor * (desired - replicas));
  // A small factor and rounding up must not keep a replica for ever.
  if (std::ceil(desired) < replicas && scaled == replicas)
    return scaled - 1;
  return scaled;
}

struct delay {
  double seconds;
  std::string_view key;

  double ticks() const {
    return std::floor(seconds / 0.1); // as Ray divides: 0.3 s are 2 ticks
  }
};

delay delay_of(const scaling_options& options, std::uint32_t from,
               std::uint32_t to) {
  if (to > from)
    return {options.upscale_delay_s, "upscale_delay_s"};
  if (from == 1 && options.downscale_to_zero_delay_s)
    return {*options.downscale_to_zero_delay_s, "downscale_to_zero_delay_s"};
  return {options.downscale_delay_s, "downscale_delay_s"};
}

/// `direction` is 1 or -1.
scaling_state count(const scaling_state& state, int direction, time_point now) {
  if (state.counter * direction <= 0)
    return {direction, now, 0};
  auto passed = (now - state.counted_until) / scaling_tick;
  if (passed < 0 || passed > ticks_per_call_max)
    return {state.counter + (passed < 0 ? 0 : direction * ticks_per_call_max),
            now, state.most_wanted};
  return {state.counter + direction * passed,
          state.counted_until + passed * scaling_tick, state.most_wanted};
}

std::string change_of(std::uint32_t from, std::uint32_t to) {
  if (from == to)
    return fmt::format("keep {}: ", to);
  return fmt::format("{} {}→{}: ", to > from ? "up" : "down", from, to);
}

std::string load_of(const replica_wish& wish, std::uint32_t target) {
  return fmt::format("{} over {} replica{} of {}", wish.load, target,
                     target == 1 ? "" : "s", wish.each);
}

void add_clause(std::string& to, const std::string& clause) {
  to += (to.empty() ? "" : "; ") + clause;
}

/// Counts one call towards `goal`; moves the target when its delay is over.
void count_towards(std::uint32_t goal, const scaling_options& options,
                   const scaling_state& state, const scaling_view& view,
                   time_point now, scaling_decision& out) {
  out.state = count(state, goal > view.target ? 1 : -1, now);
  if (options.down_to_most_wanted && goal < view.target)
    goal = out.state.most_wanted = std::max(out.state.most_wanted, goal);
  auto wait = delay_of(options, view.target, goal);
  if (goal == 0 && view.target > 1) {
    goal = 1;
    add_clause(out.held_back, "to zero only from one replica");
  }
  auto left = wait.ticks() - static_cast<double>(std::abs(out.state.counter));
  if (left < 0) {
    out.target = goal;
    out.state.counter = 0;
    out.state.most_wanted = 0;
    return;
  }
  add_clause(out.held_back,
             fmt::format("{} {:g}: {}→{} in {:.1f} s", wait.key, wait.seconds,
                         view.target, goal, (left + 1) / 10));
}

} // namespace

scaling_decision step_towards(const replica_wish& wish,
                              const scaling_options& options,
                              const scaling_state& state,
                              const scaling_view& view, time_point now) {
  auto low = lower_bound(options, view);
  auto high = bound_of("max_replicas", options.max_replicas, view);
  auto wanted = wanted_replicas(wish.replicas, options, view);
  auto goal = clip(wanted, low, high);
  scaling_decision out;
  out.target = view.target;
  if (std::fmax(wanted, 0) != goal)
    out.held_back =
        fmt::format("{}: {:g} wanted", wanted > goal ? high.name : low.name,
                    std::fmax(wanted, 0));
  if (view.replicas == 0) {
    out.target = goal;
    out.state = {state.counter, now, state.most_wanted};
  } else if (goal == view.target) {
    out.state = {0, now, 0};
  } else {
    count_towards(goal, options, state, view, now, out);
  }
  auto decided = out.target;
  out.target = clip(decided, low, high);
  out.reason = change_of(view.target, out.target);
  if (out.target == decided)
    out.reason += load_of(wish, out.target);
  else
    out.reason += out.target > decided ? low.name : high.name;
  return out;
}

} // namespace troupe::autoscaler
