#pragma once

#include "engine/ops/backend.hpp"
#include "engine/ops/cpu/pages.hpp"

namespace troupe::ops::cpu {

/// Keys and values as f16 or, where the shape says so, as bf16. A layer's block
/// holds, per kv head, the keys of its positions in groups of 16, so that one
/// lane is one position, and then the values, as attention_span (kernels.hpp)
/// says.
class paged_kv final : public kv_pool {
public:
  /// Fails unless block_tokens and head_dim are multiples of 16 and the memory
  /// is there.
  static result<std::unique_ptr<paged_kv>> make(const kv_shape&);

  /// The same without memory: for its size.
  static result<std::unique_ptr<paged_kv>> lay_out(const kv_shape&);

  const kv_shape& shape() const override {
    return shape_;
  }
  std::int64_t bytes() const override {
    return bytes_;
  }

  /// First key of the head in the block. Each 16 positions take 16 * head_dim
  /// numbers.
  std::uint16_t* keys(std::int32_t layer, std::int32_t block,
                      std::int32_t head) {
    const auto at =
        (std::int64_t{layer} * shape_.blocks + block) * shape_.kv_heads + head;
    return reinterpret_cast<std::uint16_t*>(memory_.data()) +
           at * 2 * shape_.block_tokens * shape_.head_dim;
  }
  /// First value; as many numbers.
  std::uint16_t* values(std::int32_t layer, std::int32_t block,
                        std::int32_t head) {
    return keys(layer, block, head) +
           std::int64_t{shape_.block_tokens} * shape_.head_dim;
  }

private:
  kv_shape shape_;
  std::int64_t bytes_ = 0;
  pages memory_;
};

} // namespace troupe::ops::cpu
