#pragma once

#include "engine/codec/error.hpp"
#include "engine/model/model_config.hpp"
#include "engine/text/model_card.hpp"
#include "engine/weights/checkpoint.hpp"

#include <functional>

namespace troupe::model {

/// Puts a tokenizer into a card that has everything else.
using put_tokenizer = std::function<result<void>(text::model_card&)>;

/// Builds the model card from a file's "tokenizer.*" metadata
/// (gguf_tokenizer.hpp).
///
/// A choice ends at the file's eos, at its eot and eom, and at those well-known
/// end-of-turn tokens (<|im_end|>, <|eot_id|>, ...) that are special tokens and
/// that the model's own chat template writes: what a generation_config.json
/// lists for such models. A base model without a template ends at its eos
/// alone.
///
/// `other_tokenizer`, if there is one, puts a tokenizer into the card instead:
/// the file's own is not read then, but for its special ids where the other one
/// names none.
result<text::model_card>
read_model_card(const weights::checkpoint& file, const model_config& config,
                const put_tokenizer& other_tokenizer = {});

} // namespace troupe::model
