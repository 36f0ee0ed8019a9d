#pragma once

#include <chrono>
#include <cstdint>

namespace troupe::engine {

/// How long steps take, by their rows: the line a + b x rows through the steps
/// of late, by least squares of what it is off in proportion. Two engines that
/// compute steps of different sizes can be compared by it. A step counts 1/e
/// after two more seconds of steps.
///
/// Where all steps have about the same number of rows they say nothing about a
/// and b apart; then the line is that of an engine for which a step costs as
/// much as 16 rows.
class step_fit {
public:
  void step(std::uint64_t rows, std::chrono::duration<double> time);

  /// Of a step with so many rows; 0 before the first.
  double seconds(double rows) const;

  /// Microseconds of a step with 64 rows; 0 before the first.
  std::uint32_t step_us() const;

private:
  // Sums over steps, with x = rows and y = seconds.
  double weight_ = 0, x_ = 0, xx_ = 0, y_ = 0, xy_ = 0;
};

} // namespace troupe::engine
