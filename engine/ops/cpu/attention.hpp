#pragma once

#include "engine/ops/backend.hpp"
#include "engine/ops/cpu/kernels.hpp"
#include "engine/ops/cpu/paged_kv.hpp"
#include "engine/ops/cpu/team.hpp"

namespace troupe::ops::cpu {

/// Paged attention over the rows of a step. The heads that share a kv head, of
/// neighbouring rows of a sequence, go through the keys and values together, in
/// tiles of up to `query_tile` queries (`rounded_query_tile` over keys and
/// values in bf16). Positions are taken in spans of
/// `span_positions`; a step with few tiles shares out the spans, too. The bits
/// are the same either way.
class attention {
public:
  attention(const kernel_table& kernels, team& workers)
      : kernels_(kernels), workers_(workers) {
  }

  struct call {
    const float* qkv;
    std::int64_t qkv_stride;
    const attention_params& how;
    const batch_view& batch;
    std::int32_t layer;
    paged_kv& pool;
    float* out;
  };

  void run(const call&);

private:
  /// Queries first to first + count - 1 of the rows from `row` on, numbered row
  /// by row, then head by head within a kv head.
  struct tile {
    std::int32_t row;
    std::int32_t first;
    std::int32_t count;
    std::int32_t last_position; ///< of the rows' sequence in this step
    std::int32_t first_span;    ///< of the first row's first position
    std::int32_t spans;         ///< up to the tile's last position
  };

  /// What a thread needs to round the queries of a tile, for keys in bf16.
  struct rounding_room {
    std::vector<float> gathered;
    std::vector<std::byte> rounded;
  };

  void list_tiles(const call&);
  void make_rooms(const call&);
  /// A tile's queries rounded, until the thread's next call; null where keys
  /// are not in bf16.
  const std::byte* queries_for(const call&, const tile&, std::int32_t kv_head,
                               int thread);
  void run_whole(const call&, std::int64_t item, int thread);
  void run_split(const call&);
  /// `rounded` is what queries_for gives.
  void attend(const call&, const tile&, std::int32_t kv_head, std::int32_t span,
              const std::byte* rounded, float* partials,
              std::int64_t query_stride);
  void merge(const call&, const tile&, std::int32_t kv_head,
             const float* partials, std::int64_t query_stride);

  const kernel_table& kernels_;
  team& workers_;
  std::vector<tile> tiles_;
  std::int64_t most_spans_ = 0;   ///< of a tile
  std::int64_t most_queries_ = 0; ///< of a tile
  std::vector<float> partials_;
  std::vector<rounding_room> rooms_; ///< of threads
};

} // namespace troupe::ops::cpu
