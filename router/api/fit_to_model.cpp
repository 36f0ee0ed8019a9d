#include "router/api/fit_to_model.hpp"

#include "router/api/request_fields.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace troupe::api {

namespace {

api_error invalid(std::string_view param, std::string message,
                  std::string code = {}) {
  return {400, std::move(message), "invalid_request_error", std::string{param},
          std::move(code)};
}

std::optional<api_error> check_id(std::int64_t id, std::uint32_t vocabulary,
                                  std::string_view param) {
  if (id >= 0 && id < std::int64_t{vocabulary})
    return std::nullopt;
  return invalid(param, fmt::format("{} holds the token id {}, which is not in "
                                    "the model's vocabulary of {} tokens.",
                                    param, id, vocabulary));
}

std::optional<api_error> check_ids(const sampling_params& params,
                                   std::uint32_t vocabulary) {
  for (const auto& [id, bias] : params.logit_bias)
    if (auto wrong = check_id(id, vocabulary, "logit_bias"))
      return wrong;
  for (auto id : params.stop_token_ids)
    if (auto wrong = check_id(id, vocabulary, "stop_token_ids"))
      return wrong;
  return std::nullopt;
}

api_error prompt_too_long(bool chat, std::size_t prompt_tokens,
                          std::uint32_t max_model_len) {
  return invalid(chat ? "messages" : "prompt",
                 fmt::format("The prompt has {} tokens; this model's context "
                             "holds {} tokens, prompt and answer together.",
                             prompt_tokens, max_model_len),
                 "context_length_exceeded");
}

api_error answer_too_long(const generation_request& request,
                          std::size_t prompt_tokens,
                          std::uint32_t max_model_len) {
  return invalid(
      request.max_tokens_field,
      fmt::format("The prompt has {} tokens and {} asks for {} more; this "
                  "model's context holds {} tokens, prompt and answer "
                  "together.",
                  prompt_tokens, request.max_tokens_field,
                  request.params.max_tokens, max_model_len),
      "context_length_exceeded");
}

} // namespace

std::optional<api_error> fit_to_model(generation_request& request, bool chat,
                                      std::size_t prompt_tokens,
                                      std::uint32_t max_model_len,
                                      std::uint32_t vocabulary) {
  auto& params = request.params;
  if (auto wrong = check_ids(params, vocabulary))
    return wrong;
  bool no_answer = request.max_tokens_given && params.max_tokens == 0;
  if (prompt_tokens > max_model_len ||
      (prompt_tokens == max_model_len && !no_answer))
    return prompt_too_long(chat, prompt_tokens, max_model_len);
  auto room = max_model_len - static_cast<std::uint32_t>(prompt_tokens);
  if (chat && !request.max_tokens_given)
    params.max_tokens = room;
  if (params.max_tokens > room)
    return answer_too_long(request, prompt_tokens, max_model_len);
  if (params.min_tokens > params.max_tokens)
    return invalid("min_tokens",
                   fmt::format("min_tokens must be at most {}, the number of "
                               "tokens that the prompt leaves room for.",
                               params.max_tokens));
  return std::nullopt;
}

void take_defaults(generation_request& request,
                   const text::sampling_defaults& defaults) {
  auto take = [](bool given, const auto& from, auto& to) {
    if (!given && from)
      to = *from;
  };
  auto& params = request.params;
  const auto& given = request.given;
  take(given.temperature, defaults.temperature, params.temperature);
  take(given.top_p, defaults.top_p, params.top_p);
  take(given.top_k, defaults.top_k, params.top_k);
  take(given.min_p, defaults.min_p, params.min_p);
  take(given.repetition_penalty, defaults.repetition_penalty,
       params.repetition_penalty);
  if (params.temperature < temperature_min)
    params.temperature = 0;
}

std::optional<api_error> check_prompt_ids(const std::vector<token_id>& ids,
                                          std::uint32_t vocabulary,
                                          std::string_view param) {
  for (auto id : ids)
    if (auto wrong = check_id(id, vocabulary, param))
      return wrong;
  return std::nullopt;
}

} // namespace troupe::api
