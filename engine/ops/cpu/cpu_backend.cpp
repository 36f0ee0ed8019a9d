#include "engine/ops/cpu/cpu_backend.hpp"

#include "engine/ops/cpu/attention.hpp"
#include "engine/ops/cpu/bf16_tile.hpp"
#include "engine/ops/cpu/expert_plan.hpp"
#include "engine/ops/cpu/expert_router.hpp"
#include "engine/ops/cpu/kernels.hpp"
#include "engine/ops/cpu/matrix_unit.hpp"
#include "engine/ops/cpu/paged_kv.hpp"
#include "engine/ops/cpu/rope_table.hpp"
#include "engine/ops/cpu/team.hpp"
#include "engine/ops/cpu/tiled_weight.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cstdlib>
#include <cstring>

namespace troupe::ops::cpu {

namespace {

/// Below this many floats a loop is not worth waking the team.
constexpr std::int64_t shared_floats = 8192;
constexpr int threads_max = 1024;
constexpr std::size_t rope_tables_max = 4;

class host_buffer final : public buffer {
public:
  explicit host_buffer(std::int64_t floats) : size_(floats) {
    const auto bytes = static_cast<std::size_t>(floats + 16) * sizeof(float);
    auto memory = pages::allocate(bytes);
    if (!memory)
      throw std::bad_alloc{};
    memory_ = std::move(*memory);
  }
  float* data() override {
    return reinterpret_cast<float*>(memory_.data());
  }
  std::int64_t size() const override {
    return size_;
  }

private:
  pages memory_;
  std::int64_t size_;
};

/// The activations of a product in blocks of int8.
class quantised_rows {
public:
  void resize(std::int64_t rows, std::int64_t cols) {
    rows_ = rows;
    blocks_ = cols / block_columns;
    q_.resize(std::max<std::size_t>(q_.size(), rows * cols));
    scale_.resize(std::max<std::size_t>(scale_.size(), rows * blocks_));
  }
  std::int64_t groups() const {
    return (rows_ + group_rows - 1) / group_rows;
  }
  std::int64_t blocks() const {
    return blocks_;
  }
  quantised_group group(std::int64_t g) const {
    const auto first = g * group_rows;
    return {
        q_.data() + first * blocks_ * block_columns,
        scale_.data() + first * blocks_,
        static_cast<int>(std::min<std::int64_t>(group_rows, rows_ - first))};
  }
  void fill(const kernel_table& kernels, const float* x, std::int64_t g) {
    const auto first = g * group_rows, columns = blocks_ * block_columns;
    kernels.quantise(x + first * columns, group(g).rows, blocks_,
                     q_.data() + first * columns,
                     scale_.data() + first * blocks_);
  }

private:
  std::int64_t rows_ = 0;
  std::int64_t blocks_ = 0;
  std::vector<std::int8_t> q_;
  std::vector<block_scale> scale_;
};

/// The activations of a product with weights in bf16.
class rounded_activations {
public:
  void resize(const kernel_table& kernels, std::int64_t rows,
              std::int64_t cols) {
    rows_ = rows;
    cols_ = cols;
    group_bytes_ =
        group_rows * bf16_blocks(cols) * block_columns * kernels.rounded_bytes;
    bytes_.resize(std::max<std::size_t>(bytes_.size(), groups() * group_bytes_ +
                                                           rounded_slack));
  }
  std::int64_t groups() const {
    return (rows_ + group_rows - 1) / group_rows;
  }
  rounded_rows all() const {
    return {bytes_.data(), rows_, bf16_blocks(cols_)};
  }
  void fill(const kernel_table& kernels, const float* x, std::int64_t g) {
    const auto first = g * group_rows;
    kernels.round(
        x + first * cols_,
        static_cast<int>(std::min<std::int64_t>(group_rows, rows_ - first)),
        cols_, bytes_.data() + g * group_bytes_);
  }

private:
  std::int64_t rows_ = 0;
  std::int64_t cols_ = 0;
  std::int64_t group_bytes_ = 0;
  std::vector<std::byte> bytes_;
};

struct tiled_expert {
  std::unique_ptr<weight> gate_up, down;
};

class tiled_experts final : public expert_weights {
public:
  std::int64_t bytes() const override {
    std::int64_t sum = 0;
    for (const auto& one : all)
      sum += one.gate_up->bytes() + one.down->bytes();
    return sum;
  }

