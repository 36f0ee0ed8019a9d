#pragma once

#include "engine/codec/error.hpp"
#include "engine/text/model_card.hpp"

#include <filesystem>

namespace troupe::engine {

/// Puts another tokenizer into a card: a tokenizer.json, or a directory with
/// one and, if they are there, tokenizer_config.json (bos_token, eos_token,
/// unk_token, add_bos_token, chat_template) and chat_template.jinja. What the
/// files do not say stays as the model has it. A tokenizer with more entries
/// than the model has rows is refused.
result<void> override_tokenizer(const std::filesystem::path& path,
                                text::model_card& card);

} // namespace troupe::engine
