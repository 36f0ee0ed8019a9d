#pragma once

#include "engine/codec/error.hpp"
#include "engine/text/model_card.hpp"

#include <filesystem>

namespace troupe::model::hugging_face {

/// Puts a tokenizer into a card: a tokenizer.json, or a directory with one and,
/// if they are there, tokenizer_config.json (bos_token, eos_token, unk_token,
/// add_bos_token, chat_template), chat_template.jinja and chat_template.json.
/// Of several templates the one named "default" counts, and a file of its own
/// more than tokenizer_config.json. What the files do not say stays as the card
/// has it. A tokenizer with more entries than the model has rows is refused.
result<void> read_tokenizer_files(const std::filesystem::path& path,
                                  text::model_card& card);

} // namespace troupe::model::hugging_face