  std::vector<tiled_expert> all;
};

const tiled_weight& tiled(const weight& w) {
  return static_cast<const tiled_weight&>(w);
}

template <class Is>
bool any_part(const tiled_weight& w, Is is) {
  return std::any_of(w.parts().begin(), w.parts().end(),
                     [&](const auto& part) { return is(part.type); });
}

/// Gates and what they gate are matrices of their own.
bool has_gates_in_bf16(const tiled_weight& w) {
  const auto& parts = w.parts();
  return parts.size() == 2 && parts[0].rows == parts[1].rows &&
         parts[0].type == element_type::bf16 &&
         parts[1].type == element_type::bf16;
}

/// Tile `within` of a part and `count` - 1 more, of a product whose rows are
/// `stride` floats apart.
tile_output output_of(const weight_part& part, std::int64_t within,
                      std::int64_t count, float* y, std::int64_t stride,
                      bool add) {
  const auto last = within + count - 1;
  return {y + part.first_row + within * tile_lanes, stride,
          static_cast<int>(std::min<std::int64_t>(
              tile_lanes, part.rows - last * tile_lanes)),
          add};
}

/// The number nearest to x that is finite in bf16; the lowest for NaN.
float finite_in_bf16(float x) {
  constexpr auto most = std::bit_cast<float>(0x7f7f0000u);
  const float low = x > -most ? x : -most; // no NaN is greater than anything
  return low < most ? low : most;
}

/// Turns the pairs of one head.
void turn_head(float* head, const float* turns, std::int64_t pairs,
               bool interleaved) {
  for (std::int64_t i = 0; i < pairs; ++i) {
    float& first = interleaved ? head[2 * i] : head[i];
    float& second = interleaved ? head[2 * i + 1] : head[i + pairs];
    const float cosine = turns[2 * i], sine = turns[2 * i + 1];
    const float a = first, b = second;
    first = a * cosine - b * sine;
    second = a * sine + b * cosine;
  }
}

class cpu_backend final : public backend {
public:
  cpu_backend(const kernel_table& kernels, std::string_view name,
              std::unique_ptr<team> workers)
      : kernels_(kernels), name_(name), team_(std::move(workers)),
        attention_(kernels, *team_) {
  }

  std::string arithmetic() const override {
    return "cpu-q8a-bf16a-kv-3";
  }

  std::string description() const override {
    return name_ + ", " + std::to_string(team_->size()) +
           (team_->size() == 1 ? " thread" : " threads");
  }

  result<std::unique_ptr<weight>>
  load(std::span<const matrix_view> parts) override {
    auto packed = tiled_weight::pack(parts, *team_);
    if (!packed)
      return packed.error();
    return std::unique_ptr<weight>{std::move(*packed)};
  }

  result<std::unique_ptr<expert_weights>>
  load_experts(std::span<const expert_matrices> experts) override {
    auto made = std::make_unique<tiled_experts>();
    for (const auto& one : experts) {
      auto gate_up = load(std::array{one.gate, one.up});
      auto down = load({&one.down, 1});
      if (!gate_up || !down)
        return !gate_up ? gate_up.error() : down.error();
      made->all.push_back({std::move(*gate_up), std::move(*down)});
    }
    return std::unique_ptr<expert_weights>{std::move(made)};
  }

  result<std::uint64_t> prepare(const step_bounds& bounds) override {
    if (bounds.mixture.experts == 0)
      return 0;
    make_room(bounds.mixture, bounds.rows);
    return static_cast<std::uint64_t>(
               mixture_floats(bounds.mixture, bounds.rows)) *
           sizeof(float);
  }

