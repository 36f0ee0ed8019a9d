#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace troupe::autoscaler {

using time_point = std::chrono::steady_clock::time_point;

/// What of `autoscaling_config` decides, with Ray Serve's names and defaults.
/// Counts: min <= initial <= max; factors and the set-point above 0; delays not
/// below 0.
struct scaling_options {
  std::uint32_t min_replicas = 1; ///< 0 = may go to zero
  std::optional<std::uint32_t> initial_replicas;
  std::uint32_t max_replicas = 1;
  double target_ongoing_requests = 2; ///< set-point of one replica
  double upscale_delay_s = 30;
  double downscale_delay_s = 600;
  std::optional<double> downscale_to_zero_delay_s; ///< unset: downscale_delay_s
  std::optional<double> upscaling_factor;
  std::optional<double> downscaling_factor;
  // The old names of the two; the nearest one that is set counts.
  std::optional<double> upscale_smoothing_factor;
  std::optional<double> downscale_smoothing_factor;
  double smoothing_factor = 1;
  /// Down to the most that was wanted during the delay, not to what is wanted
  /// at its end (Ray's way, for which a load of long windows is needed).
  bool down_to_most_wanted = false;
};

/// A model as the policy sees it.
struct scaling_view {
  double running = 0;         ///< requests at replicas, over the window
  double queued = 0;          ///< requests without a replica, likewise
  std::uint32_t replicas = 0; ///< that run
  std::uint32_t target = 0;   ///< that are wanted so far
  std::optional<double> target_capacity; ///< per cent; unset = 100
  bool capacity_rising = false;          ///< the last change of it was upwards
};

/// What one decision leaves for the next. A new `scaling_options` begins anew.
struct scaling_state {
  /// Ticks for which more (above 0) or less (below 0) was wanted in a row.
  std::int64_t counter = 0;
  time_point counted_until{};    ///< ticks before this are in `counter`
  std::uint32_t most_wanted = 0; ///< while less was wanted than the target

  bool operator==(const scaling_state&) const = default;
};

struct scaling_decision {
  std::uint32_t target = 0;
  scaling_state state;
  /// "up 1→3: 41 running + 7 queued over 3 replicas of 16"; "keep 3: ...".
  std::string reason;
  /// Why it is not what the load asks for: bounds and delays, as a clause each.
  /// Empty = it is.
  std::string held_back;

  bool operator==(const scaling_decision&) const = default;
};

/// Delays count in ticks of this length.
inline constexpr std::chrono::milliseconds scaling_tick{100};

/// A call stands for at most so many ticks: what nobody looked at for longer
/// than a second does not count as wanted all the while.
inline constexpr std::int64_t ticks_per_call_max = 10;

/// What a policy asks for: this many replicas, a real number, while some run.
/// The texts are for people: "<load> over 3 replicas of <each>".
struct replica_wish {
  double replicas = 0;
  std::string load; ///< "41 running + 7 queued"
  std::string each; ///< what one takes: "16"
};

/// From a wish to a target, as Ray Serve goes, after
/// ray/serve/autoscaling_policy.py of 2.5x. Pure.
///
/// The distance of the wish from the replicas that run is stretched by a
/// factor, rounded up, and cut to the bounds. It must be wanted on one side of
/// the target for longer than that side's delay. Zero is reached only from one.
/// From zero one request is enough, without delay; meanwhile the counter rests.
/// Bounds hold at once. (Ray also multiplies and divides by the replicas that
/// run: the same but for a double's last bit, which tells only where the
/// quotient is a whole number.)
///
/// Ray counts one tick per turn of its loop. Here the first call that wants
/// more (or less) counts 1 and each later one the whole ticks since: called
/// every 100 ms this is Ray's count, called up to every second it acts after
/// the same time, and slower than that delays stretch as Ray's do.
scaling_decision step_towards(const replica_wish&, const scaling_options&,
                              const scaling_state&, const scaling_view&,
                              time_point now);

} // namespace troupe::autoscaler
