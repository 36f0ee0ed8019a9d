#pragma once

#include "cuda/device_memory.hpp"
#include "cuda/kernels/draw.hpp"
#include "cuda/step_clock.hpp"
#include "engine/ops/dense_layout.hpp"
#include "engine/ops/draw.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cstring>
#include <vector>

namespace troupe::cuda {

static_assert(sizeof(draw_note) == ops::gpu_draw_layout::note_bytes);
static_assert(sampling::run_size == ops::gpu_draw_layout::run);

/// Draws on a device; only ids and the log-probabilities that were asked for
/// travel back.
template <class Device>
class device_drawer final : public ops::drawer {
public:
  /// Both outlive it.
  device_drawer(Device& device, step_clock<Device>& clock)
      : device_(device),
        clock_(clock), draws_{under_way{device}, under_way{device}} {
    // nop
  }

  /// For so many rows of so many logits at most.
  void make_room(std::int64_t rows, std::int64_t cols) {
    const ops::gpu_draw_layout sizes{rows, cols};
    grow(device_, rows_, sizes.rows);
    grow(device_, changes_, sizes.changes);
    grow(device_, raw_, sizes.raw);
    grow(device_, masks_, sizes.masks);
    grow(device_, notes_, sizes.notes);
    grow(device_, run_sums_, sizes.run_sums);
    grow(device_, drawn_, sizes.drawn);
    grow(device_, best_, sizes.best);
    for (auto& one : draws_) {
      grow(device_, one.rows, sizes.rows);
      grow(device_, one.changes, sizes.changes);
      grow(device_, one.masks, sizes.masks);
      grow(device_, one.drawn, sizes.drawn);
      grow(device_, one.best, sizes.best);
    }
  }

  void begin(float* logits, std::int64_t cols,
             const ops::draw_plan& plan) override {
    assert(begun_ - ended_ < draws_.size() && cols <= draw_pass::cols_max);
    assert(plan.changes.size() <= ops::draw_plan::changes_max);
    auto& now = draws_[begun_++ % draws_.size()];
    now.wanted.clear();
    for (const auto& row : plan.rows)
      now.wanted.push_back(
          static_cast<std::int32_t>(std::min<std::int64_t>(row.best, cols)));
    const auto rows = plan.rows.size();
    if (rows == 0)
      return;
    make_room(static_cast<std::int64_t>(rows), cols);
    send(plan.rows, now.rows, rows_);
    send(plan.changes, now.changes, changes_);
    send(plan.masks, now.masks, masks_);
    if (std::any_of(plan.changes.begin(), plan.changes.end(),
                    [](auto& change) { return change.id < 0; }))
      name_drawn(rows);
    draw(pass_of(logits, cols, rows), plan);
    now.step = clock_.end();
    receive(drawn_, 2 * rows, now.drawn);
    if (now.has_best())
      receive(best_, 2 * rows * ops::draw_row::best_max, now.best);
    device_.record(now.is_done);
  }

  std::span<const ops::drawn_row> end() override {
    assert(ended_ < begun_);
    const auto& of = draws_[ended_++ % draws_.size()];
    const auto rows = of.wanted.size();
    out_.resize(rows);
    if (rows > 0) {
      device_.wait(of.is_done);
      clock_.done(of.step);
    }
    const auto* drawn = of.drawn.template as<const std::int32_t>();
    const auto* best = of.best.template as<const std::int32_t>();
    constexpr std::size_t width = ops::draw_row::best_max;
    for (std::size_t r = 0; r < rows; ++r) {
      out_[r].id = drawn[r];
      out_[r].logprob = float_at(drawn, rows + r);
      out_[r].best.clear();
      for (std::int32_t k = 0; out_[r].id >= 0 && k < of.wanted[r]; ++k) {
        const auto i = r * width + static_cast<std::size_t>(k);
        out_[r].best.emplace_back(best[i], float_at(best, rows * width + i));
      }
    }
    return out_;
  }

  /// Of the rows of the last draw, on the device; below 0: none.
  std::int32_t* ids() const {
    return drawn_.template as<std::int32_t>();
  }

private:
  using memory = device_memory<Device>;

  /// A draw in the host's memory: what is sent, and what comes back.
  struct under_way {
    explicit under_way(Device& device) : is_done(device) {
      // nop
    }

    bool has_best() const {
      return std::any_of(wanted.begin(), wanted.end(),
                         [](auto k) { return k > 0; });
    }

