#include "autoscaler/options.hpp"

#include <algorithm>

namespace troupe::autoscaler {

namespace {

constexpr double look_back_s = 0.5;
constexpr double downscale_delay_s = 60;
constexpr std::uint32_t unknown_seats = 16;

aggregation named(config::load_aggregation function) {
  switch (function) {
  case config::load_aggregation::max:
    return aggregation::max;
  case config::load_aggregation::min:
    return aggregation::min;
  case config::load_aggregation::mean:
    break;
  }
  return aggregation::mean;
}

} // namespace

scaling_options options_of(const config::autoscaling_config& from) {
  scaling_options out;
  out.min_replicas = from.min_replicas;
  out.initial_replicas = from.initial_replicas;
  out.max_replicas = from.max_replicas;
  out.target_ongoing_requests =
      from.target_ongoing_requests.value_or(unknown_seats);
  out.upscale_delay_s = from.upscale_delay_s.value_or(0);
  out.downscale_delay_s = from.downscale_delay_s.value_or(downscale_delay_s);
  out.downscale_to_zero_delay_s = from.downscale_to_zero_delay_s;
  out.upscaling_factor = from.upscaling_factor;
  out.downscaling_factor = from.downscaling_factor;
  out.upscale_smoothing_factor = from.upscale_smoothing_factor;
  out.downscale_smoothing_factor = from.downscale_smoothing_factor;
  out.smoothing_factor = from.smoothing_factor.value_or(1);
  out.down_to_most_wanted = !from.look_back_period_s;
  return out;
}

window_options window_of(const config::autoscaling_config& from) {
  window_options out;
  out.look_back_period_s = from.look_back_period_s.value_or(look_back_s);
  out.metrics_interval_s =
      from.metrics_interval_s.value_or(out.metrics_interval_s);
  out.aggregation_function = named(from.aggregation);
  return out;
}

double set_point(std::uint32_t seats, std::uint32_t sequences_max,
                 bool on_cpu) {
  auto out = seats != 0 ? seats : unknown_seats;
  if (sequences_max != 0)
    return std::min(out, sequences_max);
  return on_cpu ? std::min(out, cpu_seats) : out;
}

} // namespace troupe::autoscaler
