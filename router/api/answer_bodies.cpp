#include "router/api/json_writer.hpp"
#include "router/api/openai.hpp"

#include <algorithm>

namespace troupe::api {

namespace {

constexpr std::string_view frame_begin = "data: ";
constexpr std::string_view frame_end = "\n\n";

void write_head(json_writer& json, const answer_head& head,
                std::string_view object) {
  json.key("id").text(head.id);
  json.key("object").text(object);
  json.key("created").natural(head.created);
  json.key("model").text(head.model);
}

void write_fingerprint(json_writer& json, const answer_head& head) {
  json.key("system_fingerprint").text_or_null(head.system_fingerprint);
}

void write_usage(json_writer& json, const usage& usage) {
  json.key("usage").begin_object();
  json.key("prompt_tokens").natural(usage.prompt_tokens);
  json.key("total_tokens")
      .natural(usage.prompt_tokens + usage.completion_tokens);
  json.key("completion_tokens").natural(usage.completion_tokens);
  json.key("prompt_tokens_details").begin_object();
  json.key("cached_tokens").natural(usage.cached_tokens).end_object();
  json.key("completion_tokens_details").null();
  json.end_object();
}

void write_frame_usage(json_writer& json, const answer_head& head,
                       const std::optional<usage>& usage) {
  if (usage)
    write_usage(json, *usage);
  else if (head.include_usage)
    json.key("usage").null();
}

void write_ids(json_writer& json, std::string_view name,
               const std::vector<token_id>& ids) {
  json.key(name).begin_array();
  for (auto id : ids)
    json.integer(id);
  json.end_array();
}

/// In frames the prompt's ids come once; everywhere else they are null.
void write_prompt_ids(json_writer& json, const std::vector<token_id>& ids) {
  if (ids.empty())
    json.key("prompt_token_ids").null();
  else
    write_ids(json, "prompt_token_ids", ids);
}

void write_bytes(json_writer& json, std::string_view bytes) {
  json.key("bytes").begin_array();
  for (unsigned char byte : bytes)
    json.natural(byte);
  json.end_array();
}

void write_candidate(json_writer& json, std::string_view bytes, float logprob) {
  json.key("token").text(bytes);
  json.key("logprob").real(logprob);
  write_bytes(json, bytes);
}

void write_chat_token(json_writer& json, const shown_token& token) {
  json.begin_object();
  write_candidate(json, token.bytes, token.logprob.value_or(0));
  json.key("top_logprobs").begin_array();
  for (const auto& candidate : token.top) {
    json.begin_object();
    write_candidate(json, candidate.bytes, candidate.logprob);
    json.end_object();
  }
  json.end_array().end_object();
}

void write_chat_logprobs(json_writer& json, const choice_piece& piece) {
  json.key("logprobs");
  if (!piece.with_logprobs) {
    json.null();
    return;
  }
  json.begin_object().key("content").begin_array();
  for (const auto& token : piece.tokens)
    write_chat_token(json, token);
  json.end_array().key("refusal").null().end_object();
}

/// The token and its candidates by text; of equal texts the first one counts.
void write_token_map(json_writer& json, const shown_token& token) {
  if (!token.logprob) {
    json.null();
    return;
  }
  std::vector<std::string> texts{repaired_utf8(token.bytes)};
  json.begin_object().key(texts.front()).real(*token.logprob);
  for (const auto& candidate : token.top) {
    auto text = repaired_utf8(candidate.bytes);
    if (std::find(texts.begin(), texts.end(), text) != texts.end())
      continue;
    json.key(text).real(candidate.logprob);
    texts.push_back(std::move(text));
  }
  json.end_object();
}

void write_token_logprobs(json_writer& json,
                          const std::vector<shown_token>& tokens) {
  json.key("token_logprobs").begin_array();
  for (const auto& token : tokens)
    if (token.logprob)
      json.real(*token.logprob);
    else
      json.null();
  json.end_array();
}

void write_completion_logprobs(json_writer& json, const choice_piece& piece) {
  json.key("logprobs");
  if (!piece.with_logprobs) {
    json.null();
    return;
  }
  json.begin_object().key("text_offset").begin_array();
  for (const auto& token : piece.tokens)
    json.natural(token.text_offset);
  json.end_array();
  write_token_logprobs(json, piece.tokens);
  json.key("tokens").begin_array();
  for (const auto& token : piece.tokens)
    json.text(token.bytes);
  json.end_array().key("top_logprobs").begin_array();
  for (const auto& token : piece.tokens)
    write_token_map(json, token);
  json.end_array().end_object();
}

void write_stop_reason(json_writer& json, const choice_piece& piece) {
  json.key("stop_reason");
  if (auto* text = std::get_if<std::string>(&piece.stop_reason))
    json.text(*text);
  else if (auto* id = std::get_if<token_id>(&piece.stop_reason))
    json.integer(*id);
  else
    json.null();
}

void write_finish(json_writer& json, const choice_piece& piece) {
  json.key("finish_reason").text_or_null(piece.finish_reason);
  write_stop_reason(json, piece);
}

void write_message(json_writer& json, const choice_piece& piece) {
  json.key("message").begin_object();
  json.key("role").text("assistant");
  json.key("content").text(piece.text);
  for (auto name : {"refusal", "annotations", "audio", "function_call"})
    json.key(name).null();
  json.end_object();
}

void write_chat_choice(json_writer& json, const answer_head& head,
                       const choice_piece& piece) {
  json.begin_object().key("index").natural(piece.index);
  write_message(json, piece);
  write_chat_logprobs(json, piece);
  write_finish(json, piece);
  if (head.return_token_ids)
    write_ids(json, "token_ids", piece.token_ids);
  json.end_object();
}

void write_completion_choice(json_writer& json, const answer_head& head,
                             const choice_piece& piece) {
  json.begin_object().key("index").natural(piece.index);
  json.key("text").text(piece.text);
  write_completion_logprobs(json, piece);
  write_finish(json, piece);
  if (head.return_token_ids) {
    write_prompt_ids(json, piece.prompt_token_ids);
    write_ids(json, "token_ids", piece.token_ids);
  }
  json.end_object();
}

void write_chat_delta(json_writer& json, const answer_head& head,
                      const choice_piece& piece) {
  json.begin_object().key("index").natural(piece.index);
  json.key("delta").begin_object().key("content").text(piece.text).end_object();
  write_chat_logprobs(json, piece);
  write_finish(json, piece);
  if (head.return_token_ids)
    write_ids(json, "token_ids", piece.token_ids);
  json.end_object();
}

void write_body_end(json_writer& json, const answer_head& head,
                    const usage& usage) {
  json.key("service_tier").null();
  write_fingerprint(json, head);
  write_usage(json, usage);
}

std::string_view chunk_object(bool chat) {
  return chat ? "chat.completion.chunk" : "text_completion";
}

} // namespace

std::string chat_body(const answer_head& head,
                      const std::vector<choice_piece>& choices,
                      const usage& usage) {
  json_writer json;
  json.begin_object();
  write_head(json, head, "chat.completion");
  json.key("choices").begin_array();
  for (const auto& choice : choices)
    write_chat_choice(json, head, choice);
  json.end_array();
  write_body_end(json, head, usage);
  if (head.return_token_ids && !choices.empty())
    write_prompt_ids(json, choices.front().prompt_token_ids);
  return json.end_object().take();
}

std::string completion_body(const answer_head& head,
                            const std::vector<choice_piece>& choices,
                            const usage& usage) {
  json_writer json;
  json.begin_object();
  write_head(json, head, "text_completion");
  json.key("choices").begin_array();
  for (const auto& choice : choices)
    write_completion_choice(json, head, choice);
  json.end_array();
  write_body_end(json, head, usage);
  return json.end_object().take();
}

std::string chat_role_frame(const answer_head& head, std::uint32_t index,
                            const std::vector<token_id>& prompt_token_ids,
                            const std::optional<usage>& usage) {
  json_writer json{frame_begin};
  json.begin_object();
  write_head(json, head, chunk_object(true));
  json.key("choices").begin_array().begin_object();
  json.key("index").natural(index).key("delta").begin_object();
  json.key("role").text("assistant").key("content").text("").end_object();
  json.key("logprobs").null().key("finish_reason").null();
  json.end_object().end_array();
  write_fingerprint(json, head);
  write_frame_usage(json, head, usage);
  if (head.return_token_ids)
    write_prompt_ids(json, prompt_token_ids);
  return json.end_object().take(frame_end);
}

std::string chat_frame(const answer_head& head, const choice_piece& piece,
                       const std::optional<usage>& usage) {
  json_writer json{frame_begin};
  json.begin_object();
  write_head(json, head, chunk_object(true));
  json.key("choices").begin_array();
  write_chat_delta(json, head, piece);
  json.end_array();
  write_fingerprint(json, head);
  write_frame_usage(json, head, usage);
  return json.end_object().take(frame_end);
}

std::string completion_frame(const answer_head& head, const choice_piece& piece,
                             const std::optional<usage>& usage) {
  json_writer json{frame_begin};
  json.begin_object();
  write_head(json, head, chunk_object(false));
  json.key("choices").begin_array();
  write_completion_choice(json, head, piece);
  json.end_array();
  write_fingerprint(json, head);
  write_frame_usage(json, head, usage);
  return json.end_object().take(frame_end);
}

std::string usage_frame(const answer_head& head, bool chat,
                        const usage& usage) {
  json_writer json{frame_begin};
  json.begin_object();
  write_head(json, head, chunk_object(chat));
  json.key("choices").begin_array().end_array();
  write_fingerprint(json, head);
  write_usage(json, usage);
  return json.end_object().take(frame_end);
}

} // namespace troupe::api
