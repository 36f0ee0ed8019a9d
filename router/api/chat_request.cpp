#include "router/api/json_body.hpp"
#include "router/api/request_fields.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace troupe::api {

namespace dom = simdjson::dom;

namespace {

constexpr std::size_t role_bytes_max = 64;

constexpr std::array<std::string_view, 6> known_roles = {
    "system", "developer", "user", "assistant", "tool", "function"};

bool is_known(std::string_view role) {
  return std::find(known_roles.begin(), known_roles.end(), role) !=
         known_roles.end();
}

bool has_control_characters(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}

/// OpenAI's own roles are trusted text. Any other is the client's: content, so
/// that it cannot spell a special token.
void read_role(field_reader& message, text::value::map& out) {
  std::string_view role;
  auto element = message.find("role");
  if (!element || element->get(role) || role.empty() ||
      role.size() > role_bytes_max || has_control_characters(role))
    return message.refuse(
        "role", fmt::format("must be a string of 1 to {} bytes without "
                            "control characters.",
                            role_bytes_max));
  out.emplace_back("role", is_known(role) ? text::value::trusted(role)
                                          : text::value::content(role));
}

/// The text of one part; empty with the error set if it is none.
std::string_view read_part(dom::element element, std::string path,
                           first_error& error) {
  dom::object object;
  if (element.get(object)) {
    error.set(path, fmt::format("{} must be an object like {{\"type\": "
                                "\"text\", \"text\": \"...\"}}.",
                                path));
    return {};
  }
  field_reader part{object, std::move(path), error};
  std::string_view type, text;
  auto type_element = part.find("type");
  if (!type_element || type_element->get(type) || type != "text")
    part.refuse("type", "must be \"text\": images and other kinds of content "
                        "are not supported yet.");
  auto text_element = part.find("text");
  if (!text_element || text_element->get(text))
    part.refuse("text", "must be a string.");
  return text;
}

text::value part_value(std::string_view text) {
  return {text::value::map{{"type", text::value::trusted("text")},
                           {"text", text::value::content(text)}}};
}

text::value read_parts(dom::array parts, const std::string& path,
                       first_error& error) {
  if (parts.size() == 0 || parts.size() > parts_max)
    error.set(path, fmt::format("{} must have between 1 and {} parts.", path,
                                parts_max));
  std::vector<std::string_view> texts;
  for (auto part : parts) {
    texts.push_back(read_part(part, item_path(path, texts.size()), error));
    if (error)
      return {};
  }
  if (texts.size() == 1)
    return text::value::content(texts.front());
  text::value::list values;
  for (auto text : texts)
    values.push_back(part_value(text));
  return {std::move(values)};
}

void read_content(field_reader& message, text::value::map& out) {
  auto element = message.find("content");
  std::string_view text;
  dom::array parts;
  if (element && !element->get(text))
    out.emplace_back("content", text::value::content(text));
  else if (element && !element->get(parts))
    out.emplace_back(
        "content", read_parts(parts, message.path("content"), message.error()));
  else
    message.refuse("content", "must be a string or a list of text parts.");
}

void refuse_tool_calls(field_reader& message) {
  auto calls = message.list("tool_calls");
  if (calls && calls->size() > 0)
    message.refuse("tool_calls", "are not supported yet.");
  if (message.find("function_call"))
    message.refuse("function_call", "is not supported yet.");
  if (message.find("audio"))
    message.refuse("audio", "is not supported yet.");
}

void read_optional_text(field_reader& message, const char* name,
                        text::value::map& out) {
  std::string text;
  if (message.text(name, name_bytes_max, text))
    out.emplace_back(name, text::value::content(text));
}

text::value read_message(dom::element element, std::string path,
                         first_error& error) {
  dom::object object;
  if (element.get(object)) {
    error.set(path, fmt::format("{} must be an object with a role and "
                                "content.",
                                path));
    return {};
  }
  field_reader message{object, std::move(path), error};
  text::value::map out;
  read_role(message, out);
  refuse_tool_calls(message);
  read_content(message, out);
  read_optional_text(message, "name", out);
  read_optional_text(message, "tool_call_id", out);
  return {std::move(out)};
}

bool speaks_for_the_system(const text::value& message) {
  for (const auto& [key, v] : std::get<text::value::map>(message.data))
    if (const auto* role = std::get_if<text::text_pieces>(&v.data);
        role && key == "role" && role->size() == 1)
      return (*role)[0].text == "system" || (*role)[0].text == "developer";
  return false;
}

void read_messages(field_reader& fields, text::value& place) {
  auto messages = fields.list("messages");
  if (!messages || messages->size() == 0 || messages->size() > messages_max)
    return fields.refuse(
        "messages",
        fmt::format("must be a list of 1 to {} messages.", messages_max));
  text::value::list values;
  for (auto message : *messages) {
    values.push_back(read_message(message, item_path("messages", values.size()),
                                  fields.error()));
    if (fields.error())
      return;
  }
  if (std::all_of(values.begin(), values.end(), speaks_for_the_system))
    return fields.refuse("messages",
                         "must hold a message that is not the system's.");
  place.data = std::move(values);
}

void read_max_tokens(field_reader& fields, generation_request& request) {
  request.params.max_tokens = 0;
  for (std::string_view name : {"max_tokens", "max_completion_tokens"})
    if (read_integer(fields, name, 1, tokens_max, request.params.max_tokens)) {
      request.max_tokens_given = true;
      request.max_tokens_field = name;
    }
}

void read_logprobs(field_reader& fields, chat_request& request) {
  fields.flag("logprobs", request.logprobs);
  std::int32_t top = 0;
  read_integer(fields, "top_logprobs", 0, top_logprobs_max, top);
  if (request.logprobs)
    request.params.logprobs = top;
  else if (top > 0)
    fields.refuse("top_logprobs", "may only be given when logprobs is true.");
}

bool ends_with_assistant(const text::value& messages) {
  const auto& list = std::get<text::value::list>(messages.data);
  const auto& last = std::get<text::value::map>(list.back().data);
  const auto& role = std::get<text::text_pieces>(last.front().second.data);
  return role.front().text == "assistant";
}

void read_prompt_end(field_reader& fields, chat_request& request) {
  fields.flag("continue_final_message", request.continue_final_message);
  request.add_generation_prompt = !request.continue_final_message;
  fields.flag("add_generation_prompt", request.add_generation_prompt);
  if (request.add_generation_prompt && request.continue_final_message)
    fields.refuse("continue_final_message",
                  "and add_generation_prompt exclude each other.");
}

/// Echo repeats the assistant's message that is being continued; before any
/// other last message it has nothing to repeat.
void check_echo(field_reader& fields, const chat_request& request) {
  bool echo = false;
  fields.flag("echo", echo);
  if (echo && !fields.error() && ends_with_assistant(request.messages))
    fields.refuse("echo", "is not supported yet when the last message is the "
                          "assistant's.");
}

void check_special_tokens(field_reader& fields) {
  bool add = false;
  fields.flag("add_special_tokens", add);
  if (add)
    fields.refuse("add_special_tokens", "must be false in a chat: the chat "
                                        "template writes them.");
}

} // namespace

void read_chat_prompt(field_reader& fields, chat_request& request) {
  read_messages(fields, request.messages);
  read_prompt_end(fields, request);
  read_template_fields(fields, request);
  check_special_tokens(fields);
}

api_result<chat_request> parse_chat_request(std::string_view body) {
  json_body json;
  if (auto wrong = json.parse(body))
    return *wrong;
  first_error error;
  field_reader fields{json.root(), {}, error};
  chat_request request;
  read_chat_prompt(fields, request);
  read_max_tokens(fields, request);
  read_shared_fields(fields, request);
  read_min_tokens(fields, request);
  read_logprobs(fields, request);
  check_echo(fields, request);
  if (error)
    return *error;
  return request;
}

} // namespace troupe::api
