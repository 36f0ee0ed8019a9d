#include "engine/model/hugging_face/json_fields.hpp"

#include <cmath>
#include <fmt/format.h>

namespace troupe::model::hugging_face {

namespace dom = simdjson::dom;

bool json_fields::has(std::string_view key) const {
  dom::element value;
  return !object_.at_key(key).get(value) && !value.is_null();
}

std::vector<std::string_view> json_fields::keys() const {
  std::vector<std::string_view> out;
  for (auto field : object_)
    out.push_back(field.key);
  return out;
}

dom::element json_fields::at(std::string_view key) const {
  return object_.at_key(key).value_unsafe();
}

error json_fields::wrong(std::string_view key, std::string_view what,
                         errc code) const {
  return {code, fmt::format("{}{} {}", path_, key, what)};
}

template <class T>
result<T> json_fields::get(std::string_view key, std::optional<T> otherwise,
                           std::string_view what) const {
  if (!has(key) && otherwise)
    return std::move(*otherwise);
  if (!has(key))
    return wrong(key, "is missing");
  T value{};
  if (at(key).get(value))
    return wrong(key, fmt::format("is not {}", what));
  return value;
}

result<std::int64_t> json_fields::whole(std::string_view key, std::int64_t min,
                                        std::int64_t max) const {
  auto value = get<std::int64_t>(key, {}, "a whole number");
  if (value && (*value < min || *value > max))
    return wrong(key,
                 fmt::format("is {}, not from {} to {}", *value, min, max));
  return value;
}

result<double> json_fields::real(std::string_view key,
                                 std::optional<double> otherwise) const {
  return get<double>(key, otherwise, "a number");
}

result<double> json_fields::positive(std::string_view key,
                                     std::optional<double> otherwise) const {
  auto value = real(key, otherwise);
  if (value && *value <= 0)
    return wrong(key, fmt::format("is {}, not above 0", *value));
  return value;
}

result<bool> json_fields::flag(std::string_view key,
                               std::optional<bool> otherwise) const {
  return get<bool>(key, otherwise, "a boolean");
}

result<std::string>
json_fields::text(std::string_view key,
                  std::optional<std::string> otherwise) const {
  auto view = otherwise ? std::optional<std::string_view>{*otherwise}
                        : std::optional<std::string_view>{};
  auto value = get<std::string_view>(key, view, "a text");
  if (!value)
    return value.error();
  return std::string{*value};
}

template <class T>
result<std::vector<T>> json_fields::list(std::string_view key,
                                         std::string_view what) const {
  auto values = get<dom::array>(key, {}, "a list");
  if (!values)
    return values.error();
  std::vector<T> out;
  for (auto element : *values) {
    T value{};
    if (element.get(value))
      return wrong(key, fmt::format("holds something that is not {}", what));
    out.push_back(value);
  }
  return out;
}

result<std::vector<float>> json_fields::reals(std::string_view key,
                                              std::int64_t count) const {
  auto values = list<double>(key, "a number");
  if (!values)
    return values.error();
  if (static_cast<std::int64_t>(values->size()) != count)
    return wrong(key,
                 fmt::format("has {} numbers, not {}", values->size(), count));
  std::vector<float> out;
  for (auto value : *values) {
    out.push_back(static_cast<float>(value));
    if (!std::isfinite(out.back()) || out.back() <= 0)
      return wrong(key, fmt::format("holds {}, not a number above 0", value));
  }
  return out;
}

result<std::vector<std::int64_t>>
json_fields::wholes(std::string_view key) const {
  return list<std::int64_t>(key, "a whole number");
}

result<std::vector<std::string>>
json_fields::texts(std::string_view key) const {
  auto views = list<std::string_view>(key, "a text");
  if (!views)
    return views.error();
  return std::vector<std::string>(views->begin(), views->end());
}

result<json_fields> json_fields::object(std::string_view key) const {
  auto value = get<dom::object>(key, {}, "an object");
  if (!value)
    return value.error();
  return json_fields{*value, fmt::format("{}{}.", path_, key)};
}

} // namespace troupe::model::hugging_face
