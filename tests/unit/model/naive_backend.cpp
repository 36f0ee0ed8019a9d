#include "tests/unit/model/naive_backend.hpp"

#include "tests/kernels/ggml_blocks.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

namespace troupe::test {

namespace {

using ops::element_type;

float rounded_to_f16(float value) {
  int exponent = 0;
  std::frexp(value, &exponent);
  auto step = std::max(exponent - 11, -24);
  return std::ldexp(std::nearbyint(std::ldexp(value, -step)), step);
}

float rounded_to_bf16(float value) {
  int exponent = 0;
  std::frexp(value, &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(value, 8 - exponent)),
                    exponent - 8);
}

/// What the inputs of a product are rounded to.
enum class inputs : std::uint8_t { floats, bf16, int8 };

inputs inputs_for(element_type type) {
  if (ops::quantised(type))
    return inputs::int8;
  return type == element_type::bf16 ? inputs::bf16 : inputs::floats;
}

/// Rounds a block of 32 to whole multiples of its largest / 127.
void round_block(float* block) {
  float largest = 0;
  for (int i = 0; i < 32; ++i)
    largest = std::max(largest, std::abs(block[i]));
  if (largest == 0)
    return;
  for (int i = 0; i < 32; ++i)
    block[i] = std::nearbyint(block[i] * (127 / largest)) * (largest / 127);
}

struct naive_weight final : ops::weight {
  std::int64_t rows() const override {
    return rows_;
  }

  std::int64_t cols() const override {
    return cols_;
  }

  std::int64_t bytes() const override {
    return static_cast<std::int64_t>(values_.size() * sizeof(float));
  }

  std::int64_t rows_ = 0;
  std::int64_t cols_ = 0;
  std::vector<float> values_;
  std::vector<inputs> inputs_; ///< per row
};

struct naive_experts final : ops::expert_weights {
  std::int64_t bytes() const override {
    std::int64_t sum = 0;
    for (const auto& [gate_up, down] : all)
      sum += gate_up->bytes() + down->bytes();
    return sum;
  }

  struct one {
    std::unique_ptr<ops::weight> gate_up, down;
  };
  std::vector<one> all;
};

struct naive_buffer final : ops::buffer {
  explicit naive_buffer(std::size_t size) : values_(size) {
    // nop
  }

  float* data() override {
    return values_.data();
  }

  std::int64_t size() const override {
    return static_cast<std::int64_t>(values_.size());
  }

  std::vector<float> values_;
};

struct naive_pool final : ops::kv_pool {
  explicit naive_pool(const ops::kv_shape& shape)
      : shape_(shape), keys_(size()), values_(size()) {
    // nop
  }

  std::size_t size() const {
    return std::size_t{1} * shape_.layers * shape_.blocks *
           shape_.block_tokens * shape_.kv_heads * shape_.head_dim;
  }

  const ops::kv_shape& shape() const override {
    return shape_;
  }

  std::int64_t bytes() const override {
    return static_cast<std::int64_t>(2 * size() * sizeof(float));
  }

  /// Where the vector of a position of a row's sequence begins.
  std::size_t at(std::int32_t layer, std::span<const std::int32_t> table,
                 std::int32_t position, std::int32_t head) const {
    std::size_t place = std::size_t(layer) * shape_.blocks +
                        table[position / shape_.block_tokens];
    place = place * shape_.block_tokens + position % shape_.block_tokens;
    return (place * shape_.kv_heads + head) * shape_.head_dim;
  }

  ops::kv_shape shape_;
  std::vector<float> keys_;
  std::vector<float> values_;
};

void turn(float* head, const ops::rope_params& rope, std::int32_t position) {
  for (std::int32_t i = 0; i < rope.dims / 2; ++i) {
    auto factor = rope.factors.empty() ? 1.0 : double{rope.factors[i]};
    auto angle =
        position / (std::pow(double{rope.theta}, 2.0 * i / rope.dims) * factor);
    auto& a = head[rope.interleaved ? 2 * i : i];
    auto& b = head[rope.interleaved ? 2 * i + 1 : i + rope.dims / 2];
    auto x = double{a};
    auto y = double{b};
    auto cosine = std::cos(angle) * rope.scale;
    auto sine = std::sin(angle) * rope.scale;
    a = static_cast<float>(x * cosine - y * sine);
    b = static_cast<float>(x * sine + y * cosine);
  }
}

class naive_backend final : public ops::backend {
public:
  explicit naive_backend(rounding kind) : rounding_(kind) {
    // nop
  }

  std::string arithmetic() const override {
    return "naive";
  }

  std::string description() const override {
    return "plain loops in double precision";
  }