  std::unique_ptr<buffer> allocate(std::int64_t floats) override {
    return std::make_unique<host_buffer>(floats);
  }

  std::unique_ptr<buffer> upload(std::span<const float> values) override {
    auto made = std::make_unique<host_buffer>(values.size());
    std::copy(values.begin(), values.end(), made->data());
    return made;
  }

  result<std::unique_ptr<kv_pool>>
  make_kv_pool(const kv_shape& shape) override {
    auto made = paged_kv::make(shape);
    if (!made)
      return made.error();
    return std::unique_ptr<kv_pool>{std::move(*made)};
  }

  void embed(const weight& table, std::span<const std::int32_t> ids,
             float* out) override {
    const auto& w = tiled(table);
    for_rows(ids.size(), w.cols(), [&](std::int64_t r) {
      assert(ids[r] >= 0 && ids[r] < w.rows());
      w.read_row(ids[r], out + r * w.cols());
    });
  }

  void rms_norm(const float* x, buffer& w, float eps, std::int64_t rows,
                std::int64_t cols, float* out) override {
    assert(w.size() >= cols);
    for_rows(rows, cols, [&](std::int64_t r) {
      kernels_.rms_norm(x + r * cols, w.data(), eps, cols, out + r * cols);
    });
  }

  void layer_norm(const float* x, buffer& w, buffer& b, float eps,
                  std::int64_t rows, std::int64_t cols, float* out) override {
    assert(w.size() >= cols && b.size() >= cols);
    for_rows(rows, cols, [&](std::int64_t r) {
      kernels_.layer_norm(x + r * cols, w.data(), b.data(), eps, cols,
                          out + r * cols);
    });
  }

  void rms_norm_groups(float* x, const column_groups& columns, buffer& w,
                       float eps, std::int64_t rows) override {
    assert(w.size() >= columns.cols);
    for_rows(rows, columns.groups * columns.cols, [&](std::int64_t r) {
      float* group = x + r * columns.stride + columns.first;
      for (std::int64_t g = 0; g < columns.groups; ++g, group += columns.cols)
        kernels_.rms_norm(group, w.data(), eps, columns.cols, group);
    });
  }

  void linear(const weight& w, const float* x, std::int64_t rows, float* y,
              bool add, row_role) override {
    const auto& weights = tiled(w);
    if (rows <= 0)
      return;
    if (any_part(weights, quantised))
      quantise(x, rows, weights.cols());
    if (any_part(weights, [](auto t) { return t == element_type::bf16; }))
      round(x, rows, weights.cols());
    team_->run(weights.tiles(), [&](std::int64_t begin, std::int64_t end, int) {
      while (begin < end)
        begin += multiply_tiles(weights, begin, end, {x, rows, y, add});
    });
  }

  void linear_joined(const weight& w, const float* x, std::int64_t rows,
                     const joined_steps& with, float* y, row_role of) override {
    const auto& weights = tiled(w);
    if (!with.gated || kernels_.bf16_gated == nullptr ||
        !has_gates_in_bf16(weights))
      return backend::linear_joined(w, x, rows, with, y, of);
    if (with.norm != nullptr) {
      rms_norm(x, *with.norm, with.epsilon, rows, w.cols(), with.normed);
      x = with.normed;
    }
    round(x, rows, w.cols());
    const auto& gates = weights.parts()[0];
    const auto& ups = weights.parts()[1];
    team_->run(
        gates.tile_count(), [&](std::int64_t begin, std::int64_t end, int) {
          kernels_.bf16_gated(
              gates.tiles + begin * gates.tile_bytes,
              ups.tiles + begin * ups.tile_bytes, static_cast<int>(end - begin),
              rounded_.all(), gate_kernel(*with.gated),
              output_of(gates, begin, end - begin, y, gates.rows, false));
        });
  }

