#include "router/tokenization.hpp"

namespace troupe::router {

namespace {

using api::api_result;

api_result<std::vector<token_id>> ids_of(api::chat_request& request,
                                         const model_text& model) {
  return chat_prompt(model, request);
}

api_result<std::vector<token_id>> ids_of(api::completion_request& request,
                                         const model_text& model) {
  return raw_prompt(model, request.prompts.front(), request.add_special_tokens,
                    "prompt");
}

api_result<std::string> answer(api::tokenize_request& request,
                               const model_text& model) {
  auto ids =
      std::visit([&](auto& one) { return ids_of(one, model); }, request.what);
  if (!ids)
    return ids.error();
  std::vector<std::string> strings;
  if (request.return_token_strs)
    for (auto id : *ids)
      strings.emplace_back(model.tokenizer->bytes_of(id));
  return api::tokenize_body(*ids, model.max_model_len, strings);
}

api_result<std::string> answer(api::detokenize_request& request,
                               const model_text& model) {
  api::prompt ids = std::move(request.tokens);
  if (std::get<std::vector<token_id>>(ids).empty())
    return api::detokenize_body("");
  auto good = raw_prompt(model, ids, false, "tokens");
  if (!good)
    return good.error();
  return api::detokenize_body(shown_prompt(model, ids));
}

} // namespace

api_result<text_request> parse_text_request(bool ids, std::string_view body) {
  if (ids) {
    auto request = api::parse_detokenize_request(body);
    if (!request)
      return request.error();
    return text_request{std::move(*request)};
  }
  auto request = api::parse_tokenize_request(body);
  if (!request)
    return request.error();
  return text_request{std::move(*request)};
}

const std::string& model_of(const text_request& request) {
  if (auto* ids = std::get_if<api::detokenize_request>(&request))
    return ids->model;
  const auto& what = std::get<api::tokenize_request>(request).what;
  return std::visit(
      [](const auto& one) -> const std::string& { return one.model; }, what);
}

api_result<std::string> answer_text(text_request& request,
                                    const model_text& model) {
  return std::visit([&](auto& one) { return answer(one, model); }, request);
}

} // namespace troupe::router
