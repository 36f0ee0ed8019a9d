#include "engine/ops/cpu/paged_kv.hpp"

namespace troupe::ops::cpu {

result<std::unique_ptr<paged_kv>> paged_kv::lay_out(const kv_shape& shape) {
  if (shape.layers <= 0 || shape.kv_heads <= 0 || shape.blocks <= 0 ||
      shape.head_dim <= 0 || shape.block_tokens <= 0)
    return error{errc::invalid_argument,
                 "a size of the KV pool is not positive"};
  if (shape.head_dim % 16 != 0)
    return error{errc::unsupported,
                 "the CPU kernels need heads of a multiple of 16 dimensions, "
                 "not " +
                     std::to_string(shape.head_dim)};
  if (shape.block_tokens % 16 != 0)
    return error{errc::invalid_argument,
                 "the CPU kernels need KV blocks of a multiple of 16 tokens, "
                 "not " +
                     std::to_string(shape.block_tokens)};
  std::int64_t bytes = 2 * 2; // keys and values, of two bytes a number
  for (std::int64_t size : {shape.layers, shape.kv_heads, shape.blocks,
                            shape.head_dim, shape.block_tokens})
    if (__builtin_mul_overflow(bytes, size, &bytes))
      return error{errc::limit, "the KV pool is larger than any memory"};
  auto made = std::make_unique<paged_kv>();
  made->shape_ = shape;
  made->bytes_ = bytes;
  return made;
}

result<std::unique_ptr<paged_kv>> paged_kv::make(const kv_shape& shape) {
  auto laid_out = lay_out(shape);
  if (!laid_out)
    return laid_out.error();
  auto made = std::move(*laid_out);
  auto memory = pages::allocate(made->bytes_);
  if (!memory)
    return error{errc::limit, "no memory for a KV pool of " +
                                  std::to_string(made->bytes_) + " bytes"};
  made->memory_ = std::move(*memory);
  return made;
}

} // namespace troupe::ops::cpu
