#pragma once

#include "engine/codec/error.hpp"
#include "engine/text/chat_template.hpp"
#include "engine/text/model_card.hpp"
#include "engine/text/tokenizer.hpp"
#include "router/api/openai.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::router {

/// The text side of a model, made from its card: what turns requests into ids
/// and ids into text. Immutable; any thread.
struct model_text {
  std::shared_ptr<const text::tokenizer> tokenizer;
  std::shared_ptr<const text::chat_template> chat; ///< null: it has none
  /// The template goes through lists of content parts; else they are joined.
  bool takes_parts = false;
  bool trusts_request_template = false;
  text::value::map template_kwargs; ///< the operator's
  std::uint32_t max_model_len = 0;
  std::uint32_t vocabulary_size = 0;
  text::sampling_defaults defaults; ///< for what a request does not say
  std::optional<text::pooled_output> pooled; ///< unset: it draws tokens
  /// Text of more bytes than this cannot fit the context whatever its tokens
  /// are: it is refused before it is tokenized.
  std::size_t prompt_bytes_max = 0;

  /// Compiles an encoded text::model_card. Slow: some 100 ms.
  static result<std::shared_ptr<const model_text>> make(std::string_view card);
};

/// True if a template has a loop over a message's content.
bool loops_over_content(std::string_view template_source);

/// The ids of a chat: the template's text with the messages as content.
/// With `continue_final_message` the text ends where the last message's content
/// does. May change `request.messages`.
api::api_result<std::vector<token_id>> chat_prompt(const model_text&,
                                                   api::chat_request& request);

/// The ids of a raw prompt, which may name special tokens. `param` is its path.
api::api_result<std::vector<token_id>> raw_prompt(const model_text&,
                                                  const api::prompt&,
                                                  bool add_special_tokens,
                                                  std::string_view param);

/// The text of a prompt, for `echo`.
std::string shown_prompt(const model_text&, const api::prompt&);

} // namespace troupe::router
