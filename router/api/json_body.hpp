#pragma once

#include "router/api/openai.hpp"

#include <mutex>
#include <optional>
#include <simdjson.h>
#include <string_view>

namespace troupe::api {

/// The JSON object of a request's body, read strictly (row J1 of the attack
/// table): UTF-8 without a byte order mark, whole surrogate pairs, numbers
/// that fit, bounded depth, no doubled key in any object, nothing after the
/// closing brace. Cannot be moved: elements point into it.
class json_body {
public:
  static constexpr std::size_t depth_max = 64;
  static constexpr std::size_t fields_max = 4096; ///< per object

  json_body() = default;
  json_body(const json_body&) = delete;
  json_body& operator=(const json_body&) = delete;

  /// Call once. An error is a 400 that names the field where there is one.
  std::optional<api_error> parse(std::string_view bytes);

  /// Valid after parse() without an error, as long as this lives.
  simdjson::dom::object root() const {
    return root_;
  }

private:
  std::unique_lock<std::mutex> turn_; ///< held for large bodies
  simdjson::dom::parser parser_;
  simdjson::dom::object root_;
};

} // namespace troupe::api
