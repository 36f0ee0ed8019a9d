#pragma once

#include "router/api/pooling.hpp"
#include "router/model_text.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// What a model reads that draws no tokens: one text or two, with what the
/// tokenizer puts around them.
namespace troupe::router {

struct pooled_prompt {
  std::vector<token_id> ids;
  /// Where the second text begins; 0: there is one.
  std::uint32_t second_text = 0;
};

/// How long a prompt may be.
struct prompt_room {
  std::uint32_t tokens = 0;
  bool cut = false; ///< longer ones lose their end; else they are refused
};

/// Of a request to this model. Errors: more tokens than the model takes.
api::api_result<prompt_room> room_of(const api::pooling_request&,
                                     const model_text&);

/// `param` is the text's path. A prompt of ids is taken as it is.
api::api_result<pooled_prompt> pooled_text(const model_text&,
                                           const api::prompt&,
                                           bool add_special_tokens, prompt_room,
                                           std::string_view param);

/// Two texts that have to be cut both lose tokens, the longer one first.
api::api_result<pooled_prompt> pooled_pair(const model_text&,
                                           std::string_view first,
                                           std::string_view second, prompt_room,
                                           std::string_view param);

} // namespace troupe::router
