#pragma once

#include "config/autoscaling_config.hpp"

#include <chrono>
#include <cstdint>
#include <vector>

namespace troupe::autoscaler {

/// The greatest minimum that holds at a time; 0 = none does. A span that ends
/// at or before it begins ends on the next day. Pure.
std::uint32_t scheduled_minimum(const std::vector<config::scheduled_minimum>&,
                                std::int32_t utc_offset_minutes,
                                std::chrono::system_clock::time_point now);

} // namespace troupe::autoscaler
