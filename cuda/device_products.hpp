#pragma once

#include "cuda/device_memory.hpp"
#include "cuda/kernels/products.hpp"
#include "cuda/launches.hpp"
#include "cuda/product.hpp"
#include "cuda/product_cache.hpp"
#include "engine/ops/dense_layout.hpp"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace troupe::cuda {

/// A weight in a device's memory whose products a library may make.
struct stored_matrix {
  const void* numbers = nullptr;
  const float* scales = nullptr; ///< of e4m3, of each output
  product_shape shape;
  std::int64_t row_scales = 1; ///< ops::matrix_view has what it means
};

/// Room for a library's products of so many rows (ops::gpu_product_layout).
template <class Device>
struct product_room {
  device_memory<Device> rounded, factors, widened, sums;

  void grow_to(Device& device, const ops::gpu_product_layout& layout,
               std::int64_t rows) {
    grow(device, rounded, layout.rounded_bytes(rows));
    grow(device, factors, layout.factor_bytes(rows));
    grow(device, widened, layout.widened_bytes());
    grow(device, sums, layout.sum_bytes(rows));
  }
};

/// Floats that lie elsewhere as bf16 too.
struct rounded_floats {
  const float* first = nullptr;
  std::int64_t floats = 0; ///< 0: none

  bool touches(const float* x, std::int64_t count) const {
    return floats > 0 && at(x) < at(first + floats) &&
           at(first) < at(x + count);
  }

  /// How many lie before `x`, if all `count` from there on are among them.
  std::optional<std::int64_t> find(const float* x, std::int64_t count) const {
    if (floats == 0 || at(x) < at(first) || at(x + count) > at(first + floats))
      return std::nullopt;
    return static_cast<std::int64_t>((at(x) - at(first)) / sizeof(float));
  }

private:
  static std::uintptr_t at(const float* x) {
    return reinterpret_cast<std::uintptr_t>(x);
  }
};

/// Products with weights in bf16, f16 and e4m3, each shape and role by what was
/// chosen for it (product_choice.hpp). A library's algorithm reads rows rounded
/// to bf16, or for weights in f16 to f16. It multiplies e4m3 as bf16, to which
/// it is rounded where it has blocks.
template <class Device>
class device_products {
public:
  using memory = device_memory<Device>;

  /// `device` and `workspace`, which no product keeps, outlive it.
  device_products(Device& device, const memory& workspace,
                  const std::filesystem::path& cache_folder)
      : device_(device), workspace_(workspace),
        cache_(cache_folder, device.description() + ", " + device.library()) {
    // nop
  }

  /// A weight was loaded; it stays until `choose`.
  void add(const stored_matrix& weight) {
    const auto& shape = weight.shape;
    layout_.add(shape.kind, shape.outputs, shape.cols);
    if (has_algorithms(shape))
      loaded_.try_emplace(shape, weight);
  }

  /// Room for steps of so many rows.
  void make_room(std::int64_t rows) {
    const auto before = room_.rounded.bytes();
    room_.grow_to(device_, layout_, rows);
    if (room_.rounded.bytes() != before)
      forget_rounded();
  }

  const ops::gpu_product_layout& layout() const {
    return layout_;
  }

  /// Where who makes rows of floats puts them as bf16 too, so that a product of
  /// a library need not do it; null: none would read them.
  bf16* place_for_rounded(std::int64_t rows, std::int64_t cols) {
    const auto bytes = static_cast<std::size_t>(rows * cols) * sizeof(bf16);
    return reads_bf16_ && bytes <= room_.rounded.bytes()
               ? room_.rounded.template as<bf16>()
               : nullptr;
  }

  /// So many floats from `x` on are there as bf16, until they are written.
  void are_rounded(const float* x, std::int64_t floats) {
    rounded_ = {x, floats};
  }
  void are_written(const float* y, std::int64_t floats) {
    if (rounded_.touches(y, floats))
      forget_rounded();
  }
  void forget_rounded() {
    rounded_ = {};
  }

  /// Chooses for all shapes that were added, as the file says or by trials,
  /// which take no more than `spare_bytes`: what needs more is our own.
  void choose(std::size_t spare_bytes) {
    for (const auto& [shape, weight] : loaded_)
      choose_for(weight, spare_bytes);
    loaded_.clear();
    cache_.save();
  }

