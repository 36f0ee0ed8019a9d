#pragma once

#include "engine/weights/checkpoint.hpp"

#include <cstddef>
#include <functional>
#include <map>

namespace troupe::weights {

/// What a GGUF file holds. The tensors' bytes lie in the data it was read from.
struct gguf_contents {
  std::map<std::string, metadata_value, std::less<>> metadata;
  std::vector<tensor> tensors;
  std::map<std::string, std::size_t, std::less<>> tensor_index; ///< by name
};

/// What the parsed form of a model may cost beyond the bytes of its files.
constexpr std::size_t gguf_overhead_bytes_max = 64u << 20;

/// Reads one file (gguf.hpp says what is checked) and adds what its parsed form
/// costs to `overhead_bytes`, which stays below the bound.
result<gguf_contents> parse_gguf(std::span<const std::byte> data,
                                 std::size_t& overhead_bytes);

} // namespace troupe::weights