  result<std::unique_ptr<ops::weight>>
  load(std::span<const ops::matrix_view> parts) override {
    auto out = std::make_unique<naive_weight>();
    out->cols_ = parts.front().cols;
    for (const auto& part : parts) {
      out->rows_ += part.rows;
      auto block = ops::layout_of(part.type).bytes;
      out->inputs_.resize(out->rows_, inputs_for(part.type));
      for (std::size_t at = 0; at < part.bytes.size(); at += block)
        ops::test::append_block(part.type, part.bytes.data() + at,
                                out->values_);
    }
    return std::unique_ptr<ops::weight>{std::move(out)};
  }

  result<std::unique_ptr<ops::expert_weights>>
  load_experts(std::span<const ops::expert_matrices> experts) override {
    auto out = std::make_unique<naive_experts>();
    for (const auto& [gate, up, down] : experts)
      out->all.push_back(
          {load(std::vector{gate, up}).value(), load({&down, 1}).value()});
    return std::unique_ptr<ops::expert_weights>{std::move(out)};
  }

  std::unique_ptr<ops::buffer> allocate(std::int64_t floats) override {
    return std::make_unique<naive_buffer>(floats);
  }

  std::unique_ptr<ops::buffer> upload(std::span<const float> values) override {
    auto out = std::make_unique<naive_buffer>(values.size());
    out->values_.assign(values.begin(), values.end());
    return out;
  }

  result<std::unique_ptr<ops::kv_pool>>
  make_kv_pool(const ops::kv_shape& shape) override {
    return std::unique_ptr<ops::kv_pool>{std::make_unique<naive_pool>(shape)};
  }

  void embed(const ops::weight& table, std::span<const std::int32_t> ids,
             float* out) override {
    const auto& from = dynamic_cast<const naive_weight&>(table);
    for (std::size_t row = 0; row < ids.size(); ++row)
      std::copy_n(from.values_.data() + ids[row] * from.cols_, from.cols_,
                  out + row * from.cols_);
  }

  void rms_norm(const float* x, ops::buffer& w, float eps, std::int64_t rows,
                std::int64_t cols, float* out) override {
    for (std::int64_t row = 0; row < rows; ++row)
      normalise(x + row * cols, w, eps, cols, out + row * cols);
  }

  void layer_norm(const float* x, ops::buffer& w, ops::buffer& b, float eps,
                  std::int64_t rows, std::int64_t cols, float* out) override {
    for (; rows > 0; --rows, x += cols, out += cols) {
      const auto count = static_cast<double>(cols);
      const double mean = std::accumulate(x, x + cols, 0.0) / count;
      double squares = 0;
      for (std::int64_t i = 0; i < cols; ++i)
        squares += (x[i] - mean) * (x[i] - mean);
      const double scale = 1 / std::sqrt(squares / count + eps);
      for (std::int64_t i = 0; i < cols; ++i)
        out[i] = static_cast<float>((x[i] - mean) * scale * w.data()[i] +
                                    b.data()[i]);
    }
  }

  void rms_norm_groups(float* x, const ops::column_groups& columns,
                       ops::buffer& w, float eps, std::int64_t rows) override {
    for (std::int64_t row = 0; row < rows; ++row)
      for (std::int64_t g = 0; g < columns.groups; ++g) {
        auto* at = x + row * columns.stride + columns.first + g * columns.cols;
        normalise(at, w, eps, columns.cols, at);
      }
  }

  void linear(const ops::weight& w, const float* x, std::int64_t rows, float* y,
              bool add, ops::row_role) override {
    const auto& weight = dynamic_cast<const naive_weight&>(w);
    const auto size = static_cast<std::size_t>(rows * weight.cols_);
    std::vector<float> int8(x, x + size), bf16(x, x + size);
    if (rounding_ == rounding::as_cpu) {
      for (std::size_t at = 0; at + 32 <= size; at += 32)
        round_block(int8.data() + at);
      std::transform(x, x + size, bf16.begin(), rounded_to_bf16);
    }
    const auto operands = [&](inputs kind) {
      return kind == inputs::int8   ? int8.data()
             : kind == inputs::bf16 ? bf16.data()
                                    : x;
    };
    for (std::int64_t row = 0; row < rows; ++row)
      for (std::int64_t o = 0; o < weight.rows_; ++o) {
        const auto* from = operands(weight.inputs_[o]);
        double sum = add ? y[row * weight.rows_ + o] : 0.0;
        for (std::int64_t i = 0; i < weight.cols_; ++i)
          sum += double{from[row * weight.cols_ + i]} *
                 weight.values_[o * weight.cols_ + i];
        y[row * weight.rows_ + o] = static_cast<float>(sum);
      }
  }

