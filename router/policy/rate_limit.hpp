#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

namespace troupe::router {

/// So much a minute, of requests or of tokens: a bucket that holds a minute's
/// worth and fills evenly (a token bucket). What was used beyond it, since
/// nobody knew how long an answer becomes, is owed, a minute's worth at most.
class rate_limit {
public:
  using time_point = std::chrono::steady_clock::time_point;

  /// 0 = no limit.
  explicit rate_limit(std::uint64_t per_minute = 0) : per_minute_(per_minute) {
    left_ = static_cast<double>(per_minute);
  }

  std::uint64_t per_minute() const {
    return per_minute_;
  }

  /// Another limit from now on; what is owed stays owed.
  void change(std::uint64_t per_minute, time_point now);

  /// Takes `amount` if it is there. Else nothing is taken and it says how long
  /// until it is; nothing, if it never will be (more than a minute's worth).
  struct verdict {
    bool taken = false;
    std::optional<std::chrono::milliseconds> wait = {};
  };
  verdict take(std::uint64_t amount, time_point now);

  /// Was used in any case.
  void charge(std::uint64_t amount, time_point now);

  std::uint64_t left(time_point now) const;

  /// Until the bucket is full again.
  std::chrono::milliseconds full_in(time_point now) const;

private:
  double left_at(time_point now) const;

  std::uint64_t per_minute_ = 0;
  double left_ = 0; ///< below 0: owed
  time_point at_{};
};

} // namespace troupe::router
