#pragma once

#include "engine/codec/error.hpp"
#include "engine/model/model_config.hpp"

#include <cstdint>
#include <vector>

namespace troupe::model {

/// One of the ranks that hold a model together (tensor parallelism: Shoeybi et
/// al., 2019): heads, feed-forward columns and the vocabulary are divided, the
/// residual stream and the norms are everywhere.
struct shard {
  std::int32_t rank = 0;
  std::int32_t size = 1;
};

/// How a rank cuts a tensor.
enum class cut : std::uint8_t {
  none,    ///< all of it
  outputs, ///< a share of its rows, of each group of them
  inputs,  ///< a share of its columns: the ranks' products are to be added up
};

struct tensor_cut {
  /// Rows of the whole tensor, and into how many shares they are divided: one
  /// per rank, or fewer, that several ranks have alike.
  struct group {
    std::int64_t rows;
    std::int32_t shares;
  };

  cut what = cut::none;
  std::vector<group> groups = {}; ///< of outputs
};

/// The model as one rank sees it: with its heads and its columns. Errors name
/// what cannot be divided by so many (unsupported).
result<model_config> config_of(const model_config& whole, const shard& rank);

/// How a part of a step of blocks is cut, by its width and what it reads;
/// `config` is that of one of `size` ranks.
tensor_cut cut_of(const model_config& config, std::int32_t size,
                  const block_step& step, const weight_part& part);

/// Whether the ranks' results of a step have to be added up.
bool is_reduced(const block_step& step);

} // namespace troupe::model
