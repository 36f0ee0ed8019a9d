#pragma once

#include "engine/codec/error.hpp"
#include "engine/ops/draw.hpp"
#include "engine/ops/gate.hpp"
#include "engine/ops/step_gaps.hpp"
#include "engine/ops/tensor.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace troupe::ops {

/// A weight in the form its backend computes with. Opaque to everyone else.
class weight {
public:
  virtual ~weight() = default;
  virtual std::int64_t rows() const = 0; ///< outputs
  virtual std::int64_t cols() const = 0; ///< inputs
  /// Bytes one pass over the weight reads.
  virtual std::int64_t bytes() const = 0;
};

/// The matrices of one expert: down(silu(gate x) * up x).
struct expert_matrices {
  matrix_view gate, up; ///< of the same shape
  matrix_view down;
};

/// The experts of a layer in the form their backend computes with. Opaque to
/// everyone else.
class expert_weights {
public:
  virtual ~expert_weights() = default;
  virtual std::int64_t bytes() const = 0; ///< of all
};

/// How a model mixes experts. All of its layers have as many.
struct mixture_params {
  std::int32_t experts = 0; ///< 0: it has none
  std::int32_t chosen = 0;  ///< per row
  bool normalise = false;   ///< shares of the chosen ones add up to 1
  std::int64_t cols = 0;    ///< of a row, and of what an expert gives
  std::int64_t inner = 0;   ///< outputs of an expert's gate
};

/// Floats in the backend's memory, zeroed when made.
class buffer {
public:
  virtual ~buffer() = default;
  virtual float*
  data() = 0; ///< backend memory: only backend calls may touch it
  virtual std::int64_t size() const = 0; ///< floats
};

/// Shape of the paged store of keys and values.
struct kv_shape {
  std::int32_t layers = 0;
  std::int32_t kv_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t block_tokens = 0; ///< positions per block
  std::int32_t blocks = 0;       ///< blocks in the pool
  /// The model's numbers are bf16: keys, values and queries may be rounded to
  /// it. A backend need not.
  bool bf16 = false;
};

/// Keys and values of all layers, in `blocks` blocks. The layout inside is the
/// backend's. A block is named by its index; who owns it is kv_cache's matter.
class kv_pool {
public:
  virtual ~kv_pool() = default;
  virtual const kv_shape& shape() const = 0;
  virtual std::int64_t bytes() const = 0;
};

/// The rows of one step. Row r is the token at `positions[r]` of sequence
/// `sequences[r]`, whose position p lives in block
/// `tables[sequences[r]][p / block_tokens]`. Rows of one sequence stand
/// together, in ascending positions; within a step a row sees the keys of
/// earlier rows of its sequence (and its own), through the pool.
struct batch_view {
  std::span<const std::int32_t> positions;
  std::span<const std::int32_t> sequences;
  std::span<const std::span<const std::int32_t>> tables;
};

/// Rotary position embedding (Su et al., 2021). Dimension pair i turns by
/// position / (theta^(2i/dims) * factors[i]); `factors` is empty or dims/2 long
/// (every kind of rope scaling comes as factors). Dimensions from `dims` on are
/// left as they are; with dims = 0 nothing turns.
struct rope_params {
  float theta = 10000.0f;
  std::int32_t dims = 0;
  /// true: pairs are neighbours (2i, 2i+1), as GGUF stores Llama; false: pairs
  /// are (i, i + dims/2), as Hugging Face stores it.
  bool interleaved = true;
  std::vector<float> factors;
  float scale = 1.0f; ///< of cosine and sine (YaRN, LongRoPE)

  bool operator==(const rope_params&) const = default;
};

/// What the steps of a model have at most.
struct step_bounds {
  std::int64_t rows = 0;
  std::int64_t sequences = 0;
  std::int64_t table_entries = 0; ///< blocks of all sequences' tables together
  std::int32_t positions = 0;     ///< of a sequence
  std::vector<rope_params> ropes; ///< all that differ
  std::int64_t drawn_rows = 0;    ///< from which tokens are drawn
  std::int64_t logits = 0;        ///< of such a row
  kv_shape kv;                    ///< of the store that is made next
  mixture_params mixture;         ///< of the layers that have one
};

