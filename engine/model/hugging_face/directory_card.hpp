#pragma once

#include "engine/codec/error.hpp"
#include "engine/model/model_config.hpp"
#include "engine/text/model_card.hpp"

#include <filesystem>

namespace troupe::model::hugging_face {

/// Builds the model card of a directory: from the tokenizer's files in
/// `tokenizer` (tokenizer_files.hpp), as a rule the same directory, and
/// generation_config.json (or, where that is missing, config.json): its
/// eos_token_id, one or a list, ends a choice beside the tokenizer's own, and
/// its temperature, top_p, top_k, min_p and repetition_penalty are for requests
/// that do not say them, as in vLLM.
result<text::model_card>
read_directory_card(const std::filesystem::path& directory,
                    const std::filesystem::path& tokenizer,
                    const model_config& config);

} // namespace troupe::model::hugging_face
