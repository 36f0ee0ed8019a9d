#pragma once

#include "engine/codec/error.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

namespace troupe::text {

/// Where a value stands, for messages: "pre_tokenizer.pretokenizers[1]".
inline std::string json_path(std::string_view path, std::string_view key) {
  return path.empty() ? std::string{key} : fmt::format("{}.{}", path, key);
}

inline std::string json_path(std::string_view path, std::size_t index) {
  return fmt::format("{}[{}]", path, index);
}

/// The first problem met in a tokenizer.json; the rest is then not read.
class json_problem {
public:
  bool fail(errc code, std::string_view path, std::string_view what) {
    if (!problem_)
      problem_ = error{code, fmt::format("tokenizer.json: {}: {}", path, what)};
    return false;
  }

  bool refuse(std::string_view path, std::string_view what) {
    return fail(errc::unsupported, path,
                fmt::format("{} is not supported", what));
  }

  const std::optional<error>& what() const {
    return problem_;
  }

private:
  std::optional<error> problem_;
};

/// An object of the file with its path. Its readers return false once there is
/// a problem.
class json_object {
public:
  json_object(simdjson::dom::object object, std::string path,
              json_problem& problem)
      : object_(object), path_(std::move(path)), problem_(&problem) {
    // nop
  }

  std::string path_of(std::string_view key) const {
    return json_path(path_, key);
  }

  const std::string& path() const {
    return path_;
  }

  json_problem& problem() const {
    return *problem_;
  }

  const simdjson::dom::object& raw() const {
    return object_;
  }

  bool fail(errc code, std::string_view key, std::string_view what) const {
    return problem_->fail(code, path_of(key), what);
  }

  bool refuse(std::string_view key, std::string_view what) const {
    return problem_->refuse(path_of(key), what);
  }

  /// There, and not null.
  bool has(std::string_view key) const {
    simdjson::dom::element value;
    return object_.at_key(key).get(value) == simdjson::SUCCESS &&
           !value.is_null();
  }

  template <class T>
  bool get(std::string_view key, T& out) const {
    if (object_.at_key(key).get(out) != simdjson::SUCCESS)
      return fail(errc::corrupt, key, "missing or of a wrong type");
    return true;
  }

  template <class T>
  bool get_or(std::string_view key, T& out) const {
    return !has(key) || get(key, out);
  }

  /// A text that is copied.
  bool get_text(std::string_view key, std::string& out) const {
    std::string_view text;
    if (!get(key, text))
      return false;
    out = text;
    return true;
  }

  /// Empty if there is a problem.
  std::optional<json_object> child(std::string_view key) const {
    simdjson::dom::object object;
    if (!get(key, object))
      return std::nullopt;
    return json_object{object, path_of(key), *problem_};
  }

  /// Calls `on_object(json_object) -> bool` for each element of a list.
  template <class OnObject>
  bool for_each(std::string_view key, OnObject on_object) const {
    simdjson::dom::array list;
    if (!get(key, list))
      return false;
    std::size_t index = 0;
    for (auto value : list) {
      auto here = json_path(path_of(key), index++);
      simdjson::dom::object object;
      if (value.get(object) != simdjson::SUCCESS)
        return problem_->fail(errc::corrupt, here, "not an object");
      if (!on_object(json_object{object, here, *problem_}))
        return false;
    }
    return true;
  }

  /// Every key that is neither known nor null is refused.
  bool only(std::initializer_list<std::string_view> known) const {
    for (auto [key, value] : object_)
      if (!value.is_null() &&
          std::find(known.begin(), known.end(), key) == known.end())
        return refuse(key, "this field");
    return true;
  }

  /// Refuses a flag that is set; unset, null and absent are the same.
  bool is_off(std::string_view key) const {
    bool on = false;
    if (!get_or(key, on))
      return false;
    return !on || refuse(key, "true");
  }

private:
  simdjson::dom::object object_;
  std::string path_;
  json_problem* problem_;
};

} // namespace troupe::text
