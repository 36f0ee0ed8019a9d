// Fuzz target for the safetensors reader and what makes matrices of its
// tensors. Build with clang++ -fsanitize=fuzzer,address,undefined.

#include "engine/weights/packed_matrix.hpp"

#include <cstddef>
#include <cstdint>

using namespace troupe;

namespace {

/// Converts a matrix whole.
void write(const result<weights::made_tensor>& made) {
  if (!made || !made->write)
    return;
  std::vector<std::byte> out(made->out.byte_size());
  (void)made->write(out);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  auto found = weights::parse_safetensors(
      {reinterpret_cast<const std::byte*>(data), size}, "fuzz.safetensors");
  if (!found)
    return 0;
  std::uint64_t sum = 0;
  for (const auto& one : *found) {
    if (!one.bytes.empty())
      sum += static_cast<std::uint64_t>(one.bytes.front()) +
             static_cast<std::uint64_t>(one.bytes.back());
    (void)weights::floats_of(one);
    write(weights::stored_matrix(one));
  }
  [[maybe_unused]] volatile auto seen = sum;
  // The first ones in turn are a packed module, the first two a scaled one.
  if (found->size() < 2)
    return 0;
  write(weights::int8_matrix((*found)[0], (*found)[1]));
  write(weights::fp8_matrix((*found)[0], (*found)[1], 0));
  write(weights::fp8_matrix((*found)[0], (*found)[1], 2));
  if (found->size() < 3)
    return 0;
  weights::int4_parts parts{&(*found)[0], &(*found)[1], &(*found)[2],
                            found->size() > 3 ? &(*found)[3] : nullptr};
  write(weights::int4_matrix(parts, weights::int4_packing::awq));
  write(weights::int4_matrix(parts, weights::int4_packing::gptq));
  return 0;
}
