#pragma once

#include "actors/protocol/record_layout.hpp"
#include "config/autoscaling_config.hpp"

// Field numbers of `autoscaling_config`, for the store and the autoscaler.

namespace troupe::config {

constexpr scaling_policy last_value(scaling_policy) {
  return scaling_policy::latency;
}

constexpr load_aggregation last_value(load_aggregation) {
  return load_aggregation::min;
}

} // namespace troupe::config

namespace troupe::protocol {

template <>
struct layout<config::scheduled_minimum> {
  using r = config::scheduled_minimum;
  static constexpr std::string_view name = "scheduled_minimum";
  static constexpr auto fields = std::tuple{
      number(1, &r::from_minute),
      number(2, &r::to_minute),
      number(3, &r::days),
      number(4, &r::min_replicas),
  };
};

template <>
struct layout<config::autoscaling_config> {
  using r = config::autoscaling_config;
  static constexpr std::string_view name = "autoscaling_config";
  static constexpr auto fields = std::tuple{
      number(1, &r::min_replicas),
      number(2, &r::initial_replicas),
      number(3, &r::max_replicas),
      number(4, &r::target_ongoing_requests),
      number(5, &r::upscale_delay_s),
      number(6, &r::downscale_delay_s),
      number(7, &r::downscale_to_zero_delay_s),
      number(8, &r::metrics_interval_s),
      number(9, &r::look_back_period_s),
      number(10, &r::upscaling_factor),
      number(11, &r::downscaling_factor),
      number(12, &r::smoothing_factor),
      number(13, &r::upscale_smoothing_factor),
      number(14, &r::downscale_smoothing_factor),
      number(15, &r::aggregation),
      number(16, &r::policy),
      number(17, &r::target_queue_s),
      number(18, &r::utc_offset_minutes),
      number(19, &r::schedule),
      number(20, &r::first_token_s),
      number(21, &r::next_token_s),
  };
};

} // namespace troupe::protocol
