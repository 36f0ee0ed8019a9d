#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

namespace troupe::router {

/// Whether a replica can be trusted with choices: after two failures in a row
/// it is left out, then tried with one choice, and left out for twice as long
/// if that fails too.
class replica_health {
public:
  using time_point = std::chrono::steady_clock::time_point;

  static constexpr std::chrono::milliseconds pause_min{1'000};
  static constexpr std::chrono::milliseconds pause_max{30'000};

  enum class state : std::uint8_t {
    fine,
    left_out,
    probed, ///< may be given one choice
  };

  /// It refused a choice as unavailable, was lost or could not be reached.
  void failed(time_point now);

  /// It computed something.
  void served() {
    *this = {};
  }

  /// Begins the probe when it is time.
  void tick(time_point now);

  state now() const {
    return state_;
  }

  /// When `tick` has something to do.
  std::optional<time_point> next() const {
    return state_ == state::left_out ? std::optional{until_} : std::nullopt;
  }

private:
  state state_ = state::fine;
  std::uint32_t failures_ = 0; // in a row, as far as they count
  std::chrono::milliseconds pause_{0};
  time_point until_;
};

} // namespace troupe::router
