#include "engine/ops/cpu/sizing_backend.hpp"

#include "engine/ops/cpu/expert_plan.hpp"
#include "engine/ops/cpu/paged_kv.hpp"
#include "engine/ops/cpu/tiled_weight.hpp"
#include "engine/ops/dense_layout.hpp"

#include <algorithm>
#include <cstdlib>
#include <vector>

namespace troupe::ops::cpu {

namespace {

class sized_buffer final : public buffer {
public:
  explicit sized_buffer(std::int64_t floats) : size_(floats) {
    // nop
  }
  float* data() override {
    return nullptr;
  }
  std::int64_t size() const override {
    return size_;
  }

private:
  std::int64_t size_;
};

class sized_weight final : public weight {
public:
  explicit sized_weight(std::span<const matrix_view> parts)
      : cols_(parts.empty() ? 0 : parts.front().cols),
        bytes_(dense_bytes(parts)) {
    for (const auto& part : parts)
      rows_ += part.rows;
  }
  std::int64_t rows() const override {
    return rows_;
  }
  std::int64_t cols() const override {
    return cols_;
  }
  std::int64_t bytes() const override {
    return bytes_;
  }

private:
  std::int64_t rows_ = 0;
  std::int64_t cols_;
  std::int64_t bytes_;
};

class sized_experts final : public expert_weights {
public:
  std::int64_t bytes() const override {
    return bytes_;
  }
  void add(std::int64_t bytes) {
    bytes_ += bytes;
  }

private:
  std::int64_t bytes_ = 0;
};

class sized_kv final : public kv_pool {
public:
  sized_kv(const kv_shape& shape, kv_type type) : shape_(shape), type_(type) {
    // nop
  }
  const kv_shape& shape() const override {
    return shape_;
  }
  std::int64_t bytes() const override {
    return dense_kv_bytes(shape_, type_);
  }

private:
  kv_shape shape_;
  kv_type type_;
};

class sizing_backend final : public backend {
public:
  sizing_backend(kept_by who, kv_type kv) : kept_by_(who), kv_(kv) {
    // nop
  }

  std::string arithmetic() const override {
    return "none";
  }

  std::string description() const override {
    return "sizes only";
  }

  result<std::unique_ptr<weight>>
  load(std::span<const matrix_view> parts) override {
    if (kept_by_ == kept_by::gpu) {
      auto sized = std::make_unique<sized_weight>(parts);
      if (const auto kind = library_kind_of(parts))
        products_.add(*kind, sized->rows(), sized->cols());
      return std::unique_ptr<weight>{std::move(sized)};
    }
    auto laid_out = tiled_weight::lay_out(parts);
    if (!laid_out)
      return laid_out.error();
    return std::unique_ptr<weight>{std::move(*laid_out)};
  }

  result<std::unique_ptr<expert_weights>>
  load_experts(std::span<const expert_matrices> experts) override {
    auto out = std::make_unique<sized_experts>();
    for (const auto& one : experts)
      for (const auto& parts : {std::vector{one.gate, one.up}, {one.down}}) {
        if (kept_by_ == kept_by::gpu) {
          out->add(dense_expert_bytes(parts));
          continue;
        }
        auto laid_out = tiled_weight::lay_out(parts);
        if (!laid_out)
          return laid_out.error();
        out->add((*laid_out)->bytes());
      }
    return std::unique_ptr<expert_weights>{std::move(out)};
  }

  std::unique_ptr<buffer> allocate(std::int64_t floats) override {
    return std::make_unique<sized_buffer>(floats);
  }

  std::unique_ptr<buffer> upload(std::span<const float> values) override {
    return allocate(static_cast<std::int64_t>(values.size()));
  }

  result<std::unique_ptr<kv_pool>>
  make_kv_pool(const kv_shape& shape) override {
    if (kept_by_ == kept_by::gpu)
      return std::unique_ptr<kv_pool>{std::make_unique<sized_kv>(shape, kv_)};
    auto laid_out = paged_kv::lay_out(shape);
    if (!laid_out)
      return laid_out.error();
    return std::unique_ptr<kv_pool>{std::move(*laid_out)};
  }

  result<std::uint64_t> prepare(const step_bounds& bounds) override {
    if (kept_by_ == kept_by::gpu)
      return gpu_step_layout::bytes(bounds, products_);
    return static_cast<std::uint64_t>(
               mixture_floats(bounds.mixture, bounds.rows)) *
           sizeof(float);
  }

  bool keeps_steps() const override {
    return kept_by_ == kept_by::gpu;
  }

  // There is nothing to compute with.
  void embed(const weight&, std::span<const std::int32_t>, float*) override {
    std::abort();
  }
  void rms_norm(const float*, buffer&, float, std::int64_t, std::int64_t,
                float*) override {
    std::abort();
  }
  void layer_norm(const float*, buffer&, buffer&, float, std::int64_t,
                  std::int64_t, float*) override {
    std::abort();
  }
  void linear(const weight&, const float*, std::int64_t, float*, bool,
              row_role) override {
    std::abort();
  }
  void rope_and_store(float*, std::int32_t, const rope_params&,
                      const batch_view&, std::int32_t, kv_pool&) override {
    std::abort();
  }
  void attention(const float*, const attention_params&, const batch_view&,
                 std::int32_t, kv_pool&, float*) override {
    std::abort();
  }
  void silu_mul(const float*, std::int64_t, std::int64_t, float*) override {
    std::abort();
  }
  void rms_norm_groups(float*, const column_groups&, buffer&, float,
                       std::int64_t) override {
    std::abort();
  }
  void gelu_mul(const float*, std::int64_t, std::int64_t, float*) override {
    std::abort();
  }
  void erf_gelu_mul(const float*, std::int64_t, std::int64_t, float*) override {
    std::abort();
  }
  void erf_gelu(float*, std::int64_t, std::int64_t) override {
    std::abort();
  }
  void add_bias(float*, buffer&, std::int64_t, std::int64_t) override {
    std::abort();
  }
  void add_scaled(const float*, float, std::int64_t, std::int64_t,
                  float*) override {
    std::abort();
  }
  void scale(float*, float, std::int64_t, std::int64_t) override {
    std::abort();
  }
  void soft_cap(float*, float, std::int64_t, std::int64_t) override {
    std::abort();
  }
  void clear(float*, std::int64_t, std::int64_t) override {
    std::abort();
  }
  std::uint64_t mix_experts(const expert_weights&, const mixture_params&,
                            const float*, const float*, std::int64_t,
                            float*) override {
    std::abort();
  }
  void gather_rows(const float*, std::span<const std::int32_t>, std::int64_t,
                   float*) override {
    std::abort();
  }
  void mean_rows(const float*, std::span<const std::int32_t>, std::int64_t,
                 float*) override {
    std::abort();
  }
  void download(const float*, std::span<float>) override {
    std::abort();
  }

private:
  kept_by kept_by_;
  kv_type kv_;
  gpu_product_layout products_; ///< on a GPU
};

} // namespace

std::unique_ptr<backend> make_sizing_backend(kept_by who, kv_type kv) {
  return std::make_unique<sizing_backend>(who, kv);
}

} // namespace troupe::ops::cpu