  void rope_and_store(float* qkv, std::int32_t heads,
                      const ops::rope_params& rope,
                      const ops::batch_view& batch, std::int32_t layer,
                      ops::kv_pool& pool) override {
    auto& store = dynamic_cast<naive_pool&>(pool);
    auto d = store.shape_.head_dim;
    auto kv_heads = store.shape_.kv_heads;
    auto stride = (heads + 2 * kv_heads) * d;
    for (std::size_t row = 0; row < batch.positions.size(); ++row) {
      auto* q = qkv + row * stride;
      auto position = batch.positions[row];
      auto table = batch.tables[batch.sequences[row]];
      for (std::int32_t head = 0; head < heads + kv_heads; ++head)
        turn(q + head * d, rope, position);
      for (std::int32_t head = 0; head < kv_heads; ++head) {
        auto at = store.at(layer, table, position, head);
        auto* k = q + (heads + head) * d;
        keep(store.shape_, k, store.keys_.data() + at);
        keep(store.shape_, k + kv_heads * d, store.values_.data() + at);
      }
    }
  }

  void attention(const float* qkv, const ops::attention_params& how,
                 const ops::batch_view& batch, std::int32_t layer,
                 ops::kv_pool& pool, float* out) override {
    auto& store = dynamic_cast<naive_pool&>(pool);
    auto d = store.shape_.head_dim;
    auto kv_heads = store.shape_.kv_heads;
    auto heads = how.heads;
    auto stride = (heads + 2 * kv_heads) * d;
    for (std::size_t row = 0; row < batch.positions.size(); ++row)
      for (std::int32_t head = 0; head < heads; ++head)
        attend(store, how, batch, row, layer, head / (heads / kv_heads),
               qkv + row * stride + head * d, out + (row * heads + head) * d);
  }

  void silu_mul(const float* gate_up, std::int64_t rows, std::int64_t n,
                float* out) override {
    multiply_activated(gate_up, rows, n, out, [](double gate) {
      return gate / (1 + std::exp(-gate));
    });
  }

  void gelu_mul(const float* gate_up, std::int64_t rows, std::int64_t n,
                float* out) override {
    multiply_activated(gate_up, rows, n, out, [](double gate) {
      auto bent = gate + 0.044715 * gate * gate * gate;
      return 0.5 * gate * (1 + std::tanh(std::sqrt(2 / M_PI) * bent));
    });
  }

  void erf_gelu_mul(const float* gate_up, std::int64_t rows, std::int64_t n,
                    float* out) override {
    multiply_activated(gate_up, rows, n, out, gelu);
  }

  void erf_gelu(float* x, std::int64_t rows, std::int64_t n) override {
    std::transform(x, x + rows * n, x,
                   [](float v) { return static_cast<float>(gelu(v)); });
  }

  void add_bias(float* y, ops::buffer& b, std::int64_t rows,
                std::int64_t cols) override {
    for (std::int64_t i = 0; i < rows * cols; ++i)
      y[i] += b.data()[i % cols];
  }

  void add_scaled(const float* x, float factor, std::int64_t rows,
                  std::int64_t cols, float* y) override {
    for (std::int64_t i = 0; i < rows * cols; ++i)
      y[i] = static_cast<float>(y[i] + double{factor} * x[i]);
  }

  void scale(float* x, float factor, std::int64_t rows,
             std::int64_t cols) override {
    for (std::int64_t i = 0; i < rows * cols; ++i)
      x[i] *= factor;
  }

  void soft_cap(float* x, float cap, std::int64_t rows,
                std::int64_t cols) override {
    for (std::int64_t i = 0; i < rows * cols; ++i)
      x[i] = static_cast<float>(capped(x[i], cap));
  }

  void clear(float* x, std::int64_t rows, std::int64_t cols) override {
    std::fill_n(x, rows * cols, 0.0f);
  }

