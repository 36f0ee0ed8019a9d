#pragma once

#include "engine/ops/backend.hpp"
#include "engine/ops/cpu/expert_router.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace troupe::ops::cpu {

/// The rows that chose an expert, ascending, and the share that each gives it.
struct expert_rows {
  std::span<const std::int32_t> rows;
  std::span<const float> shares;
};

/// Floats of one expert's rows, which may be all: what goes in, gates with what
/// they multiply, their products, and what it gives.
constexpr std::int64_t mixture_floats(const mixture_params& how,
                                      std::int64_t rows) {
  return rows * (how.cols + 2 * how.inner + how.inner + how.cols);
}

/// Turns which experts each row chose into which rows each expert has.
class expert_plan {
public:
  /// Room for the choices of `rows` rows, `chosen` each.
  void make_room(std::int64_t rows, std::int32_t chosen);

  /// Where the choices are to be written.
  routing_view routing() {
    return {experts_, shares_, chosen_};
  }

  /// Sorts what was written by expert; all are below `experts`.
  void sort(std::int32_t experts);

  expert_rows rows_of(std::int32_t expert) const;

private:
  std::int32_t chosen_ = 0;
  std::vector<std::int32_t> experts_; ///< [rows][chosen]
  std::vector<float> shares_;
  std::vector<std::size_t> starts_; ///< per expert, and the end
  std::vector<std::int32_t> sorted_rows_;
  std::vector<float> sorted_shares_;
};

} // namespace troupe::ops::cpu