/// Weights of an RMS norm of each head of q, and of k; null: there is none.
struct head_norms {
  buffer* q = nullptr;
  buffer* k = nullptr;
  float epsilon = 0;
};

/// How a layer attends.
struct attention_params {
  std::int32_t heads = 0;  ///< of the queries
  float scale = 1.0f;      ///< of the scores q . k
  float soft_cap = 0;      ///< c > 0: scores become c * tanh(score / c)
  std::int32_t window = 0; ///< w > 0: a row sees its last w positions alone
  /// So many positions after its own a row sees too, as far as its sequence
  /// goes: all rows of a sequence are in the step then.
  std::int32_t ahead = 0;
};

/// `attention_params::ahead`: the whole sequence.
inline constexpr std::int32_t all_ahead = 2147483647;

/// Columns of rows that are `stride` floats apart: `groups` groups of `cols`
/// each, one after the other from column `first` on.
struct column_groups {
  std::int64_t stride = 0;
  std::int64_t first = 0;
  std::int64_t groups = 0;
  std::int64_t cols = 0;
};

/// Where a row's position stands in its sequence (DESIGN.md, "Exactness").
enum class row_role : std::uint8_t { prompt, output };

/// What is done to a product's rows before it and to its sums after it, in this
/// order. Rooms that are named hold nothing of use afterwards.
struct joined_steps {
  /// Rows are normed (`backend::rms_norm`), if there is a weight.
  buffer* norm = nullptr;
  float epsilon = 0;
  float* normed = nullptr; ///< room for the rows
  bool adds = false;       ///< to what is there
  buffer* bias = nullptr;  ///< is added, if there is one
  /// Of the sums p of a row the first half are gates: n = w.rows() / 2 results
  /// are gated(p[o]) * p[n + o]. There is neither a bias then, nor do they add.
  std::optional<gate> gated;
  float* products = nullptr; ///< room for the sums that are gated
};

/// What the calls of a step are given that differs from step to step; they hand
/// in these very lists.
struct step_input {
  /// Of its rows, for `embed`. Below 0: -1 - r, what row r of the last
  /// `drawer::begin` draws.
  std::span<const std::int32_t> ids;
  batch_view batch;
  std::span<const std::int32_t> logit_rows; ///< for `gather_rows`
  /// The calls follow from the number of rows: each row is an output, the last
  /// of a sequence of its own, and has logits.
  bool repeats = false;
};

/// The operations a model needs (DESIGN.md, "The arithmetic contract"): in all
/// of them a row's result depends on that row alone, bit for bit, whatever the
/// other rows, their number and the number of threads. Pointers are backend
/// memory; matrices of activations are row-major f32. Calls are made by one
/// thread, in order. Shapes are the caller's promise, checked by assertion.
class backend {
public:
  virtual ~backend() = default;

  /// Part of the arithmetic class, e.g. "cpu-int8-1": equal names compute equal
  /// bits on every machine.
  virtual std::string arithmetic() const = 0;

  /// What runs: "avx512-vnni, 2 threads", for logs.
  virtual std::string description() const = 0;

  /// Takes weights that share an input (q, k, v; gate, up), stacked into one
  /// with the rows of all; the types may differ. May repack; the views may go
  /// away afterwards.
  virtual result<std::unique_ptr<weight>>
  load(std::span<const matrix_view> parts) = 0;

  /// Takes the experts of a layer, which have the same shapes and types. May
  /// repack; the views may go away afterwards.
  virtual result<std::unique_ptr<expert_weights>>
  load_experts(std::span<const expert_matrices> experts) = 0;

  virtual std::unique_ptr<buffer> allocate(std::int64_t floats) = 0;

  /// A vector of parameters (a norm's weights) in backend memory.
  virtual std::unique_ptr<buffer> upload(std::span<const float> values) = 0;

  virtual result<std::unique_ptr<kv_pool>> make_kv_pool(const kv_shape&) = 0;

