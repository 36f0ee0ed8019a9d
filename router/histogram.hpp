#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

namespace troupe::router {

/// A Prometheus histogram of seconds. Any thread.
class histogram {
public:
  static constexpr std::array<double, 20> bounds{
      0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,  0.25, 0.5,   0.75,
      1.0,   2.5,    5.0,   7.5,  10.0,  20.0, 40.0, 80.0, 160.0, 640.0};

  void observe(double seconds);
  /// In seconds, or in milliseconds if the name ends in "_ms".
  void write(std::string_view name, std::string_view labels,
             std::string& out) const;

private:
  std::array<std::atomic<std::uint64_t>, bounds.size() + 1> counts_{};
  std::atomic<double> sum_ = 0;
};

} // namespace troupe::router
