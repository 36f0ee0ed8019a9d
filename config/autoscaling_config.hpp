#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace troupe::config {

/// How many replicas a model is to have, by which measure.
enum class scaling_policy : std::uint8_t {
  ongoing_requests, ///< requests in flight over a set-point (Ray Serve's)
  tokens,           ///< tokens to compute over the rate measured
  schedule,         ///< as ongoing_requests, with more at times of the day
  latency,          ///< keeps what clients see at set-points
};

/// How reports of load within the window are made one number.
enum class load_aggregation : std::uint8_t { mean, max, min };

/// At least so many replicas from one minute of the day to another.
struct scheduled_minimum {
  std::uint32_t from_minute = 0; ///< of the day, 0 to 1439
  std::uint32_t to_minute = 0; ///< not included; at or before `from`: next day
  std::uint32_t days = 0x7f;   ///< on which it begins; bit 0 = Monday
  std::uint32_t min_replicas = 0;

  bool operator==(const scheduled_minimum&) const = default;
};

/// `autoscaling_config`, Ray Serve's keys and ours; what is not set is chosen
/// by the autoscaler (docs/autoscaling.md).
struct autoscaling_config {
  std::uint32_t min_replicas = 1;
  std::optional<std::uint32_t> initial_replicas;
  std::uint32_t max_replicas = 1;
  std::optional<double> target_ongoing_requests;
  std::optional<double> upscale_delay_s;
  std::optional<double> downscale_delay_s;
  std::optional<double> downscale_to_zero_delay_s;
  std::optional<double> metrics_interval_s;
  std::optional<double> look_back_period_s;
  std::optional<double> upscaling_factor;
  std::optional<double> downscaling_factor;
  std::optional<double> smoothing_factor;
  std::optional<double> upscale_smoothing_factor;
  std::optional<double> downscale_smoothing_factor;
  load_aggregation aggregation = load_aggregation::mean;

  scaling_policy policy = scaling_policy::ongoing_requests;
  double target_queue_s = 3; ///< `tokens`: work of so many seconds
  /// `latency`: the 95th percentiles to keep; one at least.
  std::optional<double> first_token_s;
  std::optional<double> next_token_s;
  std::int32_t utc_offset_minutes = 0; ///< `schedule`
  std::vector<scheduled_minimum> schedule;

  std::uint32_t start_replicas() const {
    return initial_replicas.value_or(min_replicas);
  }

  bool operator==(const autoscaling_config&) const = default;
};

/// So many per cent (0 to 100) of a number of replicas, rounded, but at least
/// one of more than none; all of them if nothing is said. As Ray Serve has it.
inline std::uint32_t at_capacity(std::uint32_t replicas,
                                 std::optional<double> per_cent) {
  if (!per_cent || *per_cent >= 100)
    return replicas;
  if (*per_cent <= 0 || replicas == 0)
    return 0;
  return std::max(
      1u, static_cast<std::uint32_t>(std::round(replicas * *per_cent / 100)));
}

} // namespace troupe::config
