#include "router/api/json_body.hpp"

#include "router/api/field_reader.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <vector>

namespace troupe::api {

namespace {

namespace dom = simdjson::dom;
namespace ondemand = simdjson::ondemand;

/// A parsed body takes up to sixteen times its bytes: larger ones than this
/// are parsed one at a time, which bounds what all of them take together.
constexpr std::size_t large_body_bytes = 1u << 20;

std::mutex& large_body_turn() {
  static std::mutex turn;
  return turn;
}

std::string_view reason(simdjson::error_code code) {
  switch (code) {
  case simdjson::EMPTY:
    return "it is empty";
  case simdjson::DEPTH_ERROR:
    return "its lists and objects are nested too deep";
  case simdjson::UTF8_ERROR:
    return "it is not UTF-8";
  case simdjson::NUMBER_ERROR:
    return "a number is malformed or too large";
  case simdjson::STRING_ERROR:
    return "a string has a broken escape sequence";
  case simdjson::UNESCAPED_CHARS:
    return "a string holds a control character that is not escaped";
  case simdjson::UNCLOSED_STRING:
    return "a string does not end";
  case simdjson::CAPACITY:
  case simdjson::MEMALLOC:
    return "it is too large";
  default:
    return "its structure is broken";
  }
}

bool is_well_formed(ondemand::value value) {
  ondemand::json_type type;
  if (value.type().get(type))
    return false;
  return type != ondemand::json_type::number || !value.get_number().error();
}

/// The top-level field whose value is a malformed scalar; empty if unknown.
std::string malformed_field(std::string_view bytes) {
  ondemand::parser parser;
  simdjson::padded_string copy{bytes};
  ondemand::document document;
  ondemand::object root;
  if (parser.iterate(copy).get(document) || document.get_object().get(root))
    return {};
  for (auto field : root) {
    std::string_view key;
    ondemand::value value;
    if (field.unescaped_key().get(key) || field.value().get(value))
      return {};
    if (!is_well_formed(value))
      return shown_key(key);
  }
  return {};
}

api_error malformed(std::string_view bytes, simdjson::error_code code) {
  bool scalar = code == simdjson::NUMBER_ERROR || code == simdjson::TAPE_ERROR;
  auto field = scalar ? malformed_field(bytes) : std::string{};
  if (!field.empty())
    return invalid_field(
        field, fmt::format("The value of {} is not valid JSON, or a number "
                           "that is too large.",
                           field));
  return invalid_field("", fmt::format("The request body is not valid JSON: "
                                       "{}.",
                                       reason(code)));
}

std::optional<std::string_view> doubled(std::vector<std::string_view>& keys) {
  std::sort(keys.begin(), keys.end());
  auto twin = std::adjacent_find(keys.begin(), keys.end());
  return twin == keys.end() ? std::nullopt : std::optional{*twin};
}

/// Paths grow from the inside out, so that right bodies pay nothing for them.
api_error within(const std::string& outer, api_error inner) {
  bool joined = inner.param.empty() || inner.param.front() == '[';
  inner.param = outer + (joined ? "" : ".") + inner.param;
  return inner;
}

std::optional<api_error> check_keys(dom::element element);

std::optional<api_error> check_keys(dom::array list) {
  std::size_t i = 0;
  for (auto item : list) {
    if (auto wrong = check_keys(item))
      return within(item_path("", i), std::move(*wrong));
    ++i;
  }
  return std::nullopt;
}

std::optional<api_error> check_keys(dom::object object) {
  if (object.size() > json_body::fields_max)
    return invalid_field("", fmt::format("An object has more than {} fields.",
                                         json_body::fields_max));
  std::vector<std::string_view> keys;
  for (auto field : object) {
    keys.push_back(field.key);
    if (auto wrong = check_keys(field.value))
      return within(shown_key(field.key), std::move(*wrong));
  }
  if (auto key = doubled(keys))
    return invalid_field(
        shown_key(*key),
        fmt::format("The key \"{}\" stands twice in the same object.",
                    shown_key(*key)));
  return std::nullopt;
}

/// Recursion is bounded by json_body::depth_max.
std::optional<api_error> check_keys(dom::element element) {
  if (dom::object object; !element.get(object))
    return check_keys(object);
  if (dom::array list; !element.get(list))
    return check_keys(list);
  return std::nullopt;
}

} // namespace

std::optional<api_error> json_body::parse(std::string_view bytes) {
  if (bytes.starts_with("\xef\xbb\xbf"))
    return invalid_field("", "The request body begins with a byte order mark; "
                             "send plain UTF-8 JSON.");
  if (bytes.size() > large_body_bytes)
    turn_ = std::unique_lock{large_body_turn()};
  if (auto code = parser_.allocate(bytes.size(), depth_max))
    return malformed(bytes, code);
  dom::element element;
  if (auto code = parser_.parse(bytes.data(), bytes.size()).get(element))
    return malformed(bytes, code);
  if (element.get(root_))
    return invalid_field("", "The request body must be a JSON object.");
  return check_keys(root_);
}

} // namespace troupe::api
