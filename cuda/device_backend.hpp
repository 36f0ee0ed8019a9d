#pragma once

#include "cuda/device_drawer.hpp"
#include "cuda/device_memory.hpp"
#include "cuda/device_mixture.hpp"
#include "cuda/device_products.hpp"
#include "cuda/kernels/attention.hpp"
#include "cuda/launches.hpp"
#include "cuda/step_graphs.hpp"
#include "cuda/step_lists.hpp"
#include "cuda/stored_weight.hpp"
#include "engine/ops/backend.hpp"
#include "engine/ops/cpu/rope_table.hpp"
#include "engine/ops/dense_layout.hpp"

#include <algorithm>
#include <bit>
#include <cassert>
#include <list>
#include <new>
#include <optional>
#include <utility>
#include <vector>

namespace troupe::cuda {

/// The operations of a model on a device: a GPU, or one that is emulated. All
/// calls go into one stream, in order; only `download` and the end of a draw
/// wait.
template <class Device>
class device_backend final : public ops::backend {
public:
  /// Choices of products are kept in `cache_folder`, if there is one.
  explicit device_backend(std::unique_ptr<Device> device,
                          const std::filesystem::path& cache_folder = {},
                          ops::kv_type kv = ops::kv_type::f16)
      : device_(std::move(device)), kv_type_(kv), lists_(*device_),
        workspace_(*device_, ops::gpu_operation_bytes),
        part_counts_(*device_, ops::gpu_part_counts * sizeof(std::uint32_t)),
        clock_(*device_), drawer_(*device_, clock_),
        products_(*device_, workspace_, cache_folder), mixture_(*device_),
        graphs_(*device_) {
    device_->zero(part_counts_.template as<void>(), part_counts_.bytes());
  }

  std::string arithmetic() const override {
    const auto* kept = kv_type_ == ops::kv_type::e4m3 ? "e4m3" : "f16";
    return std::string{"cuda-"} + kept + "kv-4-" + device_->name() +
           products_.name();
  }

  std::string description() const override {
    return device_->description();
  }

  result<std::unique_ptr<ops::weight>>
  load(std::span<const ops::matrix_view> parts) override {
    auto dense = make_dense(parts);
    if (!dense)
      return dense.error();
    if (dense->rows > outputs_most)
      return error{errc::unsupported,
                   "weights of more than " + std::to_string(outputs_most) +
                       " outputs are not supported on a GPU"};
    auto made = std::make_unique<device_weight>();
    made->type = dense->type;
    made->is_e4m3 = dense->is_e4m3;
    made->row_scales = dense->row_scales;
    made->rows_ = dense->rows;
    made->cols_ = dense->cols;
    if (auto done = take(*device_, made->memory, dense->bytes.size()); !done)
      return done.error();
    device_->copy_in(made->memory.template as<void>(), dense->bytes.data(),
                     dense->bytes.size());
    made->kind = ops::library_kind_of(parts);
    if (made->kind)
      products_.add(matrix_of(*made));
    return std::unique_ptr<ops::weight>{std::move(made)};
  }

  result<std::unique_ptr<ops::expert_weights>>
  load_experts(std::span<const ops::expert_matrices> experts) override {
    return mixture_.load(experts);
  }

  std::unique_ptr<ops::buffer> allocate(std::int64_t floats) override {
    auto made = std::make_unique<device_floats>(*device_, floats);
    products_.are_written(made->data(), floats); // where others may have been
    device_->zero(made->data(), made->memory.bytes());
    return made;
  }

  std::unique_ptr<ops::buffer> upload(std::span<const float> values) override {
    auto made = std::make_unique<device_floats>(
        *device_, static_cast<std::int64_t>(values.size()));
    products_.are_written(made->data(), made->size());
    device_->copy_in(made->data(), values.data(), values.size_bytes());
    return made;
  }

  result<std::unique_ptr<ops::kv_pool>>
  make_kv_pool(const ops::kv_shape& shape) override {
    if (shape.head_dim > ops::gpu_head_dim_max)
      return error{errc::unsupported,
                   "heads of more than " +
                       std::to_string(ops::gpu_head_dim_max) +
                       " dimensions are not supported on a GPU"};
    if (attention_bytes(shape.head_dim) > device_->shared_bytes_most())
      return error{errc::unsupported,
                   "heads of " + std::to_string(shape.head_dim) +
                       " dimensions need more shared memory than this GPU has"};
    auto made = std::make_unique<device_kv>();
    made->shape_ = shape;
    if (auto done = take(*device_, made->memory, kv_bytes(shape)); !done)
      return done.error();
    device_->zero(made->memory.template as<void>(), made->memory.bytes());
    return std::unique_ptr<ops::kv_pool>{std::move(made)};
  }