  void rope_and_store(float* qkv, std::int32_t heads, const rope_params& params,
                      const batch_view& batch, std::int32_t layer,
                      kv_pool& pool) override {
    auto& kv = static_cast<paged_kv&>(pool);
    const auto& shape = kv.shape();
    assert(params.dims <= shape.head_dim && params.dims % 2 == 0);
    assert(params.factors.empty() ||
           static_cast<std::int32_t>(params.factors.size()) == params.dims / 2);
    auto& turns = table_for(params);
    for (const auto position : batch.positions)
      turns.cover(position);
    const auto stride = (heads + 2 * shape.kv_heads) * shape.head_dim;
    for_rows(batch.positions.size(), stride, [&](std::int64_t r) {
      float* row = qkv + r * stride;
      const float* turn = turns.row(batch.positions[r]);
      for (std::int32_t h = 0; h < heads + shape.kv_heads; ++h)
        turn_head(row + h * shape.head_dim, turn, turns.pairs(),
                  params.interleaved);
      store(row + heads * shape.head_dim, batch, r, layer, kv);
    });
  }

  void attention(const float* qkv, const attention_params& how,
                 const batch_view& batch, std::int32_t layer, kv_pool& pool,
                 float* out) override {
    auto& kv = static_cast<paged_kv&>(pool);
    const auto& shape = kv.shape();
    assert(how.heads % shape.kv_heads == 0 && how.window >= 0);
    assert(how.ahead >= 0);
    attention_.run({qkv, (how.heads + 2 * shape.kv_heads) * shape.head_dim, how,
                    batch, layer, kv, out});
  }

  void silu_mul(const float* gate_up, std::int64_t rows, std::int64_t n,
                float* out) override {
    for_rows(rows, n, [&](std::int64_t r) {
      const float* gate = gate_up + r * 2 * n;
      kernels_.silu_mul(gate, gate + n, n, out + r * n);
    });
  }

  void gelu_mul(const float* gate_up, std::int64_t rows, std::int64_t n,
                float* out) override {
    for_rows(rows, n, [&](std::int64_t r) {
      const float* gate = gate_up + r * 2 * n;
      kernels_.gelu_mul(gate, gate + n, n, out + r * n);
    });
  }

  void erf_gelu_mul(const float* gate_up, std::int64_t rows, std::int64_t n,
                    float* out) override {
    for_rows(rows, n, [&](std::int64_t r) {
      const float* gate = gate_up + r * 2 * n;
      kernels_.erf_gelu_mul(gate, gate + n, n, out + r * n);
    });
  }

  void erf_gelu(float* x, std::int64_t rows, std::int64_t n) override {
    for_rows(rows, n, [&](std::int64_t r) {
      kernels_.erf_gelu(x + r * n, n, x + r * n);
    });
  }

  void add_bias(float* y, buffer& b, std::int64_t rows,
                std::int64_t cols) override {
    assert(b.size() >= cols);
    for_rows(rows, cols, [&](std::int64_t r) {
      kernels_.add_scaled(b.data(), 1.0f, cols, y + r * cols);
    });
  }

  void add_scaled(const float* x, float factor, std::int64_t rows,
                  std::int64_t cols, float* y) override {
    for_rows(rows, cols, [&](std::int64_t r) {
      kernels_.add_scaled(x + r * cols, factor, cols, y + r * cols);
    });
  }

  void scale(float* x, float factor, std::int64_t rows,
             std::int64_t cols) override {
    for_rows(rows, cols, [&](std::int64_t r) {
      kernels_.scale(x + r * cols, factor, cols);
    });
  }

  void soft_cap(float* x, float cap, std::int64_t rows,
                std::int64_t cols) override {
    for_rows(rows, cols, [&](std::int64_t r) {
      kernels_.soft_cap(x + r * cols, cap, cols);
    });
  }

  /// Expert by expert, in ascending order: so a row's sum has one order.
  void clear(float* x, std::int64_t rows, std::int64_t cols) override {
    std::fill_n(x, rows * cols, 0.0f);
  }