  /// After the weights were loaded and before anything else: makes room for
  /// what steps need beside their caller's buffers, so that none within the
  /// bounds allocates backend memory, and decides how products are made, for
  /// which it takes no more for a time than the store of keys and values will.
  /// Gives the bytes that it took.
  virtual result<std::uint64_t> prepare(const step_bounds&) {
    return std::uint64_t{0};
  }

  /// Draws from rows of so many logits in the backend's memory; null if the
  /// host has to.
  virtual drawer* drawer_of([[maybe_unused]] std::int64_t logits) {
    return nullptr;
  }

  /// Whether it keeps the calls of steps that repeat. Then these should have
  /// one of few numbers of rows.
  virtual bool keeps_steps() const {
    return false;
  }

  /// Makes the calls of a step of the one decoder that it has, after `prepare`
  /// and within its bounds. False: it has kept the calls of such a step, whose
  /// addresses are the same, and did what they say without making them.
  virtual bool run_step([[maybe_unused]] const step_input& in,
                        const std::function<void()>& calls) {
    calls();
    return true;
  }

  /// Between the steps that drew, so far. Nothing where nobody measures.
  virtual step_gaps gaps() const {
    return {};
  }

  /// out[r][:] = row ids[r] of the table, as floats. rows = ids.size().
  virtual void embed(const weight& table, std::span<const std::int32_t> ids,
                     float* out) = 0;

  /// out[r][:] = x[r][:] / sqrt(mean(x[r]^2) + eps) * w[:].
  virtual void rms_norm(const float* x, buffer& w, float eps, std::int64_t rows,
                        std::int64_t cols, float* out) = 0;

  /// out[r][:] = (x[r][:] - m) / sqrt(mean((x[r] - m)^2) + eps) * w[:] + b[:]
  /// with m = mean(x[r]); in place if out is x.
  virtual void layer_norm(const float* x, buffer& w, buffer& b, float eps,
                          std::int64_t rows, std::int64_t cols, float* out) = 0;

  /// rms_norm of each group of columns by itself, in place.
  virtual void rms_norm_groups(float* x, const column_groups& columns,
                               buffer& w, float eps, std::int64_t rows) = 0;

  /// Whether products have an arithmetic per role. If not, `linear`'s does not
  /// matter, and rows of both may come together.
  virtual bool has_roles() const {
    return false;
  }

  /// y[r][o] = sum_i x[r][i] * w[o][i] (+ y[r][o] if `add`); all rows have the
  /// role `of`.
  virtual void linear(const weight& w, const float* x, std::int64_t rows,
                      float* y, bool add, row_role of = row_role::output) = 0;

  /// `linear` of rows between the steps that are joined with it. By default
  /// one after the other.
  virtual void linear_joined(const weight& w, const float* x, std::int64_t rows,
                             const joined_steps& with, float* y,
                             row_role of = row_role::output) {
    if (with.norm != nullptr) {
      rms_norm(x, *with.norm, with.epsilon, rows, w.cols(), with.normed);
      x = with.normed;
    }
    auto* to = with.gated ? with.products : y;
    linear(w, x, rows, to, with.adds, of);
    if (with.bias != nullptr)
      add_bias(to, *with.bias, rows, w.rows());
    if (with.gated)
      multiply_gates(*with.gated, to, rows, w.rows() / 2, y);
  }

  /// `qkv` rows are [heads * d | kv_heads * d | kv_heads * d]. Turns q and k in
  /// place by rope, then stores k and v of every row in the pool (rounded to
  /// the pool's type).
  virtual void rope_and_store(float* qkv, std::int32_t heads,
                              const rope_params&, const batch_view&,
                              std::int32_t layer, kv_pool& pool) = 0;

  /// out[r][h * d ...] = softmax(q . K * scale) V over positions 0 to
  /// positions[r] of the row's sequence, or the last of them (`window`), and
  /// over what comes after as far as `ahead` says; q is the front of `qkv`'s
  /// rows; head h reads kv head h / (heads / kv_heads).
  virtual void attention(const float* qkv, const attention_params&,
                         const batch_view&, std::int32_t layer, kv_pool& pool,
                         float* out) = 0;