  result<std::uint64_t> prepare(const ops::step_bounds& bounds) override {
    assert(bounds.ropes.size() <= ropes_max);
    try {
      lists_.make_room(bounds);
      if (bounds.drawn_rows > 0)
        drawer_.make_room(bounds.drawn_rows, bounds.logits);
      for (const auto& rope : bounds.ropes)
        turns_for(rope).cover(*device_, bounds.positions);
      products_.choose(kv_bytes(bounds.kv));
      products_.make_room(bounds.rows);
      if (bounds.mixture.experts > 0)
        mixture_.make_room(bounds.mixture, bounds.rows);
    } catch (const std::bad_alloc&) {
      return error{errc::limit, "the GPU has no room for what steps need"};
    }
    return ops::gpu_step_layout::bytes(bounds, products_.layout());
  }

  ops::drawer* drawer_of(std::int64_t logits) override {
    return logits <= ops::gpu_drawn_logits_max ? &drawer_ : nullptr;
  }

  bool keeps_steps() const override {
    return true;
  }

  ops::step_gaps gaps() const override {
    return clock_.gaps();
  }

  bool run_step(const ops::step_input& in,
                const std::function<void()>& calls) override {
    products_.forget_rounded();
    lists_.begin(in);
    const end_of_step ends{lists_};
    clock_.begin();
    if (std::any_of(in.ids.begin(), in.ids.end(),
                    [](auto id) { return id < 0; }))
      device_->launch(
          {}, place_drawn_kernel{lists_.ids(),
                                 static_cast<std::int32_t>(in.ids.size()),
                                 drawer_.ids()});
    if (in.repeats)
      return graphs_.run(
          {static_cast<std::int64_t>(in.ids.size()), most_parts(in.batch)},
          calls);
    calls();
    return true;
  }

  void embed(const ops::weight& table, std::span<const std::int32_t> ids,
             float* out) override {
    const auto& w = stored(table);
    assert(!w.is_e4m3);
    const auto* from = lists_.put(ids);
    with_elements(w, [&](const auto* elements) {
      using type = std::remove_cvref_t<decltype(*elements)>;
      const auto blocks = blocks_for(w.cols_);
      over_rows(ids.size(), blocks,
                embed_kernel<type>{elements, from, blocks, w.cols_, out});
    });
  }

  void rms_norm(const float* x, ops::buffer& w, float eps, std::int64_t rows,
                std::int64_t cols, float* out) override {
    normalise(rows, 1, {x, w.data(), nullptr, eps, cols, 0, cols, out});
  }

  void layer_norm(const float* x, ops::buffer& w, ops::buffer& b, float eps,
                  std::int64_t rows, std::int64_t cols, float* out) override {
    normalise(rows, 1, {x, w.data(), b.data(), eps, cols, 0, cols, out});
  }

  void rms_norm_groups(float* x, const ops::column_groups& columns,
                       ops::buffer& w, float eps, std::int64_t rows) override {
    normalise(rows, static_cast<unsigned>(columns.groups),
              {x, w.data(), nullptr, eps, columns.stride, columns.first,
               columns.cols, x});
  }

  bool has_roles() const override {
    return products_.has_any();
  }

  void linear(const ops::weight& weight, const float* x, std::int64_t rows,
              float* y, bool add, ops::row_role of) override {
    const auto& w = stored(weight);
    if (rows <= 0)
      return;
    if (const auto* by = algorithm_for(w, of))
      return products_.multiply(*by, matrix_of(w), x, rows, y, add);
    product_end end;
    end.adds = add;
    multiply(w, x, rows, y, {}, end);
  }

  void linear_joined(const ops::weight& weight, const float* x,
                     std::int64_t rows, const ops::joined_steps& with, float* y,
                     ops::row_role of) override {
    const auto& w = stored(weight);
    if (algorithm_for(w, of) != nullptr)
      return ops::backend::linear_joined(weight, x, rows, with, y, of);
    row_norm norm;
    if (with.norm != nullptr)
      norm = {with.norm->data(), with.epsilon};
    product_end end;
    end.adds = with.adds;
    end.bias = with.bias != nullptr ? with.bias->data() : nullptr;
    end.is_gated = with.gated.has_value();
    end.how = with.gated.value_or(gate::silu);
    multiply(w, x, rows, y, norm, end);
  }

