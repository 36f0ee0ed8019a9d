#pragma once

#include "cuda/device_memory.hpp"
#include "cuda/kernels/experts.hpp"
#include "cuda/launches.hpp"
#include "cuda/stored_weight.hpp"
#include "engine/ops/backend.hpp"
#include "engine/ops/dense_layout.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <memory>
#include <span>
#include <string>
#include <utility>

namespace troupe::cuda {

/// Mixtures of experts on a device, from scores to sums, without the host:
/// which launches they are follows from the number of rows alone.
template <class Device>
class device_mixture {
public:
  /// `device` outlives it.
  explicit device_mixture(Device& device) : device_(device) {
    // nop
  }

  result<std::unique_ptr<ops::expert_weights>>
  load(std::span<const ops::expert_matrices> experts) {
    if (experts.size() > ops::gpu_experts_max)
      return error{errc::unsupported,
                   "layers of more than " +
                       std::to_string(ops::gpu_experts_max) +
                       " experts are not supported on a GPU"};
    auto made = std::make_unique<stored_experts>();
    for (std::size_t i = 0; i < experts.size(); ++i) {
      const auto& one = experts[i];
      const std::array gate_up{one.gate, one.up};
      for (auto done : {put(gate_up, i, experts.size(), made->gate_up),
                        put({&one.down, 1}, i, experts.size(), made->down)})
        if (!done)
          return done.error();
    }
    return std::unique_ptr<ops::expert_weights>{std::move(made)};
  }

  /// Room for steps of so many rows.
  void make_room(const ops::mixture_params& how, std::int64_t rows) {
    const layout sizes{how, rows};
    grow(device_, choices_, sizes.choices);
    grow(device_, shares_, sizes.shares);
    grow(device_, order_, sizes.order);
    grow(device_, chunks_, sizes.chunks);
    grow(device_, activated_, sizes.activated);
    grow(device_, given_, sizes.given);
  }

  /// What ops::backend::mix_experts says.
  std::uint64_t run(const ops::expert_weights& experts,
                    const ops::mixture_params& how, const float* x,
                    const float* scores, std::int64_t rows, float* y) {
    const auto& weights = static_cast<const stored_experts&>(experts);
    assert(how.chosen >= 1 && how.chosen <= how.experts);
    assert(weights.gate_up.cols == how.cols && weights.down.rows == how.cols);
    make_room(how, rows);
    std::int64_t read = 0; // experts
    for (std::int64_t first = 0; first < rows;) {
      const auto some = layout::rows_at_once(how, rows - first);
      mix(weights, how, x + first * how.cols, scores + first * how.experts,
          some, y + first * how.cols);
      read += std::min<std::int64_t>(some * how.chosen, how.experts);
      first += some;
    }
    return static_cast<std::uint64_t>(read * (weights.bytes() / how.experts));
  }

private:
  using memory = device_memory<Device>;
  using layout = ops::gpu_mixture_layout;

  static_assert(layout::chunk_bytes == sizeof(expert_chunk));
  static_assert(ops::gpu_experts_max <= route_kernel::experts_max);
  static_assert(ops::gpu_experts_max <= place_kernel::threads_max);

  /// A matrix of all experts; rows and columns are one expert's.
  struct stack {
    ops::element_type type = ops::element_type::bf16;
    bool is_e4m3 = false; // then the type means nothing
    std::int64_t row_scales = 1;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::int64_t stride = 0; ///< bytes
    device_mixture::memory memory;

    expert_stack view() const {
      return {memory.template as<const std::byte>(), stride,
              is_e4m3 ? ops::e4m3_scales_at(rows, cols) : 0};
    }
  };

  struct stored_experts final : ops::expert_weights {
    std::int64_t bytes() const override {
      return static_cast<std::int64_t>(gate_up.memory.bytes() +
                                       down.memory.bytes());
    }
    stack gate_up, down;
  };

  /// The matrix of the expert `which` of `count`, which is made of the parts.
  result<void> put(std::span<const ops::matrix_view> parts, std::size_t which,
                   std::size_t count, stack& to) {
    auto dense = make_dense(parts);
    if (!dense)
      return dense.error();
    if (which == 0) {
      to.type = dense->type;
      to.is_e4m3 = dense->is_e4m3;
      to.row_scales = dense->row_scales;
      to.rows = dense->rows;
      to.cols = dense->cols;
      to.stride = ops::dense_expert_bytes(parts);
      const auto bytes = count * static_cast<std::size_t>(to.stride);
      if (auto done = take(device_, to.memory, bytes); !done)
        return done;
    }
    assert(dense->type == to.type && dense->is_e4m3 == to.is_e4m3);
    assert(dense->row_scales == to.row_scales);
    assert(dense->rows == to.rows && dense->cols == to.cols);
    device_.copy_in(to.memory.template as<std::byte>() +
                        which * static_cast<std::size_t>(to.stride),
                    dense->bytes.data(), dense->bytes.size());
    return {};
  }