  /// Null: by our own kernel.
  const product_algorithm* algorithm_for(const product_shape& shape,
                                         ops::row_role role) const {
    const auto found = choices_.find({shape, role});
    return found == choices_.end() ? nullptr : &found->second;
  }

  /// Names all that is not our own: part of the arithmetic.
  std::string name() const {
    if (choices_.empty())
      return {};
    constexpr std::size_t digits = 16;
    product_choices all; // but for their times
    for (const auto& [of, choice] : choices_)
      all.emplace(of, chosen_product{choice, {}});
    const auto text = write_choices(device_.library(), all);
    return "-" + text.substr(text.size() - digits - 1, digits);
  }

  bool has_any() const {
    return !choices_.empty();
  }

  /// Throws std::runtime_error if the algorithm, which could, cannot.
  void multiply(const product_algorithm& algorithm, const stored_matrix& weight,
                const float* x, std::int64_t rows, float* y, bool add) {
    make_room(rows);
    are_written(y, rows * weight.shape.outputs);
    if (!make(algorithm, weight, x, rows, y, add, room_))
      throw std::runtime_error{"a product of " + std::to_string(rows) +
                               " rows failed on a GPU"};
  }

private:
  class trial;
  using room = product_room<Device>;
  using kind = ops::library_kind;

  /// False if the algorithm cannot.
  bool make(const product_algorithm& algorithm, const stored_matrix& weight,
            const float* x, std::int64_t rows, float* y, bool add,
            const room& in) {
    const auto& [outputs, cols, kind_of] = weight.shape;
    const void* read = kind_of == kind::f16 ? scale(x, rows, cols, in)
                                            : round(x, rows, cols, in);
    if (kind_of == kind::bf16)
      return run(algorithm, weight.numbers, weight.shape, read, rows, y, add);
    const auto at_once = ops::gpu_product_layout::outputs_at_once(outputs);
    for (std::int64_t first = 0; first < outputs; first += at_once) {
      const auto some = std::min(at_once, outputs - first);
      const bool is_f16 = kind_of == kind::f16;
      const auto* numbers =
          is_f16 ? static_cast<const f16*>(weight.numbers) + first * cols
                 : widen(weight, first, some, in);
      if (!run(algorithm, numbers,
               {some, cols, is_f16 ? kind::f16 : kind::bf16}, read, rows,
               in.sums.template as<float>(), false))
        return false;
      place(weight, first, some, rows, y, add, in);
    }
    return true;
  }

  /// `x`: rows as the library reads them.
  bool run(const product_algorithm& algorithm, const void* numbers,
           const product_shape& shape, const void* x, std::int64_t rows,
           float* y, bool add) {
    return device_.multiply(algorithm, {numbers, x, shape, rows, y, add,
                                        workspace_.template as<void>(),
                                        workspace_.bytes()});
  }

  template <class MakeKernel>
  void over_rows(std::int64_t rows, std::int64_t cols, MakeKernel make) {
    launch_shape shape;
    shape.blocks_x = blocks_for(cols);
    launch_over_rows(device_, static_cast<std::size_t>(rows), shape,
                     make(shape.blocks_x));
  }

  const void* round(const float* x, std::int64_t rows, std::int64_t cols,
                    const room& in) {
    if (&in == &room_) {
      if (const auto before = rounded_.find(x, rows * cols))
        return in.rounded.template as<const bf16>() + *before;
      forget_rounded();
    }
    over_rows(rows, cols, [&](unsigned blocks) {
      return round_kernel{x, blocks, cols, in.rounded.template as<bf16>()};
    });
    return in.rounded.template as<const void>();
  }

  const void* scale(const float* x, std::int64_t rows, std::int64_t cols,
                    const room& in) {
    if (&in == &room_)
      forget_rounded();
    launch_shape shape;
    shape.shared_floats = scale_kernel::shared_floats;
    launch_over_rows(device_, static_cast<std::size_t>(rows), shape,
                     scale_kernel{x, cols, in.rounded.template as<f16>(),
                                  in.factors.template as<float>()});
    return in.rounded.template as<const void>();
  }

