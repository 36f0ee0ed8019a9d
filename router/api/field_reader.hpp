#pragma once

#include "router/api/openai.hpp"

#include <cstdint>
#include <limits>
#include <optional>
#include <simdjson.h>
#include <string>
#include <string_view>

namespace troupe::api {

/// A 400 about the field at `param` (empty: about the body as a whole).
api_error invalid_field(std::string param, std::string message);

/// A client's key as errors show it: cut to 64 bytes.
std::string shown_key(std::string_view key);

/// "messages" + "role" = "messages.role"; at the top just the key.
std::string field_path(const std::string& path, std::string_view key);
std::string item_path(const std::string& path, std::size_t index);

/// The first thing found wrong with a request. Later ones are dropped.
class first_error {
public:
  void set(std::string param, std::string message);
  explicit operator bool() const {
    return error_.has_value();
  }
  const api_error& operator*() const {
    return *error_;
  }

private:
  std::optional<api_error> error_;
};

/// Values that a number may have. Infinities mean "no bound".
struct number_range {
  double low;
  double high;
  bool low_excluded = false;
};

/// Reads the fields of one JSON object into typed places and checks them. A
/// field that is absent or null leaves its place untouched. A wrong one sets
/// the error, with a sentence that says what is allowed; callers read field
/// after field and look at the error at the end.
///
/// Numbers and booleans of the top level may come as strings ("12", "yes"), as
/// Ray Serve LLM takes them; nested ones may not.
class field_reader {
public:
  field_reader(simdjson::dom::object object, std::string path,
               first_error& error)
      : object_{object}, path_{std::move(path)}, error_{error} {
  }

  /// The value, unless it is absent or null.
  std::optional<simdjson::dom::element> find(std::string_view name) const;
  std::string path(std::string_view name) const;

  // Each returns true if the field was there and right.
  bool flag(std::string_view name, bool& place);
  bool number(std::string_view name, number_range, float& place);
  bool integer(std::string_view name, std::int64_t low, std::int64_t high,
               std::int64_t& place);
  bool text(std::string_view name, std::size_t bytes_max, std::string& place);
  /// Any 64-bit integer, signed or not; negative ones as two's complement.
  bool seed(std::string_view name, std::uint64_t& place);

  std::optional<simdjson::dom::array> list(std::string_view name);
  std::optional<simdjson::dom::object> object(std::string_view name);

  /// Sets the error for this field: "<path> <rule>".
  void refuse(std::string_view name, std::string_view rule);

  first_error& error() {
    return error_;
  }

private:
  bool takes_strings() const {
    return path_.empty();
  }

  simdjson::dom::object object_;
  std::string path_;
  first_error& error_;
};

/// Reads an integral field of any width.
template <class Integer>
bool read_integer(field_reader& fields, std::string_view name, std::int64_t low,
                  std::int64_t high, Integer& place) {
  std::int64_t value = 0;
  bool read = fields.integer(name, low, high, value);
  if (read)
    place = static_cast<Integer>(value);
  return read;
}

} // namespace troupe::api