  std::uint64_t mix_experts(const expert_weights& experts,
                            const mixture_params& how, const float* x,
                            const float* scores, std::int64_t rows,
                            float* y) override {
    make_room(how, rows);
    plan_.make_room(rows, how.chosen);
    router_.run(kernels_, scores, rows, how.experts, how.normalise,
                plan_.routing());
    plan_.sort(how.experts);
    const auto& all = static_cast<const tiled_experts&>(experts).all;
    std::uint64_t read = 0;
    for (std::int32_t i = 0; i < how.experts; ++i)
      if (const auto chosen = plan_.rows_of(i); !chosen.rows.empty())
        read += run_expert(all[static_cast<std::size_t>(i)], how, chosen, x, y);
    return read;
  }

  void gather_rows(const float* x, std::span<const std::int32_t> rows,
                   std::int64_t cols, float* out) override {
    for (std::size_t i = 0; i < rows.size(); ++i)
      std::memcpy(out + i * cols, x + rows[i] * cols, cols * sizeof(float));
  }

  /// Row after row is added, the sum then multiplied by 1 / their number.
  void mean_rows(const float* x, std::span<const std::int32_t> ends,
                 std::int64_t cols, float* out) override {
    for_rows(ends.size(), cols, [&](std::int64_t s) {
      const auto first = s > 0 ? ends[s - 1] : 0;
      const auto rows = ends[s] - first;
      assert(rows > 0);
      float* sum = out + s * cols;
      std::memcpy(sum, x + first * cols, cols * sizeof(float));
      for (std::int64_t r = first + 1; r < ends[s]; ++r)
        kernels_.add_scaled(x + r * cols, 1.0f, cols, sum);
      kernels_.scale(sum, 1.0f / static_cast<float>(rows), cols);
    });
  }

  void download(const float* from, std::span<float> to) override {
    std::memcpy(to.data(), from, to.size_bytes());
  }

private:
  /// Calls f for each row; alone if the whole is small.
  template <class F>
  void for_rows(std::int64_t rows, std::int64_t row_floats, F f) {
    const auto some = [&](std::int64_t begin, std::int64_t end, int) {
      for (auto r = begin; r < end; ++r)
        f(r);
    };
    if (rows * row_floats < shared_floats)
      some(0, rows, 0);
    else
      team_->run(rows, some);
  }

  void make_room(const mixture_params& how, std::int64_t rows) {
    const auto make = [&](std::unique_ptr<buffer>& of, std::int64_t floats) {
      if (!of || of->size() < floats)
        of = allocate(floats);
    };
    make(room_.input, rows * how.cols);
    make(room_.gate_up, rows * 2 * how.inner);
    make(room_.activated, rows * how.inner);
    make(room_.given, rows * how.cols);
  }

  /// Gives the bytes of weights that it read.
  std::uint64_t run_expert(const tiled_expert& weights,
                           const mixture_params& how, const expert_rows& chosen,
                           const float* x, float* y) {
    const auto rows = static_cast<std::int64_t>(chosen.rows.size());
    gather_rows(x, chosen.rows, how.cols, room_.input->data());
    linear(*weights.gate_up, room_.input->data(), rows, room_.gate_up->data(),
           false, row_role::output);
    silu_mul(room_.gate_up->data(), rows, how.inner, room_.activated->data());
    linear(*weights.down, room_.activated->data(), rows, room_.given->data(),
           false, row_role::output);
    const float* given = room_.given->data();
    for_rows(rows, how.cols, [&](std::int64_t i) {
      kernels_.add_scaled(given + i * how.cols, chosen.shares[i], how.cols,
                          y + chosen.rows[i] * how.cols);
    });
    return static_cast<std::uint64_t>(weights.gate_up->bytes() +
                                      weights.down->bytes());
  }

  void quantise(const float* x, std::int64_t rows, std::int64_t cols) {
    quantised_.resize(rows, cols);
    for_rows(quantised_.groups(), std::min<std::int64_t>(rows, 16) * cols,
             [&](std::int64_t g) { quantised_.fill(kernels_, x, g); });
  }