  /// Of as many rows as there is room for.
  void mix(const stored_experts& weights, const ops::mixture_params& how,
           const float* x, const float* scores, std::int64_t rows, float* y) {
    auto* shares = shares_.template as<float>();
    choose(how, scores, rows, shares);
    place(how, rows);
    auto* activated = activated_.template as<float>();
    multiply<true>(weights.gate_up, how, rows, x, how.chosen, activated);
    auto* given = given_.template as<float>();
    multiply<false>(weights.down, how, rows, activated, 1, given);
    launch_shape shape;
    shape.blocks_x = blocks_for(how.cols);
    launch_over_rows(
        device_, static_cast<std::size_t>(rows), shape,
        combine_kernel{given, shares, how.chosen, shape.blocks_x, how.cols, y});
  }

  void choose(const ops::mixture_params& how, const float* scores,
              std::int64_t rows, float* shares) {
    launch_shape shape;
    shape.threads = warp_size;
    launch_over_rows(
        device_, static_cast<std::size_t>(rows), shape,
        route_kernel{scores, how.experts, how.chosen, how.normalise,
                     choices_.template as<std::int32_t>(), shares});
  }

  void place(const ops::mixture_params& how, std::int64_t rows) {
    launch_shape shape;
    const auto segments = place_kernel::segments_for(how.experts);
    const auto threads = static_cast<unsigned>(how.experts * segments);
    shape.threads = (threads + warp_size - 1) / warp_size * warp_size;
    shape.shared_floats = place_kernel::shared_floats(how.experts);
    const place_kernel kernel{
        choices_.template as<const std::int32_t>(),
        static_cast<std::int32_t>(rows * how.chosen),
        how.experts,
        segments,
        static_cast<std::int32_t>(layout::chunk_pairs(how, rows)),
        static_cast<std::int32_t>(chunks_for(how, rows)),
        order_.template as<std::int32_t>(),
        chunks_.template as<expert_chunk>()};
    device_.launch(shape, kernel);
  }

  /// y of each pair; a row of x belongs to `pairs_of_x` of them.
  template <bool Gated>
  void multiply(const stack& by, const ops::mixture_params& how,
                std::int64_t rows, const float* x, std::int32_t pairs_of_x,
                float* y) {
    with_elements(by, by.memory.template as<const void>(),
                  [&]<class Stored>(const Stored*) {
                    const auto launch = [&]<class Product>() {
                      multiply<Product, Gated>(by, how, rows, x, pairs_of_x, y);
                    };
                    if (layout::chunk_pairs(how, rows) == layout::many_pairs)
                      launch.template operator()<many_pairs_product<Stored>>();
                    else
                      launch.template operator()<few_pairs_product<Stored>>();
                  });
  }

  template <class Product, bool Gated>
  void multiply(const stack& by, const ops::mixture_params& how,
                std::int64_t rows, const float* x, std::int32_t pairs_of_x,
                float* y) {
    using kernel = expert_kernel<Product, Gated>;
    assert(layout::chunk_pairs(how, rows) == Product::rows);
    constexpr auto at_once = std::int64_t{kernel::outputs_at_once};
    const auto outputs = Gated ? by.rows / 2 : by.rows;
    launch_shape shape;
    shape.blocks_x = static_cast<unsigned>((outputs + at_once - 1) / at_once);
    shape.blocks_y = static_cast<unsigned>(chunks_for(how, rows));
    shape.threads = kernel::threads;
    shape.shared_floats = Product::shared_floats;
    device_.launch(shape, kernel{by.view(), chunks_.template as<expert_chunk>(),
                                 order_.template as<const std::int32_t>(), x,
                                 pairs_of_x, outputs, by.cols, y});
  }

  static std::int64_t chunks_for(const ops::mixture_params& how,
                                 std::int64_t rows) {
    return layout::chunks_most(how, rows, layout::chunk_pairs(how, rows));
  }

  Device& device_;
  memory choices_, shares_, order_, chunks_;
  memory activated_, given_; ///< of pairs
};

} // namespace troupe::cuda