  /// Norms, rope_and_store and then attention; what `qkv` holds is of no use
  /// then. No other sequence has the position of a row of the step in its
  /// table.
  virtual void rope_and_attend(float* qkv, const head_norms& norms,
                               const rope_params& rope,
                               const attention_params& how,
                               const batch_view& batch, std::int32_t layer,
                               kv_pool& pool, float* out) {
    const std::int64_t d = pool.shape().head_dim, kv = pool.shape().kv_heads;
    const auto rows = static_cast<std::int64_t>(batch.positions.size());
    const auto stride = (how.heads + 2 * kv) * d;
    if (norms.q != nullptr)
      rms_norm_groups(qkv, {stride, 0, how.heads, d}, *norms.q, norms.epsilon,
                      rows);
    if (norms.k != nullptr)
      rms_norm_groups(qkv, {stride, how.heads * d, kv, d}, *norms.k,
                      norms.epsilon, rows);
    rope_and_store(qkv, how.heads, rope, batch, layer, pool);
    attention(qkv, how, batch, layer, pool, out);
  }

  /// `gate_up` rows are [n | n]: out[r][i] = silu(gate[i]) * up[i].
  virtual void silu_mul(const float* gate_up, std::int64_t rows, std::int64_t n,
                        float* out) = 0;

  /// The same with GELU in its tanh form: gelu(gate[i]) * up[i].
  virtual void gelu_mul(const float* gate_up, std::int64_t rows, std::int64_t n,
                        float* out) = 0;

  /// The same with GELU as it is defined, x * (1 + erf(x / sqrt(2))) / 2.
  virtual void erf_gelu_mul(const float* gate_up, std::int64_t rows,
                            std::int64_t n, float* out) = 0;

  /// One of these three.
  void multiply_gates(gate how, const float* gate_up, std::int64_t rows,
                      std::int64_t n, float* out) {
    switch (how) {
    case gate::silu:
      return silu_mul(gate_up, rows, n, out);
    case gate::gelu:
      return gelu_mul(gate_up, rows, n, out);
    case gate::erf_gelu:
      return erf_gelu_mul(gate_up, rows, n, out);
    }
  }

  /// x[r][i] = gelu(x[r][i]), as it is defined.
  virtual void erf_gelu(float* x, std::int64_t rows, std::int64_t n) = 0;

  /// y[r][:] += b[:].
  virtual void add_bias(float* y, buffer& b, std::int64_t rows,
                        std::int64_t cols) = 0;

  /// y[r][:] += factor * x[r][:].
  virtual void add_scaled(const float* x, float factor, std::int64_t rows,
                          std::int64_t cols, float* y) = 0;

  /// x[r][:] *= factor.
  virtual void scale(float* x, float factor, std::int64_t rows,
                     std::int64_t cols) = 0;

  /// x[r][:] = 0.
  virtual void clear(float* x, std::int64_t rows, std::int64_t cols) = 0;

  /// x[r][i] = cap * tanh(x[r][i] / cap).
  virtual void soft_cap(float* x, float cap, std::int64_t rows,
                        std::int64_t cols) = 0;

  /// y[r][:] += the sum over row r's experts of share * expert(x[r][:]). Its
  /// experts are the `chosen` largest of its scores, one per expert
  /// (expert_choice.hpp says which of equal ones), with the softmax over all
  /// scores as shares; `normalise` divides them by their sum. A row's sum has
  /// an order of its own, whatever the other rows chose. Gives the bytes of
  /// weights that are read, at most.
  virtual std::uint64_t mix_experts(const expert_weights& experts,
                                    const mixture_params&, const float* x,
                                    const float* scores, std::int64_t rows,
                                    float* y) = 0;

  /// Gathers rows: out[i][:] = x[rows[i]][:].
  virtual void gather_rows(const float* x, std::span<const std::int32_t> rows,
                           std::int64_t cols, float* out) = 0;

  /// Means of rows: out[s][:] = the mean of x from row ends[s - 1] (0 for the
  /// first) to the one before row ends[s]. No mean is of nothing.
  virtual void mean_rows(const float* x, std::span<const std::int32_t> ends,
                         std::int64_t cols, float* out) = 0;

  /// Copies backend memory to the host.
  virtual void download(const float* from, std::span<float> to) = 0;
};

} // namespace troupe::ops