  void round(const float* x, std::int64_t rows, std::int64_t cols) {
    rounded_.resize(kernels_, rows, cols);
    for_rows(rounded_.groups(), std::min<std::int64_t>(rows, 16) * cols,
             [&](std::int64_t g) { rounded_.fill(kernels_, x, g); });
  }

  gated_row gate_kernel(gate how) const {
    switch (how) {
    case gate::silu:
      return kernels_.silu_mul;
    case gate::gelu:
      return kernels_.gelu_mul;
    case gate::erf_gelu:
      return kernels_.erf_gelu_mul;
    }
    return nullptr;
  }

  struct product {
    const float* x;
    std::int64_t rows;
    float* y;
    bool add;
  };

  /// Tiles from `begin` on, before `end` and of one part; gives their number.
  std::int64_t multiply_tiles(const tiled_weight& w, std::int64_t begin,
                              std::int64_t end, const product& p) {
    const auto& part = w.part_of_tile(begin);
    const auto within = begin - part.first_tile;
    const auto count = part.type == element_type::bf16
                           ? std::min(end - begin, part.tile_count() - within)
                           : 1;
    const auto* from = part.tiles + within * part.tile_bytes;
    auto out = output_of(part, within, count, p.y, w.rows(), p.add);
    switch (part.type) {
    case element_type::f32:
      kernels_.f32(from, w.cols(), p.x, p.rows, out);
      break;
    case element_type::f16:
      kernels_.f16(from, w.cols(), p.x, p.rows, out);
      break;
    case element_type::bf16:
      kernels_.bf16(from, static_cast<int>(count), rounded_.all(), out);
      break;
    default:
      multiply_quantised(kernels_.quantised[quantised_index(part.type)], from,
                         out);
    }
    return count;
  }

  void multiply_quantised(quantised_tile kernel, const std::byte* tile,
                          tile_output out) {
    for (std::int64_t g = 0; g < quantised_.groups(); ++g) {
      kernel(tile, quantised_.blocks(), quantised_.group(g), out);
      out.y += group_rows * out.stride;
    }
  }

  /// Stores the keys and values of row r, which `kv_row` holds, in the pool.
  void store(const float* kv_row, const batch_view& batch, std::int64_t r,
             std::int32_t layer, paged_kv& kv) {
    const auto& shape = kv.shape();
    const auto position = batch.positions[r];
    const auto block =
        batch.tables[batch.sequences[r]][position / shape.block_tokens];
    assert(block >= 0 && block < shape.blocks);
    const auto within = position % shape.block_tokens;
    const auto dims = shape.head_dim;
    for (std::int32_t h = 0; h < shape.kv_heads; ++h) {
      const auto group = within / 16 * 16 * dims;
      std::uint16_t* keys = kv.keys(layer, block, h) + group;
      std::uint16_t* values = kv.values(layer, block, h) + group;
      const float* key = kv_row + h * dims;
      const float* value = key + shape.kv_heads * dims;
      if (shape.bf16)
        store_in_pairs(key, value, within % 16, dims, keys, values);
      else
        store(key, value, within % 16, dims, keys, values);
    }
  }

  /// Position t of a group of 16, as attention_span has it.
  void store(const float* key, const float* value, int t, std::int32_t dims,
             std::uint16_t* keys, std::uint16_t* values) {
    for (std::int32_t d = 0; d < dims; d += 16) {
      std::uint16_t halves[16];
      kernels_.to_f16(key + d, 16, halves);
      for (int i = 0; i < 16; ++i)
        keys[(d + i) * 16 + t] = halves[i];
    }
    kernels_.to_f16(value, dims, values + t * dims);
  }

