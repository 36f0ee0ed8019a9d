#include "router/api/json_body.hpp"
#include "router/api/request_fields.hpp"

#include <fmt/format.h>

namespace troupe::api {

namespace dom = simdjson::dom;

namespace {

constexpr std::int64_t default_max_tokens = 16;

void refuse_prompt(const std::string& path, first_error& error) {
  error.set(path, fmt::format("{} must be a string, a list of token ids, or a "
                              "list of at most {} of these, none of them "
                              "empty.",
                              path, prompts_max));
}

bool is_integer(dom::element element) {
  return element.is_int64() || element.is_uint64();
}

/// One prompt of a list.
prompt read_prompt(dom::element element, const std::string& path,
                   first_error& error) {
  std::string_view text;
  dom::array ids;
  if (!element.get(text) && !text.empty())
    return std::string{text};
  if (!element.get(ids) && ids.size() > 0)
    return read_ids(ids, path, error);
  refuse_prompt(path, error);
  return {};
}

void read_prompt_list(dom::array list, const std::string& path,
                      std::vector<prompt>& prompts, first_error& error) {
  if (list.size() == 0)
    return refuse_prompt(path, error);
  if (is_integer(*list.begin())) {
    prompts.push_back(read_ids(list, path, error));
    return;
  }
  if (list.size() > prompts_max)
    return refuse_prompt(path, error);
  for (auto item : list) {
    if (error)
      return;
    prompts.push_back(
        read_prompt(item, item_path(path, prompts.size()), error));
  }
}

void read_max_tokens(field_reader& fields, completion_request& request) {
  request.params.max_tokens = default_max_tokens;
  request.max_tokens_given =
      read_integer(fields, "max_tokens", request.echo ? 0 : 1, tokens_max,
                   request.params.max_tokens);
}

void read_logprobs(field_reader& fields, completion_request& request) {
  auto& params = request.params;
  read_integer(fields, "logprobs", 0, top_logprobs_max, params.logprobs);
  if (request.echo)
    params.prompt_logprobs = params.logprobs;
}

void check_choices(field_reader& fields, const completion_request& request) {
  auto choices = request.prompts.size() * request.n;
  if (choices > static_cast<std::size_t>(choices_max))
    fields.refuse("n", fmt::format("times the number of prompts may be at "
                                   "most {}.",
                                   choices_max));
}

} // namespace

std::vector<token_id> read_ids(dom::array list, const std::string& path,
                               first_error& error) {
  std::vector<token_id> ids;
  ids.reserve(list.size());
  for (auto item : list) {
    std::int64_t id = 0;
    if (item.get(id) || id < 0 || id > tokens_max) {
      error.set(item_path(path, ids.size()),
                fmt::format("{} must be a token id: an integer between 0 and "
                            "{}.",
                            item_path(path, ids.size()), tokens_max));
      return {};
    }
    ids.push_back(static_cast<token_id>(id));
  }
  return ids;
}

void read_prompts(field_reader& fields, std::string_view name,
                  std::vector<prompt>& prompts) {
  auto element = fields.find(name);
  auto path = fields.path(name);
  dom::array list;
  if (!element)
    refuse_prompt(path, fields.error());
  else if (!element->get(list))
    read_prompt_list(list, path, prompts, fields.error());
  else
    prompts.push_back(read_prompt(*element, path, fields.error()));
}

void read_completion_prompts(field_reader& fields,
                             completion_request& request) {
  read_prompts(fields, "prompt", request.prompts);
  fields.flag("add_special_tokens", request.add_special_tokens);
}

api_result<completion_request> parse_completion_request(std::string_view body) {
  json_body json;
  if (auto wrong = json.parse(body))
    return *wrong;
  first_error error;
  field_reader fields{json.root(), {}, error};
  completion_request request;
  read_completion_prompts(fields, request);
  fields.flag("echo", request.echo);
  read_max_tokens(fields, request);
  read_shared_fields(fields, request);
  read_min_tokens(fields, request);
  read_logprobs(fields, request);
  check_choices(fields, request);
  refuse_chat_fields(fields);
  if (error)
    return *error;
  return request;
}

} // namespace troupe::api