  void rope_and_store(float* qkv, std::int32_t heads,
                      const ops::rope_params& params,
                      const ops::batch_view& batch, std::int32_t layer,
                      ops::kv_pool& pool) override {
    turn_and_store(qkv, heads, turns_of({}, params, batch), batch, layer, pool);
  }

  void attention(const float* qkv, const ops::attention_params& how,
                 const ops::batch_view& batch, std::int32_t layer,
                 ops::kv_pool& pool, float* out) override {
    with_kv(pool, layer, [&](const auto& kv) {
      attend(qkv, std::nullopt, how, batch, kv, out);
    });
  }

  void rope_and_attend(float* qkv, const ops::head_norms& norms,
                       const ops::rope_params& rope,
                       const ops::attention_params& how,
                       const ops::batch_view& batch, std::int32_t layer,
                       ops::kv_pool& pool, float* out) override {
    const auto turns = turns_of(norms, rope, batch);
    if (!are_alone(batch)) {
      turn_and_store(qkv, how.heads, turns, batch, layer, pool);
      return attention(qkv, how, batch, layer, pool, out);
    }
    with_kv(pool, layer,
            [&](const auto& kv) { attend(qkv, turns, how, batch, kv, out); });
  }

  void silu_mul(const float* gate_up, std::int64_t rows, std::int64_t n,
                float* out) override {
    gate_rows(gate::silu, gate_up, rows, n, out);
  }

  void gelu_mul(const float* gate_up, std::int64_t rows, std::int64_t n,
                float* out) override {
    gate_rows(gate::gelu, gate_up, rows, n, out);
  }

  void erf_gelu_mul(const float* gate_up, std::int64_t rows, std::int64_t n,
                    float* out) override {
    gate_rows(gate::erf_gelu, gate_up, rows, n, out);
  }

  void erf_gelu(float* x, std::int64_t rows, std::int64_t n) override {
    change_rows(change::erf_gelu, x, 0, 1, rows, n, x);
  }

  void add_bias(float* y, ops::buffer& b, std::int64_t rows,
                std::int64_t cols) override {
    change_rows(change::add, b.data(), 0, 1, rows, cols, y);
  }

  void add_scaled(const float* x, float factor, std::int64_t rows,
                  std::int64_t cols, float* y) override {
    change_rows(change::add, x, cols, factor, rows, cols, y);
  }

  void scale(float* x, float factor, std::int64_t rows,
             std::int64_t cols) override {
    change_rows(change::scale, x, 0, factor, rows, cols, x);
  }

  void clear(float* x, std::int64_t rows, std::int64_t cols) override {
    change_rows(change::clear, x, 0, 0, rows, cols, x);
  }

  void soft_cap(float* x, float cap, std::int64_t rows,
                std::int64_t cols) override {
    change_rows(change::soft_cap, x, 0, cap, rows, cols, x);
  }

  std::uint64_t mix_experts(const ops::expert_weights& experts,
                            const ops::mixture_params& how, const float* x,
                            const float* scores, std::int64_t rows,
                            float* y) override {
    products_.are_written(y, rows * how.cols);
    return mixture_.run(experts, how, x, scores, rows, y);
  }

  void gather_rows(const float* x, std::span<const std::int32_t> rows,
                   std::int64_t cols, float* out) override {
    const auto blocks = blocks_for(cols);
    over_rows(rows.size(), blocks,
              gather_kernel{x, lists_.put(rows), blocks, cols, out});
  }

  void mean_rows(const float* x, std::span<const std::int32_t> ends,
                 std::int64_t cols, float* out) override {
    const auto blocks = blocks_for(cols);
    over_rows(ends.size(), blocks,
              mean_kernel{x, lists_.put(ends), blocks, cols, out});
  }

  void download(const float* from, std::span<float> to) override {
    device_->copy_out(to.data(), from, to.size_bytes());
  }

private:
  using memory = device_memory<Device>;

  static constexpr std::size_t ropes_max = 4;
  static_assert(ops::gpu_head_dim_max <= head_dim_max);
  static_assert(ops::gpu_drawn_logits_max <= draw_pass::cols_max);