  const void* widen(const stored_matrix& weight, std::int64_t first,
                    std::int64_t some, const room& in) {
    const auto cols = weight.shape.cols;
    const auto* from = static_cast<const e4m3*>(weight.numbers) + first * cols;
    auto* to = in.widened.template as<bf16>();
    const float* scales = weight.row_scales > 1
                              ? weight.scales + first * weight.row_scales
                              : nullptr; // `place` has them
    constexpr std::int64_t of_block = 8192, most = 4096;
    launch_shape shape;
    shape.blocks_x = static_cast<unsigned>(
        std::clamp(some * cols / of_block, std::int64_t{1}, most));
    device_.launch(shape, widen_kernel{from, some * cols, shape.blocks_x, to,
                                       scales, cols});
    return to;
  }

  void place(const stored_matrix& weight, std::int64_t first, std::int64_t some,
             std::int64_t rows, float* y, bool add, const room& in) {
    const bool is_scaled = weight.scales == nullptr || weight.row_scales > 1;
    const auto* scales = is_scaled ? nullptr : weight.scales + first;
    const float* factors = weight.shape.kind == kind::f16
                               ? in.factors.template as<float>()
                               : nullptr;
    over_rows(rows, some, [&](unsigned blocks) {
      return place_sums_kernel{
          in.sums.template as<float>(), factors,   scales, blocks, some,
          weight.shape.outputs,         y + first, add};
    });
  }

  void choose_for(const stored_matrix& weight, std::size_t spare_bytes) {
    const auto& shape = weight.shape;
    std::optional<trial> tried;
    std::map<product_algorithm, bool> kept;
    for (const auto role : {ops::row_role::prompt, ops::row_role::output}) {
      auto choice = known(shape, role);
      if (!choice) {
        if (trial::bytes_for(shape) > spare_bytes || proposed(shape).empty())
          return;      // our own; not tried, so there is nothing to remember
        cache_.lock(); // another process may have chosen meanwhile
        choice = known(shape, role);
      }
      if (!choice) {
        if (!tried)
          tried.emplace(*this, weight);
        choice = choose_product(*tried, role, kept);
        cache_.add(shape, role, *choice);
      }
      if (choice->what && shape.kind != kind::f16)
        reads_bf16_ = true;
      if (choice->what)
        choices_.insert_or_assign({shape, role}, *choice->what);
    }
  }

  /// What the file says; nothing if it says nothing that can be.
  std::optional<chosen_product> known(const product_shape& shape,
                                      ops::row_role role) {
    const auto* found = cache_.find(shape, role);
    if (found == nullptr || (found->what && !is_there(*found->what, shape)))
      return std::nullopt;
    return *found;
  }

  /// For what the library sees of a shape.
  std::vector<product_algorithm> proposed(product_shape shape) {
    if (shape.kind != kind::bf16)
      shape.outputs = ops::gpu_product_layout::outputs_at_once(shape.outputs);
    if (shape.kind != kind::f16)
      shape.kind = kind::bf16;
    return device_.product_algorithms(shape, workspace_.bytes());
  }

  /// Whether what a file names is one of the library's own proposals still.
  bool is_there(const product_algorithm& algorithm,
                const product_shape& shape) {
    const auto all = proposed(shape);
    return std::find(all.begin(), all.end(), algorithm) != all.end();
  }

  Device& device_;
  const memory& workspace_;
  product_cache cache_;
  ops::gpu_product_layout layout_;
  std::map<product_shape, stored_matrix> loaded_;
  std::map<std::pair<product_shape, ops::row_role>, product_algorithm> choices_;
  room room_;
  bool reads_bf16_ = false; ///< some product of a library
  rounded_floats rounded_;  ///< that room_.rounded holds
};

/// On a weight that is there, with rows made up; takes memory for the time of
/// the trial. Throws std::bad_alloc.
template <class Device>
class device_products<Device>::trial final : public product_trial {
public:
  trial(device_products& of, const stored_matrix& weight)
      : of_(of), weight_(weight),
        x_(of.device_, bytes_of(weight.shape.cols, sizeof(float))),
        y_(of.device_, bytes_of(weight.shape.outputs, sizeof(float))),
        sums_(of.device_, bytes_of(1, sizeof(std::uint64_t))) {
    room_.grow_to(of.device_, layout_for(weight.shape), trial_rows_most);
    std::vector<float> values(
        static_cast<std::size_t>(trial_rows_most * weight.shape.cols));
    std::uint32_t state = 1;
    for (auto& x : values) {
      state = state * 1664525u + 1013904223u;
      x = static_cast<float>(state >> 8) * 0x1p-23f - 1; // [-1, 1)
    }
    of.device_.copy_in(x_.template as<void>(), values.data(), x_.bytes());
    of.device_.zero(y_.template as<void>(), y_.bytes());
  }

