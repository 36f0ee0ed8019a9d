#pragma once

#include "engine/codec/error.hpp"
#include "engine/weights/json_document.hpp"
#include "engine/weights/printable.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace troupe::model::hugging_face {

/// Typed and checked access to a JSON object's values; null counts as missing.
/// An error names the file, the key and what is wrong with its value.
class json_fields {
public:
  /// `path` begins every message: "config.json: ", "config.json:
  /// rope_scaling.". The object's document outlives this.
  json_fields(simdjson::dom::object object, std::string path)
      : object_(object), path_(std::move(path)) {
    // nop
  }

  bool has(std::string_view key) const;

  /// The value of a key that is there.
  simdjson::dom::element at(std::string_view key) const;

  /// A whole number from `min` to `max`; an error if the key is missing.
  result<std::int64_t> whole(std::string_view key, std::int64_t min,
                             std::int64_t max) const;

  /// A finite number, above 0. Missing: `otherwise`, an error without one; so
  /// in all that follows.
  result<double> real(std::string_view key,
                      std::optional<double> otherwise = {}) const;
  result<double> positive(std::string_view key,
                          std::optional<double> otherwise = {}) const;

  result<bool> flag(std::string_view key,
                    std::optional<bool> otherwise = {}) const;

  result<std::string> text(std::string_view key,
                           std::optional<std::string> otherwise = {}) const;

  /// The values of a list that is there: finite numbers above 0 that fit a
  /// float, exactly `count` of them; whole numbers; texts.
  result<std::vector<float>> reals(std::string_view key,
                                   std::int64_t count) const;
  result<std::vector<std::int64_t>> wholes(std::string_view key) const;
  result<std::vector<std::string>> texts(std::string_view key) const;

  std::vector<std::string_view> keys() const;

  /// The fields of an object that is there.
  result<json_fields> object(std::string_view key) const;

  /// "config.json: rope_scaling.factor <what>".
  error wrong(std::string_view key, std::string_view what,
              errc code = errc::corrupt) const;

private:
  template <class T>
  result<std::vector<T>> list(std::string_view key,
                              std::string_view what) const;

  template <class T>
  result<T> get(std::string_view key, std::optional<T> otherwise,
                std::string_view what) const;

  simdjson::dom::object object_;
  std::string path_;
};

} // namespace troupe::model::hugging_face