  struct device_weight final : ops::weight {
    std::int64_t rows() const override {
      return rows_;
    }
    std::int64_t cols() const override {
      return cols_;
    }
    std::int64_t bytes() const override {
      return static_cast<std::int64_t>(memory.bytes());
    }
    ops::element_type type = ops::element_type::bf16;
    bool is_e4m3 = false; // then the type means nothing
    std::int64_t row_scales = 1;
    std::optional<ops::library_kind> kind;
    std::int64_t rows_ = 0;
    std::int64_t cols_ = 0;
    device_backend::memory memory;
  };

  struct device_floats final : ops::buffer {
    device_floats(Device& device, std::int64_t floats)
        : size_(floats),
          memory(device, static_cast<std::size_t>(floats) * sizeof(float)) {
      // nop
    }
    float* data() override {
      return memory.template as<float>();
    }
    std::int64_t size() const override {
      return size_;
    }
    std::int64_t size_;
    device_backend::memory memory;
  };

  struct device_kv final : ops::kv_pool {
    const ops::kv_shape& shape() const override {
      return shape_;
    }
    std::int64_t bytes() const override {
      return static_cast<std::int64_t>(memory.bytes());
    }
    ops::kv_shape shape_;
    device_backend::memory memory;
  };

  /// The turns of a rope for positions from 0 on. Grows where nobody prepared.
  struct device_turns {
    explicit device_turns(const ops::rope_params& params) : rope(params) {
      // nop
    }

    void cover(Device& device, std::int64_t positions) {
      using layout = ops::gpu_step_layout;
      if (positions <= covered)
        return;
      covered = layout::turned_positions(positions);
      ops::cpu::rope_table table{rope}; // the host needs none
      table.cover(static_cast<std::int32_t>(covered - 1));
      const auto floats = static_cast<std::size_t>(table.pairs() * 2);
      std::vector<float> all(floats * static_cast<std::size_t>(covered));
      for (std::int32_t p = 0; p < covered; ++p)
        std::copy_n(table.row(p), floats,
                    all.data() + floats * static_cast<std::size_t>(p));
      values = {}; // two at once are not planned
      values = memory{device, layout::turns_bytes(rope, covered)};
      assert(values.bytes() == all.size() * sizeof(float));
      device.copy_in(values.template as<void>(), all.data(), values.bytes());
    }

    ops::rope_params rope;
    std::int64_t covered = 0;
    device_backend::memory values;
  };

  struct end_of_step {
    step_lists<Device>& lists;
    ~end_of_step() {
      lists.end();
    }
  };

  static const device_weight& stored(const ops::weight& w) {
    return static_cast<const device_weight&>(w);
  }

  template <class Kept>
  static kv_view<Kept> view_of(ops::kv_pool& pool, std::int32_t layer) {
    auto& kv = static_cast<device_kv&>(pool);
    const auto& shape = kv.shape_;
    const auto of_layer = 2 * std::int64_t{shape.blocks} * shape.kv_heads *
                          shape.block_tokens * shape.head_dim;
    return {kv.memory.template as<Kept>() + layer * of_layer, shape.kv_heads,
            shape.block_tokens, shape.head_dim};
  }

  /// Of a weight in e4m3.
  static const float* scales_of(const device_weight& w) {
    if (!w.is_e4m3)
      return nullptr;
    const auto* first = w.memory.template as<const std::byte>();
    return reinterpret_cast<const float*>(
        first + ops::e4m3_scales_at(w.rows_, w.cols_));
  }

  /// Of one that has a kind.
  static stored_matrix matrix_of(const device_weight& w) {
    return {w.memory.template as<const void>(),
            scales_of(w),
            {w.rows_, w.cols_, *w.kind},
            w.row_scales};
  }

  /// Null: by our own kernel.
  const product_algorithm* algorithm_for(const device_weight& w,
                                         ops::row_role of) const {
    return w.kind ? products_.algorithm_for(matrix_of(w).shape, of) : nullptr;
  }

  /// By our own kernel.
  void multiply(const device_weight& w, const float* x, std::int64_t rows,
                float* y, const row_norm& norm, product_end end) {
    if (rows <= 0)
      return;
    const auto outputs = end.is_gated ? w.rows_ / 2 : w.rows_;
    end.scales = scales_of(w);
    products_.are_written(y, rows * outputs);
    with_elements(w, [&](const auto* elements) {
      launch_linear(*device_, elements, x, outputs, w.cols_, rows, y, norm,
                    end);
    });
  }

