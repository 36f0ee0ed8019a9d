#pragma once

#include "cuda/device_memory.hpp"
#include "cuda/kernels/draw.hpp"
#include "engine/ops/dense_layout.hpp"
#include "engine/ops/draw.hpp"

#include <algorithm>
#include <cassert>
#include <vector>

namespace troupe::cuda {

/// Draws on a device; only ids and the log-probabilities that were asked for
/// travel back.
template <class Device>
class device_drawer final : public ops::drawer {
public:
  /// `device` outlives it.
  explicit device_drawer(Device& device) : device_(device) {
    // nop
  }

  /// For so many rows of so many logits at most.
  void make_room(std::int64_t rows, std::int64_t cols) {
    const ops::gpu_draw_layout sizes{rows, cols};
    grow(rows_, sizes.rows);
    grow(changes_, sizes.changes);
    grow(raw_, sizes.raw);
    grow(masks_, sizes.masks);
    grow(drawn_, sizes.drawn);
    grow(best_, sizes.best);
  }

  void draw(float* logits, std::int64_t cols, const ops::draw_plan& plan,
            std::span<ops::drawn_row> out) override {
    const auto rows = plan.rows.size();
    assert(out.size() == rows && cols <= draw_kernel::cols_max);
    assert(plan.changes.size() <= ops::draw_plan::changes_max);
    if (rows == 0)
      return;
    make_room(static_cast<std::int64_t>(rows), cols);
    send(plan.rows, rows_);
    send(plan.changes, changes_);
    send(plan.masks, masks_);
    auto* ids = drawn_.template as<std::int32_t>();
    auto* best = best_.template as<std::int32_t>();
    const auto best_count = rows * ops::draw_row::best_max;
    const draw_kernel kernel{logits,
                             cols,
                             rows_.template as<const ops::draw_row>(),
                             changes_.template as<const ops::logit_change>(),
                             raw_.template as<float>(),
                             masks_.template as<const std::uint32_t>(),
                             ids,
                             reinterpret_cast<float*>(ids + rows),
                             best,
                             reinterpret_cast<float*>(best + best_count)};
    launch_shape shape;
    shape.blocks_y = static_cast<unsigned>(rows);
    shape.threads = draw_kernel::threads;
    shape.shared_floats = draw_kernel::shared_floats(cols);
    device_.launch(shape, kernel);
    receive(plan, cols, out);
  }

private:
  using memory = device_memory<Device>;

  void grow(memory& what, std::size_t bytes) {
    if (what.bytes() >= bytes)
      return;
    what = {}; // two at once are not planned
    what = memory{device_, bytes};
  }

  template <class T>
  void send(const std::vector<T>& list, const memory& to) {
    assert(list.size() * sizeof(T) <= to.bytes());
    if (!list.empty())
      device_.copy_in(to.template as<void>(), list.data(),
                      list.size() * sizeof(T));
  }

  void receive(const ops::draw_plan& plan, std::int64_t cols,
               std::span<ops::drawn_row> out) {
    const auto rows = plan.rows.size();
    fetch(drawn_, 2 * rows);
    bool any = false;
    for (std::size_t r = 0; r < rows; ++r) {
      out[r].id = received_[r];
      out[r].logprob = float_of_bits(bits_at(rows + r));
      out[r].best.clear();
      any = any || plan.rows[r].best > 0;
    }
    if (!any)
      return;
    constexpr std::size_t width = ops::draw_row::best_max;
    fetch(best_, 2 * rows * width);
    for (std::size_t r = 0; r < rows; ++r) {
      const auto best = std::max(plan.rows[r].best, 0);
      const auto count =
          static_cast<std::size_t>(std::min<std::int64_t>(best, cols));
      for (std::size_t i = r * width; i < r * width + count; ++i)
        if (out[r].id >= 0)
          out[r].best.emplace_back(received_[i],
                                   float_of_bits(bits_at(rows * width + i)));
    }
  }

  void fetch(const memory& from, std::size_t words) {
    received_.resize(words);
    device_.copy_out(received_.data(), from.template as<const void>(),
                     words * sizeof(std::int32_t));
  }

  std::uint32_t bits_at(std::size_t i) const {
    return static_cast<std::uint32_t>(received_[i]);
  }

  Device& device_;
  memory rows_, changes_, raw_, masks_, drawn_, best_;
  std::vector<std::int32_t> received_; ///< floats as their bits
};

} // namespace troupe::cuda
