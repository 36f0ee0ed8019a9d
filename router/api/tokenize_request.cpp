#include "router/api/json_body.hpp"
#include "router/api/json_writer.hpp"
#include "router/api/request_fields.hpp"

namespace troupe::api {

namespace {

void read_one_text(field_reader& fields, completion_request& request) {
  read_completion_prompts(fields, request);
  if (request.prompts.size() != 1 ||
      !std::holds_alternative<std::string>(request.prompts.front()))
    fields.refuse("prompt", "must be one string; a chat is given by messages.");
}

} // namespace

api_result<tokenize_request> parse_tokenize_request(std::string_view body) {
  json_body json;
  if (auto wrong = json.parse(body))
    return *wrong;
  first_error error;
  field_reader fields{json.root(), {}, error};
  tokenize_request out;
  std::string model;
  fields.text("model", name_bytes_max, model);
  fields.flag("return_token_strs", out.return_token_strs);
  if (fields.find("messages"))
    read_chat_prompt(fields, out.what.emplace<chat_request>());
  else
    read_one_text(fields, out.what.emplace<completion_request>());
  if (error)
    return *error;
  std::visit([&](auto& one) { one.model = std::move(model); }, out.what);
  return out;
}

api_result<detokenize_request> parse_detokenize_request(std::string_view body) {
  json_body json;
  if (auto wrong = json.parse(body))
    return *wrong;
  first_error error;
  field_reader fields{json.root(), {}, error};
  detokenize_request out;
  fields.text("model", name_bytes_max, out.model);
  if (auto list = fields.list("tokens"))
    out.tokens = read_ids(*list, "tokens", error);
  else
    fields.refuse("tokens", "must be a list of token ids.");
  if (error)
    return *error;
  return out;
}

std::string tokenize_body(const std::vector<token_id>& tokens,
                          std::uint32_t max_model_len,
                          const std::vector<std::string>& strings) {
  json_writer json;
  json.begin_object().key("count").natural(tokens.size());
  json.key("max_model_len").natural(max_model_len);
  json.key("tokens").begin_array();
  for (auto id : tokens)
    json.integer(id);
  json.end_array().key("token_strs");
  if (strings.size() == tokens.size() && !tokens.empty()) {
    json.begin_array();
    for (const auto& one : strings)
      json.text(one);
    json.end_array();
  } else {
    json.null();
  }
  return json.end_object().take();
}

std::string detokenize_body(std::string_view prompt) {
  json_writer json;
  json.begin_object().key("prompt").text(prompt).end_object();
  return json.take();
}

} // namespace troupe::api
