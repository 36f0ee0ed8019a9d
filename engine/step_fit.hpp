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

  /// Microseconds of a step with 4 rows, and of one with 256; 0 unless there
  /// were steps of late whose sizes are within three times that, since from far
  /// away it would be a guess.
  std::uint32_t few_rows_us() const;
  std::uint32_t many_rows_us() const;

private:
  // Sums over steps, with x = rows and y = seconds.
  double weight_ = 0, x_ = 0, xx_ = 0, y_ = 0, xy_ = 0;
  double few_ = 0, many_ = 0; // steps of about those sizes, of late
};

} // namespace troupe::engine