  std::size_t kv_bytes(const ops::kv_shape& shape) const {
    return static_cast<std::size_t>(ops::dense_kv_bytes(shape, kv_type_));
  }

  /// Calls f with the store as what it keeps.
  template <class F>
  void with_kv(ops::kv_pool& pool, std::int32_t layer, F f) const {
    if (kv_type_ == ops::kv_type::e4m3)
      f(view_of<e4m3>(pool, layer));
    else
      f(view_of<f16>(pool, layer));
  }

  template <class F>
  static void with_elements(const device_weight& w, F f) {
    cuda::with_elements(w, w.memory.template as<const void>(), f);
  }

  template <class Kernel>
  void over_rows(std::size_t rows, const launch_shape& of_row,
                 const Kernel& kernel) {
    products_.forget_rounded(); // they may be what this writes
    launch_over_rows(*device_, rows, of_row, kernel);
  }

  template <class Kernel>
  void over_rows(std::size_t rows, unsigned blocks, const Kernel& kernel) {
    launch_shape shape;
    shape.blocks_x = blocks;
    over_rows(rows, shape, kernel);
  }

  void normalise(std::int64_t rows, unsigned groups, norm_kernel kernel) {
    launch_shape shape;
    shape.blocks_x = groups;
    // By the columns alone: a row's sums follow from the threads.
    constexpr std::int64_t many_cols = 1024;
    shape.threads = kernel.cols > many_cols ? 512 : 128;
    shape.shared_floats = shape.threads / warp_size;
    const bool is_whole = kernel.cols == kernel.stride;
    if (is_whole)
      kernel.rounded = products_.place_for_rounded(rows, kernel.cols);
    over_rows(static_cast<std::size_t>(rows), shape, kernel);
    if (kernel.rounded != nullptr)
      products_.are_rounded(kernel.out, rows * kernel.cols);
  }

  void gate_rows(gate how, const float* gate_up, std::int64_t rows,
                 std::int64_t n, float* out) {
    const auto blocks = blocks_for(n);
    auto* rounded = products_.place_for_rounded(rows, n);
    over_rows(static_cast<std::size_t>(rows), blocks,
              gate_kernel{how, gate_up, blocks, n, out, rounded});
    if (rounded != nullptr)
      products_.are_rounded(out, rows * n);
  }

  void change_rows(change how, const float* x, std::int64_t x_stride,
                   float factor, std::int64_t rows, std::int64_t cols,
                   float* y) {
    const auto blocks = blocks_for(cols);
    over_rows(static_cast<std::size_t>(rows), blocks,
              change_kernel{how, x, x_stride, factor, blocks, cols, y});
  }

  /// Calls f with the least number of a head's numbers for which attention is
  /// compiled.
  template <class F>
  static void with_dims(std::int32_t head_dim, F f) {
    if (head_dim <= 32)
      f(std::integral_constant<int, 32>{});
    else if (head_dim <= 64)
      f(std::integral_constant<int, 64>{});
    else if (head_dim <= 128)
      f(std::integral_constant<int, 128>{});
    else if (head_dim <= 256)
      f(std::integral_constant<int, 256>{});
    else
      f(std::integral_constant<int, head_dim_max>{});
  }

  /// Of rows that come many at once. More numbers of a head do not fit into the
  /// registers of one warp.
  template <int Dims>
  static constexpr int team_of_many = Dims <= 128 ? 1 : attention_warps;

  /// Shared memory that attention needs.
  std::size_t attention_bytes(std::int32_t head_dim) const {
    std::size_t out = 0;
    with_dims(head_dim, [&](auto dims) {
      const auto add = [&]<class Kept>(const Kept&) {
        out =
            sizeof(float) *
            std::max(
                attention_shape<Kept, dims, attention_warps>::shared_floats,
                attention_shape<Kept, dims, team_of_many<dims>>::shared_floats);
      };
      if (kv_type_ == ops::kv_type::e4m3)
        add(e4m3{});
      else
        add(f16{});
    });
    return out;
  }

  void turn_and_store(float* qkv, std::int32_t heads, const head_turns& how,
                      const ops::batch_view& batch, std::int32_t layer,
                      ops::kv_pool& pool) {
    with_kv(pool, layer, [&]<class Kept>(const kv_view<Kept>& kv) {
      over_rows(batch.positions.size(), 1,
                rope_kernel<Kept>{qkv, how, heads, lists_.rows_of(batch), kv});
    });
  }

