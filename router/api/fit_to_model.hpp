#pragma once

#include "engine/text/model_card.hpp"
#include "router/api/openai.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

/// The checks of a request that need its model's card. Pure.
namespace troupe::api {

/// Checks lengths and ids of a parsed request against its model, once per
/// prompt. `chat` says which endpoint it came from. A chat request without
/// max_tokens gets all the room that its prompt leaves; nothing else changes.
/// Prompt + max_tokens may fill the context exactly; a prompt that leaves no
/// room for one token is refused unless max_tokens is 0.
std::optional<api_error> fit_to_model(generation_request&, bool chat,
                                      std::size_t prompt_tokens,
                                      std::uint32_t max_model_len,
                                      std::uint32_t vocabulary);

/// Gives the sampling fields that the client left out the model's own values.
void take_defaults(generation_request&, const text::sampling_defaults&);

/// Checks the ids of a prompt given as ids. `param` is its path: "prompt", or
/// "prompt[2]" in a list of prompts.
std::optional<api_error> check_prompt_ids(const std::vector<token_id>& ids,
                                          std::uint32_t vocabulary,
                                          std::string_view param);

} // namespace troupe::api
