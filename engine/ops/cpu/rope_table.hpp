#pragma once

#include "engine/ops/backend.hpp"

#include <memory>
#include <vector>

namespace troupe::ops::cpu {

/// Cosine and sine in double from +, -, *, / alone, so that their bits depend
/// on no library. Absolute error below 1e-14 for |angle| < 2^20.
struct turn {
  double cosine;
  double sine;
};
turn turn_by(double angle);

/// cos and sin of position * frequency for every pair of a rope, times the
/// rope's scale, rounded from double; filled as far as positions were asked
/// for.
class rope_table {
public:
  explicit rope_table(const rope_params&);

  bool is_for(const rope_params&) const;

  /// Makes the rows up to `position` ready. Not to be called while others read.
  void cover(std::int32_t position);

  /// Row of a covered position: (cos, sin) of each pair.
  const float* row(std::int32_t position) const {
    return chunks_[position / chunk_positions].get() +
           position % chunk_positions * pairs() * 2;
  }

  std::int64_t pairs() const {
    return static_cast<std::int64_t>(frequencies_.size());
  }

private:
  static constexpr std::int32_t chunk_positions = 256;

  rope_params params_;
  std::vector<double> frequencies_;
  std::vector<std::unique_ptr<float[]>> chunks_;
};

} // namespace troupe::ops::cpu
