#pragma once

#include "autoscaler/load_windows.hpp"
#include "autoscaler/policy/scaling_step.hpp"
#include "config/autoscaling_config.hpp"

#include <cstdint>

namespace troupe::autoscaler {

/// What is not given is ours, not Ray's: up at once, down after a minute, and
/// the load of the last half second; with that window down only to the most
/// that was wanted meanwhile.
scaling_options options_of(const config::autoscaling_config&);
window_options window_of(const config::autoscaling_config&);

/// The set-point where none is given: choices that a replica runs well.
/// `seats`: as many as its engine runs without giving one up; 0 = not known.
/// `sequences_max`: max_num_seqs as given; 0 = not. On a CPU an engine's own
/// bound is not a good measure: from `cpu_seats` on each choice more makes all
/// others slower (docs/policies.md).
double set_point(std::uint32_t seats, std::uint32_t sequences_max, bool on_cpu);

inline constexpr std::uint32_t cpu_seats = 8;

} // namespace troupe::autoscaler
