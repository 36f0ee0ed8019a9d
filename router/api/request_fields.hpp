#pragma once

#include "router/api/field_reader.hpp"

/// The fields that chat and completions share.
namespace troupe::api {

/// Bounds that OpenAI and Ray Serve LLM leave open; docs/api.md lists them.
inline constexpr std::int64_t tokens_max = 2147483647;
inline constexpr std::int64_t choices_per_prompt_max = 128;
inline constexpr std::int64_t choices_max = 2048; ///< prompts x n
inline constexpr std::int64_t top_logprobs_max = 20;
inline constexpr std::size_t stops_max = 4;
inline constexpr std::size_t stop_bytes_max = 1024;
inline constexpr std::size_t stop_token_ids_max = 1024;
inline constexpr std::size_t logit_bias_max = 1024;
inline constexpr std::size_t messages_max = 4096;
inline constexpr std::size_t parts_max = 1024; ///< per message
inline constexpr std::size_t prompts_max = 2048;
inline constexpr std::size_t name_bytes_max = 1024; ///< model, user, ...
inline constexpr std::size_t text_bytes_max = 64u << 20;
inline constexpr std::size_t template_bytes_max = 64u << 10;

inline constexpr double timeout_s_max = 86'400;

/// Temperatures below are greedy: logits divided by them would overflow.
inline constexpr float temperature_min = 1e-5f;

/// Reads everything shared but max_tokens, checks what is not supported yet,
/// and passes what has no effect.
void read_shared_fields(field_reader&, generation_request&);

/// Reads how urgent a request is, and for how long it is of use.
void read_urgency(field_reader&, std::int32_t& priority,
                  std::optional<double>& timeout_s);

/// Reads min_tokens; call once max_tokens is known.
void read_min_tokens(field_reader&, generation_request&);

/// Reads what makes the prompt of a chat: messages, and how it ends.
void read_chat_prompt(field_reader&, chat_request&);

/// Reads one prompt, or a list of them: a text or ids each.
void read_prompts(field_reader&, std::string_view name, std::vector<prompt>&);

/// Reads `chat_template`, `chat_template_kwargs` and `documents`.
void read_template_fields(field_reader&, chat_request&);

/// Reads `prompt`, one or a list, and what is put around it.
void read_completion_prompts(field_reader&, completion_request&);

/// Reads a list of token ids at `path`.
std::vector<token_id> read_ids(simdjson::dom::array, const std::string& path,
                               first_error&);

/// Sets the error for every field that would change the answer and is not
/// built yet, by name. Null and empty values pass.
void refuse_unsupported_fields(field_reader&);

/// Sets the error for a chat's fields in what is no chat.
void refuse_chat_fields(field_reader&);

/// Checks the types of OpenAI's fields that change no token here.
void check_inert_fields(field_reader&);

} // namespace troupe::api
