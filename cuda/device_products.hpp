#pragma once

#include "cuda/device_memory.hpp"
#include "cuda/launches.hpp"
#include "cuda/product.hpp"
#include "cuda/product_cache.hpp"
#include "engine/ops/dense_layout.hpp"

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace troupe::cuda {

/// Products with weights in bf16, each shape and role by what was chosen for it
/// (product_choice.hpp). A library's algorithm reads rows rounded to bf16.
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
  void add(const product_shape& shape, const bf16* weight) {
    widest_ = std::max(widest_, shape.cols);
    if (has_algorithms(shape))
      loaded_.try_emplace(shape, weight);
  }

  /// Room for steps of so many rows.
  void make_room(std::int64_t rows) {
    grow(device_, rounded_, ops::gpu_step_layout::rounded_bytes(rows, widest_));
  }

  std::int64_t widest() const {
    return widest_;
  }

  /// Chooses for all shapes that were added, as the file says or by trials,
  /// which take no more than `spare_bytes`: what needs more is our own.
  void choose(std::size_t spare_bytes) {
    for (const auto& [shape, weight] : loaded_)
      choose_for(shape, weight, spare_bytes);
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
    const auto text =
        write_choices(device_.library(), {choices_.begin(), choices_.end()});
    return "-" + text.substr(text.size() - digits - 1, digits);
  }

  bool has_any() const {
    return !choices_.empty();
  }

  /// Throws std::runtime_error if the algorithm, which could, cannot.
  void multiply(const product_algorithm& algorithm, const bf16* weight,
                const product_shape& shape, const float* x, std::int64_t rows,
                float* y, bool add) {
    make_room(rows);
    auto* rounded = rounded_.template as<bf16>();
    round(x, rows, shape.cols, rounded);
    if (!device_.multiply(algorithm,
                          product_of(weight, rounded, shape, rows, y, add)))
      throw std::runtime_error{"a product of " + std::to_string(rows) +
                               " rows failed on a GPU"};
  }

private:
  class trial;

  product product_of(const bf16* weight, const bf16* x,
                     const product_shape& shape, std::int64_t rows, float* y,
                     bool add) const {
    return {weight,
            x,
            shape,
            rows,
            y,
            add,
            workspace_.template as<void>(),
            workspace_.bytes()};
  }

  void round(const float* x, std::int64_t rows, std::int64_t cols, bf16* to) {
    launch_shape shape;
    shape.blocks_x = blocks_for(cols);
    launch_over_rows(device_, static_cast<std::size_t>(rows), shape,
                     round_kernel{x, shape.blocks_x, cols, to});
  }

  void choose_for(const product_shape& shape, const bf16* weight,
                  std::size_t spare_bytes) {
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
          tried.emplace(*this, shape, weight);
        choice = choose_product(*tried, role, kept);
        cache_.add(shape, role, *choice);
      }
      if (*choice)
        choices_.insert_or_assign({shape, role}, **choice);
    }
  }

  /// What the file says; nothing if it says nothing that can be.
  std::optional<product_choice> known(const product_shape& shape,
                                      ops::row_role role) {
    const auto* found = cache_.find(shape, role);
    if (found == nullptr || (*found && !is_there(**found, shape)))
      return std::nullopt;
    return *found;
  }

  std::vector<product_algorithm> proposed(const product_shape& shape) {
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
  std::int64_t widest_ = 0; ///< columns of a weight
  std::map<product_shape, const bf16*> loaded_;
  std::map<std::pair<product_shape, ops::row_role>, product_algorithm> choices_;
  memory rounded_;
};

/// On a weight that is there, with rows made up; takes memory for the time of
/// the trial. Throws std::bad_alloc.
template <class Device>
class device_products<Device>::trial final : public product_trial {
public:
  trial(device_products& of, const product_shape& shape, const bf16* weight)
      : of_(of), shape_(shape), weight_(weight),
        x_(of.device_, bytes_of(shape.cols, sizeof(float))),
        rounded_(of.device_, bytes_of(shape.cols, sizeof(bf16))),
        y_(of.device_, bytes_of(shape.outputs, sizeof(float))),
        sums_(of.device_, bytes_of(1, sizeof(std::uint64_t))) {
    std::vector<float> values(
        static_cast<std::size_t>(trial_rows_most * shape.cols));
    std::uint32_t state = 1;
    for (auto& x : values) {
      state = state * 1664525u + 1013904223u;
      x = static_cast<float>(state >> 8) * 0x1p-23f - 1; // [-1, 1)
    }
    of.device_.copy_in(x_.template as<void>(), values.data(), x_.bytes());
    of.round(x_.template as<float>(), trial_rows_most, shape.cols, rounded());
    of.device_.zero(y_.template as<void>(), y_.bytes());
  }

  /// What it takes.
  static std::size_t bytes_for(const product_shape& shape) {
    return bytes_of(shape.cols, sizeof(float) + sizeof(bf16)) +
           bytes_of(shape.outputs, sizeof(float)) +
           bytes_of(1, sizeof(std::uint64_t));
  }

  std::vector<product_algorithm> proposed() override {
    return of_.proposed(shape_);
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
    const auto once = [&] {
      if (!choice) {
        launch_linear(of_.device_, weight_, x_.template as<float>(),
                      shape_.outputs, shape_.cols, rows, y(), false);
        return true;
      }
      of_.round(x_.template as<float>(), rows, shape_.cols, rounded());
      return run(*choice, 0, rows);
    };
    return of_.device_.seconds(once);
  }

private:
  static std::size_t bytes_of(std::int64_t cols, std::size_t size) {
    return static_cast<std::size_t>(trial_rows_most * cols) * size;
  }

  bf16* rounded() const {
    return rounded_.template as<bf16>();
  }
  float* y() const {
    return y_.template as<float>();
  }

  bool run(const product_algorithm& algorithm, std::int64_t first,
           std::int64_t rows) {
    return of_.device_.multiply(
        algorithm, of_.product_of(weight_, rounded() + first * shape_.cols,
                                  shape_, rows, y(), false));
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
                     row_sum_kernel{y(), shape_.outputs, sums});
    std::vector<std::uint64_t> out(static_cast<std::size_t>(rows));
    of_.device_.copy_out(out.data(), sums, out.size() * sizeof(out[0]));
    return out;
  }

  device_products& of_;
  product_shape shape_;
  const bf16* weight_;
  memory x_, rounded_, y_, sums_;
  std::vector<std::uint64_t> whole_;
};

} // namespace troupe::cuda