  /// With `turn` q and k are not turned yet, and no row is stored.
  template <class Kept>
  void attend(const float* qkv, const std::optional<head_turns>& turn,
              const ops::attention_params& how, const ops::batch_view& batch,
              const kv_view<Kept>& kv, float* out) {
    attention_work work;
    work.keeps_own = turn.has_value();
    work.turn = turn.value_or(head_turns{});
    work.qkv = qkv;
    work.heads = how.heads;
    work.scale = how.scale;
    work.soft_cap = how.soft_cap;
    work.window = how.window;
    work.ahead = how.ahead;
    work.rows = lists_.rows_of(batch);
    work.out = out;
    const auto rows = static_cast<std::int64_t>(batch.positions.size());
    const auto width = std::int64_t{how.heads} * kv.head_dim;
    work.rounded = products_.place_for_rounded(rows, width);
    const attended by{how.heads, kv.kv_heads, kv.head_dim};
    note(by);
    const auto tiles = count_tiles(batch);
    const auto parts = parts_for(batch, by);
    with_dims(kv.head_dim, [&](auto dims) {
      work.tiles = lists_.tiles();
      attend_rows<Kept, dims>(work, tiles.of_one, parts, kv);
      work.tiles += 2 * tiles.of_one;
      attend_many<Kept, dims>(work, tiles, kv);
    });
    if (work.rounded != nullptr)
      products_.are_rounded(out, rows * width);
  }

  /// Of a tile and its kv head.
  template <class Kernel>
  static std::int32_t blocks_of_tile(const attention_work& work,
                                     std::int32_t kv_heads) {
    const auto queries = work.rows_of_tile * (work.heads / kv_heads);
    return (queries + Kernel::shape::queries - 1) / Kernel::shape::queries;
  }

  template <class Kernel>
  void launch_attention(std::size_t tiles, attention_work& work,
                        const kv_view<typename Kernel::shape::kept>& kv) {
    work.blocks_of_tile = blocks_of_tile<Kernel>(work, kv.kv_heads);
    launch_shape shape;
    shape.blocks_x =
        static_cast<unsigned>(kv.kv_heads * work.blocks_of_tile * work.parts);
    shape.threads = attention_threads;
    shape.shared_floats = Kernel::shape::shared_floats;
    over_rows(tiles, shape, Kernel{work, kv});
  }

  void divide(attention_work& work, std::int32_t parts) const {
    work.parts = parts;
    work.partials = workspace_.template as<float>();
    work.part_counts = part_counts_.template as<std::uint32_t>();
  }

  /// Tiles of one row, as many at once as there is room for their parts.
  template <class Kept, int Dims>
  void attend_rows(attention_work work, std::size_t rows, std::int32_t parts,
                   const kv_view<Kept>& kv) {
    using kernel = attention_kernel<Kept, Dims, attention_warps>;
    if (parts == 1)
      return launch_attention<kernel>(rows, work, kv);
    divide(work, parts);
    const auto at_once = static_cast<std::size_t>(
        rows_with_room({work.heads, kv.kv_heads, kv.head_dim}, parts));
    for (std::size_t first = 0; first < rows; first += at_once) {
      const auto some = std::min(at_once, rows - first);
      launch_attention<kernel>(some, work, kv);
      work.tiles += 2 * some;
    }
  }

  /// Tiles of many rows: where there are few of them, a prompt's last ones
  /// behind what a cache had, in parts too.
  template <class Kept, int Dims>
  void attend_many(attention_work work, const tile_counts& tiles,
                   const kv_view<Kept>& kv) {
    using kernel = attention_kernel<Kept, Dims, team_of_many<Dims>>;
    work.rows_of_tile = tiles.rows_of_many;
    const auto count = static_cast<std::int64_t>(tiles.of_many);
    const auto blocks =
        count * kv.kv_heads * blocks_of_tile<kernel>(work, kv.kv_heads);
    const auto parts = tiles.last_of_many / part_positions + 1;
    const auto floats = count * work.rows_of_tile * work.heads * parts *
                        partial_floats(kv.head_dim);
    constexpr std::int32_t worth_it = 4; // else to add them up takes as long
    if (are_few(blocks) && parts >= worth_it &&
        blocks <= static_cast<std::int64_t>(ops::gpu_part_counts) &&
        floats * std::int64_t{sizeof(float)} <=
            static_cast<std::int64_t>(workspace_.bytes()))
      divide(work, parts);
    launch_attention<kernel>(tiles.of_many, work, kv);
  }

