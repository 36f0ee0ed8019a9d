#pragma once

#include "engine/codec/error.hpp"
#include "engine/model/metadata.hpp"
#include "engine/text/tokenizer_data.hpp"

#include <cstdint>
#include <string_view>

namespace troupe::model {

/// Reads the tokenizer of a GGUF file ("tokenizer.ggml.*"). Its "model" is
/// "gpt2" (byte-level BPE; the pre-tokenizer is named, see
/// engine/text/pretokenizers.hpp), "llama" (SentencePiece BPE: merges by score,
/// bytes for unknown characters), "t5" (SentencePiece unigram) or "bert"
/// (WordPiece). Others are refused by name. `vocabulary` is the number of rows
/// of the embedding.
result<text::tokenizer_data> read_gguf_tokenizer(const metadata& file,
                                                 std::int64_t vocabulary);

/// The id in "tokenizer.ggml.<name>", or -1 if the key is missing.
result<text::token_id> read_token_id(const metadata& file,
                                     std::string_view name,
                                     std::int64_t vocabulary);

} // namespace troupe::model
