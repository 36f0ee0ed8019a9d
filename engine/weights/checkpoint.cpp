#include "engine/weights/checkpoint.hpp"

#include <functional>
#include <numeric>

namespace troupe::weights {

ops::matrix_view tensor::matrix() const {
  auto rows = std::accumulate(shape.begin() + 1, shape.end(), std::int64_t{1},
                              std::multiplies<>{});
  return {type, rows, shape[0], bytes, as_e4m3, {}, row_scales};
}

std::uint64_t tensor::byte_size() const {
  auto layout = ops::layout_of(type);
  auto all = matrix();
  return static_cast<std::uint64_t>(all.rows * (all.cols / layout.elements) *
                                    layout.bytes);
}

} // namespace troupe::weights
