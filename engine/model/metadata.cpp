#include "engine/model/metadata.hpp"

#include <cmath>
#include <fmt/format.h>
#include <limits>

namespace troupe::model {

bool metadata::has(std::string_view key) const {
  return file_.find(key) != nullptr;
}

error metadata::wrong(std::string_view key, std::string_view what,
                      errc code) const {
  return {code, fmt::format("{}: metadata '{}' {}", file_.name(), key, what)};
}

template <class T>
result<const T*> metadata::get(std::string_view key,
                               std::string_view what) const {
  auto* found = file_.find(key);
  if (!found)
    return static_cast<const T*>(nullptr);
  if (auto* value = std::get_if<T>(found))
    return value;
  return wrong(key, fmt::format("is not {}", what));
}

result<std::int64_t>
metadata::number(std::string_view key, std::int64_t min, std::int64_t max,
                 std::optional<std::int64_t> fallback) const {
  auto* found = file_.find(key);
  if (!found && fallback)
    return *fallback;
  if (!found)
    return wrong(key, "is missing");
  std::int64_t value = 0;
  if (auto* wide = std::get_if<std::uint64_t>(found)) {
    constexpr auto most = std::numeric_limits<std::int64_t>::max();
    value =
        *wide > std::uint64_t{most} ? most : static_cast<std::int64_t>(*wide);
  } else if (auto* plain = std::get_if<std::int64_t>(found)) {
    value = *plain;
  } else {
    return wrong(key, "is not a whole number");
  }
  if (value < min || value > max)
    return wrong(key, fmt::format("is {}, not from {} to {}", value, min, max));
  return value;
}

result<double> metadata::positive(std::string_view key,
                                  std::optional<double> fallback) const {
  auto value = get<double>(key, "a number with a fraction");
  if (!value)
    return value.error();
  if (!*value && fallback)
    return *fallback;
  if (!*value)
    return wrong(key, "is missing");
  if (!std::isfinite(**value) || **value <= 0)
    return wrong(key,
                 fmt::format("is {}, not a finite number above 0", **value));
  return **value;
}

result<bool> metadata::flag(std::string_view key, bool fallback) const {
  auto value = get<bool>(key, "a boolean");
  if (!value)
    return value.error();
  return *value ? **value : fallback;
}

result<std::string> metadata::text(std::string_view key,
                                   std::optional<std::string> fallback) const {
  auto value = get<std::string>(key, "a text");
  if (!value)
    return value.error();
  if (!*value && !fallback)
    return wrong(key, "is missing");
  return *value ? **value : *fallback;
}

result<const std::vector<std::string>*>
metadata::texts(std::string_view key) const {
  return get<std::vector<std::string>>(key, "a list of texts");
}

result<const std::vector<std::int64_t>*>
metadata::numbers(std::string_view key) const {
  return get<std::vector<std::int64_t>>(key, "a list of whole numbers");
}

result<const std::vector<bool>*> metadata::flags(std::string_view key) const {
  return get<std::vector<bool>>(key, "a list of booleans");
}

bool metadata::has_flags(std::string_view key) const {
  auto* found = file_.find(key);
  return found && std::holds_alternative<std::vector<bool>>(*found);
}

result<const std::vector<double>*> metadata::reals(std::string_view key) const {
  return get<std::vector<double>>(key, "a list of numbers with fractions");
}

} // namespace troupe::model