  /// What decides on how attention is divided over blocks.
  struct attended {
    std::int32_t heads, kv_heads, head_dim;
    bool operator==(const attended&) const = default;

    /// Of a row alone: those that read the same keys, 16 at most at once.
    std::int32_t blocks_of_row() const {
      const auto group = heads / kv_heads;
      return kv_heads * ((group + queries_at_once - 1) / queries_at_once);
    }
  };

  /// Rows of one launch if each has so many parts.
  std::int64_t rows_with_room(const attended& by, std::int32_t parts) const {
    const auto floats = by.heads * parts * partial_floats(by.head_dim);
    return std::min(static_cast<std::int64_t>(workspace_.bytes()) /
                        (floats * std::int64_t{sizeof(float)}),
                    static_cast<std::int64_t>(ops::gpu_part_counts) /
                        by.blocks_of_row());
  }

  /// Into how many parts the attention of a row that is a tile is divided: one,
  /// unless few rows would leave much of the device idle.
  std::int32_t parts_for(const ops::batch_view& batch,
                         const attended& by) const {
    const auto rows = static_cast<std::int64_t>(batch.positions.size());
    if (!are_few(rows * by.blocks_of_row()))
      return 1;
    const auto least = parts_least(batch.positions);
    for (const auto parts : {rounded_parts(least), least})
      if (rows_with_room(by, parts) > 0)
        return parts;
    return 1;
  }

  /// Three quarters of what is wanted, all at once, are better than parts.
  bool are_few(std::int64_t blocks) const {
    return 4 * blocks < 3 * device_->blocks_wanted();
  }

  /// Of all ways to attend that were seen (a model has one or two), the most
  /// parts: for so many rows it says how each of them is divided.
  std::int32_t most_parts(const ops::batch_view& batch) const {
    if (seen_.empty())
      return rounded_parts(parts_least(batch.positions));
    std::int32_t out = 1;
    for (const auto& by : seen_)
      out = std::max(out, parts_for(batch, by));
    return out;
  }

  void note(const attended& by) {
    if (std::find(seen_.begin(), seen_.end(), by) == seen_.end())
      seen_.push_back(by);
  }

  /// Rounded up to a power of two, so that few graphs do for all lengths: the
  /// parts behind the last position are empty and add nothing.
  static std::int32_t rounded_parts(std::int32_t parts) {
    return static_cast<std::int32_t>(
        std::bit_ceil(static_cast<std::uint32_t>(parts)));
  }
  static std::int32_t parts_least(std::span<const std::int32_t> positions) {
    return most_of(positions) / part_positions + 1;
  }

  static std::int32_t most_of(std::span<const std::int32_t> positions) {
    std::int32_t most = 0;
    for (auto position : positions)
      most = std::max(most, position);
    return most;
  }

  head_turns turns_of(const ops::head_norms& norms,
                      const ops::rope_params& params,
                      const ops::batch_view& batch) {
    auto& turns = turns_for(params);
    if (lists_.step() == nullptr)
      turns.cover(*device_, most_of(batch.positions) + 1);
    head_turns out;
    out.turns = turns.values.template as<const float>();
    out.pairs = params.dims / 2;
    out.interleaved = params.interleaved;
    out.q_norm = norms.q != nullptr ? norms.q->data() : nullptr;
    out.k_norm = norms.k != nullptr ? norms.k->data() : nullptr;
    out.epsilon = norms.epsilon;
    return out;
  }

  device_turns& turns_for(const ops::rope_params& params) {
    for (auto& one : turns_)
      if (one.rope == params)
        return one;
    if (turns_.size() == ropes_max)
      turns_.pop_front();
    return turns_.emplace_back(params);
  }

  std::unique_ptr<Device> device_; // outlives all that it gave
  ops::kv_type kv_type_;
  step_lists<Device> lists_;
  memory workspace_; ///< of one operation, attention's parts or a product
  /// 0 between launches: one runs to its end, or the device is lost.
  memory part_counts_;
  step_clock<Device> clock_;
  device_drawer<Device> drawer_;
  device_products<Device> products_;
  device_mixture<Device> mixture_;
  step_graphs<Device> graphs_;
  std::list<device_turns> turns_;
  std::vector<attended> seen_;
};

} // namespace troupe::cuda