    host_memory<Device> rows, changes, masks, drawn, best;
    std::vector<std::int32_t> wanted; ///< of the best, by row
    std::uint64_t step = 0;           ///< of the clock
    typename Device::event is_done;
  };

  void name_drawn(std::size_t rows) {
    launch_shape shape;
    shape.blocks_y = static_cast<unsigned>(rows);
    shape.shared_floats = name_drawn_kernel::shared_floats;
    device_.launch(shape,
                   name_drawn_kernel{rows_.template as<const ops::draw_row>(),
                                     changes_.template as<ops::logit_change>(),
                                     ids()});
  }

  draw_pass pass_of(float* logits, std::int64_t cols, std::size_t rows) const {
    auto* best = best_.template as<std::int32_t>();
    draw_pass out;
    out.logits = logits;
    out.cols = cols;
    out.part_cols = draw_pass::part_cols_for(
        cols, device_.blocks_wanted() / static_cast<std::int64_t>(rows));
    out.parts =
        static_cast<std::int32_t>((cols + out.part_cols - 1) / out.part_cols);
    out.rows = rows_.template as<const ops::draw_row>();
    out.changes = changes_.template as<const ops::logit_change>();
    out.raw = raw_.template as<float>();
    out.masks = masks_.template as<const std::uint32_t>();
    out.notes = notes_.template as<draw_note>();
    out.run_sums = run_sums_.template as<double>();
    out.ids = ids();
    out.logprobs = reinterpret_cast<float*>(ids() + rows);
    out.best_ids = best;
    out.best_logprobs =
        reinterpret_cast<float*>(best + rows * ops::draw_row::best_max);
    return out;
  }

  /// Those passes that some row needs.
  void draw(const draw_pass& pass, const ops::draw_plan& plan) {
    using stage = draw_pass::stage;
    using border = draw_pass::border;
    const auto any = [&](auto is_so) {
      return std::any_of(plan.rows.begin(), plan.rows.end(), is_so);
    };
    const auto rows = plan.rows.size();
    const auto launch = [&]<class Kernel>(const Kernel& kernel, bool in_parts) {
      launch_shape shape;
      shape.blocks_x = in_parts ? static_cast<unsigned>(pass.parts) : 1;
      shape.blocks_y = static_cast<unsigned>(rows);
      shape.threads = draw_pass::threads;
      shape.shared_floats = draw_pass::shared_floats(pass.cols);
      device_.launch(shape, kernel);
    };
    const auto search = [&](border of) {
      if (!any([&](auto& row) { return pass.has_border(row, of); }))
        return;
      const int first = draw_pass::first_pass(of);
      for (int i = first; i < first + draw_pass::digits; ++i)
        launch(border_kernel{pass, i}, true);
    };
    if (any([](auto& row) { return row.best >= 0; })) {
      launch(largest_kernel{pass, stage::scored}, true);
      launch(weigh_kernel{pass, stage::scored}, true);
      if (any([](auto& row) { return row.best > 0; })) {
        search(border::best);
        launch(collect_kernel{pass}, true);
      }
      launch(score_kernel{pass}, false);
    }
    if (!plan.changes.empty())
      launch(change_logits_kernel{pass}, false);
    launch(largest_kernel{pass, stage::drawn}, true);
    search(border::top_k);
    search(border::top_p);
    if (any([](auto& row) { return row.inverse != 0; }))
      launch(weigh_kernel{pass, stage::drawn}, true);
    launch(pick_kernel{pass}, false);
  }

  template <class T>
  void send(const std::vector<T>& list, const host_memory<Device>& by,
            const memory& to) {
    const auto bytes = list.size() * sizeof(T);
    assert(bytes <= by.bytes() && bytes <= to.bytes());
    if (bytes == 0)
      return;
    std::memcpy(by.template as<void>(), list.data(), bytes);
    device_.send(to.template as<void>(), by.template as<const void>(), bytes);
  }

  void receive(const memory& from, std::size_t words,
               const host_memory<Device>& to) {
    device_.receive(to.template as<void>(), from.template as<const void>(),
                    words * sizeof(std::int32_t));
  }

  static float float_at(const std::int32_t* words, std::size_t i) {
    return std::bit_cast<float>(words[i]);
  }

  Device& device_;
  step_clock<Device>& clock_;
  memory rows_, changes_, raw_, masks_, notes_, run_sums_, drawn_, best_;
  std::array<under_way, 2> draws_;
  std::size_t begun_ = 0, ended_ = 0;
  std::vector<ops::drawn_row> out_;
};

} // namespace troupe::cuda
