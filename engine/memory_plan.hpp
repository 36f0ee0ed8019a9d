#pragma once

#include "engine/codec/error.hpp"

#include <cstdint>

namespace troupe::engine {

/// Bytes that this process may still take: what the machine has available, or
/// what its memory cgroup leaves, if that is less. 0 if neither can be read.
std::uint64_t available_memory_bytes();

/// Bytes of a GPU that an engine may take: its share of all, at most what is
/// free; 0 = all. Pure.
std::uint64_t gpu_budget(std::uint64_t all, std::uint64_t free, double share);

/// What the size of the KV cache follows from.
struct memory_demand {
  std::uint64_t block_bytes = 1; ///< of one KV block, all layers
  std::uint32_t block_size = 1;  ///< positions per block
  std::uint32_t max_num_seqs = 1;
  std::uint32_t max_model_len = 1;        ///< what the model can do
  std::uint32_t max_model_len_asked = 0;  ///< by the user; 0 = not
  std::uint64_t kv_cache_bytes_asked = 0; ///< by the user; 0 = not
  std::uint64_t available_bytes = 0;
  /// The share of them that the engine may take, by the user; 0 = not given.
  double utilization_asked = 0;
  std::uint64_t other_bytes = 0; ///< of that, for weights and activations
};

struct memory_plan {
  std::uint32_t kv_blocks = 0;
  std::uint32_t max_model_len = 0; ///< tokens
};

/// Divides the memory. A size of the KV cache that the user gave is kept; else
/// it is what weights and activations leave of the share that the user gave,
/// else a quarter of what is available; never more than max_num_seqs sequences
/// can fill. If a sequence of max_model_len does not fit, a length that the
/// user gave is an error (errc::limit), and the model's own is cut to what
/// fits. Pure.
result<memory_plan> plan_memory(const memory_demand&);

} // namespace troupe::engine
