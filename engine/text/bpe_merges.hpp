#pragma once

#include "engine/text/byte_pair_merges.hpp"
#include "engine/text/vocabulary_index.hpp"

namespace troupe::text {

/// The merges of `data`: those it lists, or those that its scores stand for.
result<byte_pair_merges> read_merges(const tokenizer_data& data,
                                     const vocabulary_index& index);

} // namespace troupe::text
