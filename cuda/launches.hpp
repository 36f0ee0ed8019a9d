#pragma once

#include "cuda/kernels/linear.hpp"
#include "cuda/kernels/rows.hpp"

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <type_traits>

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

/// Our own product by blocks of one kind.
template <class Product, class Device>
void launch_product(Device& device, const typename Product::stored* weight,
                    const float* x, std::int64_t outputs, std::int64_t cols,
                    std::int64_t rows, float* y, const row_norm& norm,
                    const product_end& end) {
  using kernel = linear_kernel<Product>;
  const auto blocks = [](std::int64_t all, std::int64_t each) {
    return static_cast<unsigned>((all + each - 1) / each);
  };
  const auto warps = Product::warps_for(rows);
  launch_shape shape;
  shape.threads = static_cast<unsigned>(warps) * warp_size;
  // Blocks that read the same outputs follow each other.
  shape.blocks_x = blocks(rows, Product::rows_of_block(warps));
  shape.blocks_y =
      blocks(outputs, end.is_gated ? Product::outputs / 2 : Product::outputs);
  shape.shared_floats = Product::shared_floats +
                        (norm.weight != nullptr ? Product::norm_floats : 0);
  device.launch(shape, kernel{weight, x, outputs, cols, rows, y, norm, end});
}

/// Whether blocks should have twice as many outputs of few rows, which they
/// then read and split half as often: where enough blocks remain. Weights in
/// bf16 are bound by the memory as it is; they need them all to ask for it.
template <class Stored, class Device>
bool takes_more_outputs(const Device& device, std::int64_t outputs) {
  // Of the four blocks wanted per multiprocessor.
  constexpr std::int64_t parts = std::is_same_v<Stored, bf16> ? 2 : 5;
  constexpr int of_block = most_output_tiles<Stored, 1> * fragment_outputs;
  return outputs / of_block * parts >= device.blocks_wanted();
}

/// Whether rows are far more than a block has otherwise, and outputs so many
/// that large blocks of both keep all multiprocessors busy.
template <class Stored, class Device>
bool are_many(const Device& device, std::int64_t rows, std::int64_t outputs) {
  using product = many_rows_product<Stored>;
  // Of the four blocks wanted per multiprocessor.
  constexpr std::int64_t part = 4;
  const auto blocks =
      (rows + product::rows - 1) / product::rows * (outputs / product::outputs);
  return rows > product::rows / 2 && part * blocks >= device.blocks_wanted();
}

/// Outputs of a weight at most: a grid is at most so high.
inline constexpr std::int64_t outputs_most =
    65'535 * std::int64_t{few_output_tiles * fragment_outputs};

/// Our own product, of so many outputs of y.
template <class Device, class Stored>
void launch_linear(Device& device, const Stored* weight, const float* x,
                   std::int64_t outputs, std::int64_t cols, std::int64_t rows,
                   float* y, const row_norm& norm, const product_end& end) {
  const auto launch = [&]<class Product>() {
    launch_product<Product>(device, weight, x, outputs, cols, rows, y, norm,
                            end);
  };
  const auto launch_tiles = [&]<int RowTiles, int OutputTiles>() {
    launch.template operator()<tile_product<Stored, RowTiles, OutputTiles>>();
  };
  if (are_many<Stored>(device, rows, end.is_gated ? 2 * outputs : outputs))
    launch.template operator()<many_rows_product<Stored>>();
  else if (rows > 2 * fragment_rows)
    launch_tiles.template operator()<4, most_output_tiles<Stored, 4>>();
  else if (rows > fragment_rows)
    launch_tiles.template operator()<2, most_output_tiles<Stored, 2>>();
  else if (end.is_gated || takes_more_outputs<Stored>(device, outputs))
    launch_tiles.template operator()<1, most_output_tiles<Stored, 1>>();
  else
    launch_tiles.template operator()<1, few_output_tiles>();
}

} // namespace troupe::cuda