  /// What it takes.
  static std::size_t bytes_for(const product_shape& shape) {
    return bytes_of(shape.cols, sizeof(float)) +
           bytes_of(shape.outputs, sizeof(float)) +
           bytes_of(1, sizeof(std::uint64_t)) +
           layout_for(shape).bytes(trial_rows_most);
  }

  std::vector<product_algorithm> proposed() override {
    return of_.proposed(weight_.shape);
  }

  bool begin(const product_algorithm& algorithm) override {
    auto sums = sums_of(algorithm, 0, trial_rows_most);
    whole_ = std::move(sums);
    return !whole_.empty();
  }

  bool same_rows(const product_algorithm& algorithm, std::int64_t first,
                 std::int64_t rows) override {
    const auto sums = sums_of(algorithm, first, rows);
    return !sums.empty() &&
           std::equal(sums.begin(), sums.end(), whole_.begin() + first);
  }

  std::optional<double> seconds(const product_choice& choice,
                                std::int64_t rows) override {
    return of_.device_.seconds([&] {
      if (!choice) {
        run_own(rows);
        return true;
      }
      // Its rows are rounded, each time: a launch that stands for those which
      // our own does not need (a norm, a gate, a bias: one a product).
      return run(*choice, 0, rows);
    });
  }

private:
  static std::size_t bytes_of(std::int64_t cols, std::size_t size) {
    return static_cast<std::size_t>(trial_rows_most * cols) * size;
  }

  static ops::gpu_product_layout layout_for(const product_shape& shape) {
    ops::gpu_product_layout out;
    out.add(shape.kind, shape.outputs, shape.cols);
    return out;
  }

  float* y() const {
    return y_.template as<float>();
  }

  bool run(const product_algorithm& algorithm, std::int64_t first,
           std::int64_t rows) {
    const auto* x = x_.template as<float>() + first * weight_.shape.cols;
    return of_.make(algorithm, weight_, x, rows, y(), false, room_);
  }

  void run_own(std::int64_t rows) {
    product_end end;
    end.scales = weight_.scales;
    const auto run_with = [&](const auto* numbers) {
      launch_linear(of_.device_, numbers, x_.template as<float>(),
                    weight_.shape.outputs, weight_.shape.cols, rows, y(), {},
                    end);
    };
    if (weight_.shape.kind == kind::bf16)
      run_with(static_cast<const bf16*>(weight_.numbers));
    else if (weight_.shape.kind == kind::f16)
      run_with(static_cast<const f16*>(weight_.numbers));
    else if (weight_.shape.kind == kind::block_e4m3)
      run_with(static_cast<const block_e4m3*>(weight_.numbers));
    else
      run_with(static_cast<const e4m3*>(weight_.numbers));
  }

  /// A number for the bits of each row; empty if the algorithm cannot.
  std::vector<std::uint64_t> sums_of(const product_algorithm& algorithm,
                                     std::int64_t first, std::int64_t rows) {
    if (!run(algorithm, first, rows))
      return {};
    launch_shape shape;
    shape.shared_floats = row_sum_kernel::shared_floats;
    auto* sums = sums_.template as<std::uint64_t>();
    launch_over_rows(of_.device_, static_cast<std::size_t>(rows), shape,
                     row_sum_kernel{y(), weight_.shape.outputs, sums});
    std::vector<std::uint64_t> out(static_cast<std::size_t>(rows));
    of_.device_.copy_out(out.data(), sums, out.size() * sizeof(out[0]));
    return out;
  }

  device_products& of_;
  stored_matrix weight_;
  memory x_, y_, sums_;
  room room_;
  std::vector<std::uint64_t> whole_;
};

} // namespace troupe::cuda