  std::uint64_t mix_experts(const ops::expert_weights& experts,
                            const ops::mixture_params& how, const float* x,
                            const float* scores, std::int64_t rows,
                            float* y) override {
    const auto& all = dynamic_cast<const naive_experts&>(experts).all;
    const auto score_of = [&](std::int32_t e) {
      return std::isnan(scores[e]) ? -INFINITY : scores[e];
    };
    std::uint64_t read = 0;
    for (; rows > 0; --rows, x += how.cols, y += how.cols) {
      std::vector<std::int32_t> order(how.experts);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
        return score_of(a) > score_of(b);
      });
      const auto share_of = [&](std::int32_t e) {
        return std::exp(double{scores[e]} - score_of(order.front()));
      };
      double sum = 0;
      for (std::int32_t i = 0; i < (how.normalise ? how.chosen : how.experts);
           ++i)
        sum += share_of(order[i]);
      for (std::int32_t i = 0; i < how.chosen; ++i) {
        const auto& [gate_up, down] = all[order[i]];
        std::vector<float> inner(2 * how.inner), product(how.inner),
            given(how.cols);
        linear(*gate_up, x, 1, inner.data(), false, {});
        silu_mul(inner.data(), 1, how.inner, product.data());
        linear(*down, product.data(), 1, given.data(), false, {});
        add_scaled(given.data(), static_cast<float>(share_of(order[i]) / sum),
                   1, how.cols, y);
        read += gate_up->bytes() + down->bytes();
      }
      scores += how.experts;
    }
    return read;
  }

  void gather_rows(const float* x, std::span<const std::int32_t> rows,
                   std::int64_t cols, float* out) override {
    for (std::size_t i = 0; i < rows.size(); ++i)
      std::copy_n(x + rows[i] * cols, cols, out + i * cols);
  }

  void mean_rows(const float* x, std::span<const std::int32_t> ends,
                 std::int64_t cols, float* out) override {
    std::int32_t first = 0;
    for (auto end : ends) {
      for (std::int64_t i = 0; i < cols; ++i) {
        double sum = 0;
        for (std::int64_t row = first; row < end; ++row)
          sum += x[row * cols + i];
        *out++ = static_cast<float>(sum / (end - first));
      }
      first = end;
    }
  }

  void download(const float* from, std::span<float> to) override {
    std::copy_n(from, to.size(), to.data());
  }

private:
  void keep(const ops::kv_shape& shape, const float* from, float* to) const {
    std::copy_n(from, shape.head_dim, to);
    if (rounding_ == rounding::as_cpu)
      std::transform(to, to + shape.head_dim, to,
                     shape.bf16 ? rounded_to_bf16 : rounded_to_f16);
  }

  /// A number of a query, or a weight, as it is multiplied.
  double multiplied(const ops::kv_shape& shape, double x) const {
    return rounding_ == rounding::as_cpu && shape.bf16
               ? rounded_to_bf16(static_cast<float>(x))
               : x;
  }

  static void normalise(const float* x, ops::buffer& w, float eps,
                        std::int64_t cols, float* out) {
    double sum = 0;
    for (std::int64_t i = 0; i < cols; ++i)
      sum += double{x[i]} * x[i];
    auto scale = 1 / std::sqrt(sum / static_cast<double>(cols) + eps);
    for (std::int64_t i = 0; i < cols; ++i)
      out[i] = static_cast<float>(x[i] * scale * w.data()[i]);
  }

  template <class F>
  static void multiply_activated(const float* gate_up, std::int64_t rows,
                                 std::int64_t n, float* out, F activate) {
    for (std::int64_t row = 0; row < rows; ++row)
      for (std::int64_t i = 0; i < n; ++i) {
        const auto* gate = gate_up + row * 2 * n + i;
        out[row * n + i] = static_cast<float>(activate(*gate) * gate[n]);
      }
  }

  static double gelu(double x) {
    return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
  }

  static double capped(double x, double cap) {
    return cap > 0 ? cap * std::tanh(x / cap) : x;
  }

  void attend(const naive_pool& store, const ops::attention_params& how,
              const ops::batch_view& batch, std::size_t row, std::int32_t layer,
              std::int32_t kv_head, const float* q, float* out) const {
    auto d = store.shape_.head_dim;
    auto own = batch.positions[row];
    auto last = own;
    for (auto r = row; r + 1 < batch.positions.size() &&
                       batch.sequences[r + 1] == batch.sequences[row] &&
                       last - own < how.ahead;
         ++r)
      ++last;
    auto first = how.window > 0 ? std::max(0, own + 1 - how.window) : 0;
    auto table = batch.tables[batch.sequences[row]];
    std::vector<double> weights(last + 1 - first);
    for (auto p = first; p <= last; ++p) {
      auto* k = store.keys_.data() + store.at(layer, table, p, kv_head);
      auto& score = weights[p - first];
      for (std::int32_t i = 0; i < d; ++i)
        score += multiplied(store.shape_, q[i]) * k[i] * how.scale;
      score = capped(score, how.soft_cap);
    }
    auto most = *std::max_element(weights.begin(), weights.end());
    double sum = 0;
    for (auto& weight : weights)
      sum += weight = multiplied(store.shape_, std::exp(weight - most));
    std::vector<double> mixed(d);
    for (auto p = first; p <= last; ++p) {
      auto* v = store.values_.data() + store.at(layer, table, p, kv_head);
      for (std::int32_t i = 0; i < d; ++i)
        mixed[i] += weights[p - first] / sum * v[i];
    }
    std::transform(mixed.begin(), mixed.end(), out,
                   [](double value) { return static_cast<float>(value); });
  }

  rounding rounding_;
};

} // namespace

std::unique_ptr<ops::backend> make_naive_backend(rounding kind) {
  return std::make_unique<naive_backend>(kind);
}

} // namespace troupe::test