  /// The same in bf16. A value that is NaN or infinite would reach queries that
  /// do not see it (times 0), so it becomes a finite one; what is wrong shows
  /// in its key, which is made of the same numbers.
  void store_in_pairs(const float* key, const float* value, int t,
                      std::int32_t dims, std::uint16_t* keys,
                      std::uint16_t* values) {
    for (std::int32_t d = 0; d < dims; d += 16) {
      std::uint16_t halves[16];
      kernels_.to_bf16(key + d, 16, halves);
      for (int i = 0; i < 16; i += 2)
        std::memcpy(keys + (d + i) / 2 * 32 + t * 2, halves + i, 4);
      float finite[16];
      for (int i = 0; i < 16; ++i)
        finite[i] = finite_in_bf16(value[d + i]);
      kernels_.to_bf16(finite, 16, halves);
      for (int i = 0; i < 16; ++i)
        values[(t / 2 * dims + d + i) * 2 + t % 2] = halves[i];
    }
  }

  rope_table& table_for(const rope_params& params) {
    const auto known =
        std::find_if(ropes_.begin(), ropes_.end(),
                     [&](const auto& table) { return table.is_for(params); });
    if (known != ropes_.end())
      return *known;
    if (ropes_.size() == rope_tables_max)
      ropes_.erase(ropes_.begin());
    return ropes_.emplace_back(params);
  }

  const kernel_table& kernels_;
  std::string name_;
  std::unique_ptr<team> team_;
  cpu::attention attention_;
  expert_router router_;
  expert_plan plan_;
  struct {
    std::unique_ptr<buffer> input, gate_up, activated, given;
  } room_; ///< of one expert's rows
  quantised_rows quantised_;
  rounded_activations rounded_;
  std::vector<rope_table> ropes_;
};

struct named_set {
  std::string_view name;
  instruction_set isa;
  std::string_view description;
  const kernel_table& (*kernels)();
};

constexpr named_set sets[] = {
    {"plain", instruction_set::plain, "plain", plain_kernels},
    {"avx2", instruction_set::avx2, "avx2", avx2_kernels},
    {"avx512", instruction_set::avx512, "avx512-vnni", avx512_kernels},
    {"amx", instruction_set::amx, "amx", amx_kernels},
};

result<named_set> if_present(const named_set& set) {
  if (!machine_has(set.isa))
    return error{errc::unsupported, "this machine cannot run the " +
                                        std::string{set.name} + " kernels"};
  return set;
}

result<named_set> choose(const options& o) {
  if (o.isa)
    return if_present(sets[static_cast<int>(*o.isa)]);
  const char* wanted = std::getenv("TROUPE_CPU");
  if (wanted == nullptr || *wanted == 0) {
    auto best = std::size(sets) - 1;
    while (!machine_has(sets[best].isa))
      --best;
    return sets[best];
  }
  for (const auto& set : sets)
    if (set.name == wanted)
      return if_present(set);
  return error{errc::invalid_argument,
               "TROUPE_CPU is \"" + std::string{wanted} +
                   "\"; it may be plain, avx2, avx512 or amx"};
}

} // namespace

bool machine_has(instruction_set isa) {
  switch (isa) {
  case instruction_set::plain:
    return true;
  case instruction_set::avx2:
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
  case instruction_set::avx512:
    return machine_has(instruction_set::avx2) &&
           __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
  case instruction_set::amx:
    return machine_has(instruction_set::avx512) && matrix_unit_as_written();
  }
  return false;
}

result<std::unique_ptr<backend>> make_backend(const options& o) {
  const auto set = choose(o);
  if (!set)
    return set.error();
  if (o.threads < 0 || o.threads > threads_max)
    return error{errc::invalid_argument,
                 "the number of threads must be from 0 to " +
                     std::to_string(threads_max) + ", not " +
                     std::to_string(o.threads)};
  auto workers = team::make(o.threads == 0 ? usable_cores() : o.threads);
  if (!workers)
    return workers.error();
  return std::unique_ptr<backend>{std::make_unique<cpu_backend>(
      set->kernels(), set->description, std::move(*workers))};
}

} // namespace troupe::ops::cpu
