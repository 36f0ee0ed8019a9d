#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

namespace troupe::bench {

using time_point = std::chrono::steady_clock::time_point;
using std::chrono::nanoseconds;

inline nanoseconds nanoseconds_of(double seconds) {
  return std::chrono::duration_cast<nanoseconds>(
      std::chrono::duration<double>{seconds});
}

/// The simulated time and what is to come. Events of one time happen in the
/// order in which they were put.
class event_queue {
public:
  using action = std::function<void()>;

  /// Zero of `seconds`. What has to be there by then happens in the second
  /// before it.
  static constexpr time_point begin{std::chrono::hours{1}};

  time_point now() const {
    return now_;
  }

  double seconds() const {
    return std::chrono::duration<double>(now_ - begin).count();
  }

  void after(nanoseconds pause, action what) {
    at(now_ + pause, std::move(what));
  }

  void at(time_point when, action what) {
    events_.push({std::max(when, now_), ++last_, std::move(what)});
  }

  /// The end of all times if nothing is to come.
  time_point next() const {
    return events_.empty() ? time_point::max() : events_.top().when;
  }

  /// False if nothing is to come.
  bool step() {
    if (events_.empty())
      return false;
    auto what = std::move(const_cast<event&>(events_.top()));
    events_.pop();
    now_ = what.when;
    what.what();
    return true;
  }

private:
  struct event {
    time_point when;
    std::uint64_t number = 0;
    action what;

    bool operator<(const event& other) const { // the first one is the greatest
      return std::pair{other.when, other.number} < std::pair{when, number};
    }
  };

  time_point now_ = begin - std::chrono::seconds{1};
  std::uint64_t last_ = 0;
  std::priority_queue<event> events_;
};

} // namespace troupe::bench
