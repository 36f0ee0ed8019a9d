#include "router/api/field_reader.hpp"

#include <algorithm>
#include <array>
#include <boost/algorithm/string/predicate.hpp>
#include <charconv>
#include <cmath>
#include <fmt/format.h>

namespace troupe::api {

namespace dom = simdjson::dom;

namespace {

constexpr std::size_t shown_key_bytes = 64;

/// Doubles count whole numbers exactly up to here.
constexpr double whole_number_max = 9007199254740992.0;

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number value{};
  auto end = text.data() + text.size();
  auto [stop, code] = std::from_chars(text.data(), end, value);
  if (code != std::errc{} || stop != end)
    return std::nullopt;
  return value;
}

std::optional<double> to_number(dom::element element, bool takes_strings) {
  if (element.is_number())
    return double{element.get_double().value_unsafe()};
  std::string_view text;
  if (!takes_strings || element.get(text))
    return std::nullopt;
  auto value = parse_number<double>(text);
  return value && std::isfinite(*value) ? value : std::nullopt;
}

std::optional<std::int64_t> whole(double value) {
  if (std::abs(value) > whole_number_max || value != std::trunc(value))
    return std::nullopt;
  return static_cast<std::int64_t>(value);
}

std::optional<std::int64_t> to_integer(dom::element element,
                                       bool takes_strings) {
  if (std::int64_t value = 0; !element.get(value))
    return value;
  if (element.is_double())
    return whole(element.get_double().value_unsafe());
  std::string_view text;
  if (!takes_strings || element.get(text))
    return std::nullopt;
  return parse_number<std::int64_t>(text);
}

bool is_one_of(std::string_view text,
               const std::array<std::string_view, 6>& words) {
  return std::any_of(words.begin(), words.end(), [&](auto word) {
    return boost::algorithm::iequals(text, word);
  });
}

std::optional<bool> to_flag(dom::element element, bool takes_strings) {
  if (bool value = false; !element.get(value))
    return value;
  std::string_view text;
  if (!takes_strings || element.get(text))
    return std::nullopt;
  if (is_one_of(text, {"true", "yes", "on", "1", "t", "y"}))
    return true;
  if (is_one_of(text, {"false", "no", "off", "0", "f", "n"}))
    return false;
  return std::nullopt;
}

std::string rule(const number_range& range) {
  if (range.low_excluded)
    return fmt::format("must be a number greater than {} and at most {}.",
                       range.low, range.high);
  return fmt::format("must be a number between {} and {}.", range.low,
                     range.high);
}

bool holds(const number_range& range, double value) {
  bool above = range.low_excluded ? value > range.low : value >= range.low;
  return above && value <= range.high;
}

} // namespace

api_error invalid_field(std::string param, std::string message) {
  api_error error;
  error.param = std::move(param);
  error.message = std::move(message);
  return error;
}

std::string shown_key(std::string_view key) {
  return std::string{key.substr(0, shown_key_bytes)};
}

std::string field_path(const std::string& path, std::string_view key) {
  return path.empty() ? shown_key(key) : path + "." + shown_key(key);
}

std::string item_path(const std::string& path, std::size_t index) {
  return fmt::format("{}[{}]", path, index);
}

void first_error::set(std::string param, std::string message) {
  if (!error_)
    error_ = invalid_field(std::move(param), std::move(message));
}

std::optional<dom::element> field_reader::find(std::string_view name) const {
  dom::element element;
  if (object_.at_key(name).get(element) || element.is_null())
    return std::nullopt;
  return element;
}

std::string field_reader::path(std::string_view name) const {
  return field_path(path_, name);
}

void field_reader::refuse(std::string_view name, std::string_view rule) {
  error_.set(path(name), fmt::format("{} {}", path(name), rule));
}

bool field_reader::flag(std::string_view name, bool& place) {
  auto element = find(name);
  if (!element)
    return false;
  auto value = to_flag(*element, takes_strings());
  if (value)
    place = *value;
  else
    refuse(name, "must be true or false.");
  return value.has_value();
}

bool field_reader::number(std::string_view name, number_range range,
                          float& place) {
  auto element = find(name);
  if (!element)
    return false;
  auto value = to_number(*element, takes_strings());
  bool right = value && holds(range, *value);
  if (right)
    place = static_cast<float>(*value);
  else
    refuse(name, rule(range));
  return right;
}

bool field_reader::integer(std::string_view name, std::int64_t low,
                           std::int64_t high, std::int64_t& place) {
  auto element = find(name);
  if (!element)
    return false;
  auto value = to_integer(*element, takes_strings());
  bool right = value && *value >= low && *value <= high;
  if (right)
    place = *value;
  else
    refuse(name,
           fmt::format("must be an integer between {} and {}.", low, high));
  return right;
}

bool field_reader::text(std::string_view name, std::size_t bytes_max,
                        std::string& place) {
  auto element = find(name);
  if (!element)
    return false;
  std::string_view value;
  bool right = !element->get(value) && value.size() <= bytes_max;
  if (right)
    place = value;
  else
    refuse(name,
           fmt::format("must be a string of at most {} bytes.", bytes_max));
  return right;
}

bool field_reader::seed(std::string_view name, std::uint64_t& place) {
  auto element = find(name);
  if (!element)
    return false;
  if (auto value = to_integer(*element, takes_strings())) {
    place = static_cast<std::uint64_t>(*value);
    return true;
  }
  if (!element->get(place))
    return true;
  std::string_view text;
  if (takes_strings() && !element->get(text))
    if (auto value = parse_number<std::uint64_t>(text)) {
      place = *value;
      return true;
    }
  refuse(name, "must be an integer of at most 64 bits.");
  return false;
}

std::optional<dom::array> field_reader::list(std::string_view name) {
  auto element = find(name);
  dom::array value;
  if (element && !element->get(value))
    return value;
  if (element)
    refuse(name, "must be a list.");
  return std::nullopt;
}

std::optional<dom::object> field_reader::object(std::string_view name) {
  auto element = find(name);
  dom::object value;
  if (element && !element->get(value))
    return value;
  if (element)
    refuse(name, "must be an object.");
  return std::nullopt;
}

} // namespace troupe::api
