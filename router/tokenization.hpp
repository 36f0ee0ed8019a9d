#pragma once

#include "router/api/openai.hpp"
#include "router/model_text.hpp"

#include <string>
#include <string_view>
#include <variant>

/// What the text side of a model answers alone: ids of texts, texts of ids.
namespace troupe::router {

using text_request =
    std::variant<api::tokenize_request, api::detokenize_request>;

/// `ids`: what comes are ids, that is, for POST /detokenize.
api::api_result<text_request> parse_text_request(bool ids,
                                                 std::string_view body);

/// The name of the model that it is for; empty: the only one.
const std::string& model_of(const text_request&);

/// The body of the answer. Errors: a template that refuses the chat, ids
/// outside the vocabulary, a text that cannot fit the context.
api::api_result<std::string> answer_text(text_request&, const model_text&);

} // namespace troupe::router
