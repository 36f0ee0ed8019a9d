#pragma once

#include "engine/engine.hpp"
#include "engine/kv_cache/block_pool.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace troupe::engine {

/// A choice while the engine has it. Its tokens are all the state there is to
/// keep: what was computed can be computed again from them.
struct sequence {
  std::uint64_t id = 0;
  owner whose;
  sampling_params params;
  std::vector<token_id> tokens; ///< prompt, then output
  std::uint32_t prompt_size = 0;

  std::uint32_t computed = 0; ///< positions with keys and values in `blocks`
  /// Output tokens below this position had their row already or came with
  /// the request; rows for them are resumed ones.
  std::uint32_t resumed_end = 0;
  std::vector<kv_cache::block_id> blocks;
  std::vector<kv_cache::block_key> keys; ///< of full blocks, as far as known
  std::vector<codec::block_name> names;  ///< of the same
  std::uint32_t published = 0; ///< blocks looked at for the prefix cache

  std::uint32_t alone = 0; ///< tokens to draw in steps of its own

  bool wants_prompt_logprobs = false;
  bool was_admitted = false;
  bool was_reported = false; ///< an output with its first news went out
  bool is_finished = false;  ///< leaves at the end of the step
  /// The row of logits of the step under way that draws its next token; -1:
  /// none. Kept where a runner runs ahead.
  std::int32_t draw_row = -1;
  std::uint32_t cached_tokens = 0;
  std::vector<std::vector<candidate>> prompt_logprobs;

  std::uint32_t size() const {
    return static_cast<std::uint32_t>(tokens.size());
  }

  std::uint32_t output_size() const {
    return size() - prompt_size;
  }

  std::span<const token_id> prompt() const {
    return std::span{tokens}.first(prompt_size);
  }

  std::span<const token_id> output() const {
    return std::span{tokens}.subspan(prompt_size);
  }
};

} // namespace troupe::engine
