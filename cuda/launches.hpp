#pragma once

#include "cuda/kernels/linear.hpp"
#include "cuda/kernels/rows.hpp"

#include <algorithm>
#include <cassert>
#include <cstdint>

namespace troupe::cuda {

/// Rows of one launch: a grid is at most 65,535 blocks high.
inline constexpr std::int64_t launch_rows = 32'768;

/// Blocks that share a row of so many columns.
inline unsigned blocks_for(std::int64_t cols) {
  constexpr std::int64_t columns = 1024, most = 64;
  return static_cast<unsigned>(
      std::clamp((cols + columns - 1) / columns, std::int64_t{1}, most));
}

/// A block of `of_row` per row.
template <class Device, class Kernel>
void launch_over_rows(Device& device, std::size_t rows,
                      const launch_shape& of_row, const Kernel& kernel) {
  assert(rows <= launch_rows);
  if (rows == 0)
    return;
  auto shape = of_row;
  shape.blocks_y = static_cast<unsigned>(rows);
  device.launch(shape, kernel);
}

/// Our own product; `scales` as linear_kernel has them.
template <class Device, class Stored>
void launch_linear(Device& device, const Stored* weight, const float* x,
                   std::int64_t outputs, std::int64_t cols, std::int64_t rows,
                   float* y, bool add, const float* scales = nullptr) {
  launch_shape shape;
  const auto at_once = std::int64_t{shape.threads / warp_size};
  shape.blocks_x = static_cast<unsigned>((outputs + at_once - 1) / at_once);
  for (std::int64_t first = 0; first < rows; first += launch_rows) {
    const auto some = std::min(rows - first, launch_rows);
    shape.blocks_y =
        static_cast<unsigned>((some + rows_at_once - 1) / rows_at_once);
    device.launch(
        shape, linear_kernel<Stored>{weight, x + first * cols, outputs, cols,
                                     some, y + first * outputs, add, scales});
  }
}

} // namespace troupe::cuda
