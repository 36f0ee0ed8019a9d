#pragma once

#include "engine/codec/error.hpp"
#include "engine/weights/checkpoint.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::model {

/// Typed and checked access to a checkpoint's metadata. An error names the
/// file, the key and what is wrong with its value. A value of another type than
/// asked for is an error, never taken for a missing one.
class metadata {
public:
  /// `file` must outlive this object.
  explicit metadata(const weights::checkpoint& file) : file_(file) {
    // nop
  }

  bool has(std::string_view key) const;

  /// A whole number from `min` to `max`; `fallback` if the key is missing, an
  /// error if that is unset.
  result<std::int64_t> number(std::string_view key, std::int64_t min,
                              std::int64_t max,
                              std::optional<std::int64_t> fallback = {}) const;

  /// A finite number above 0.
  result<double> positive(std::string_view key,
                          std::optional<double> fallback = {}) const;

  result<bool> flag(std::string_view key, bool fallback) const;

  result<std::string> text(std::string_view key,
                           std::optional<std::string> fallback = {}) const;

  /// A list of texts, whole numbers or booleans; null if the key is missing.
  result<const std::vector<std::string>*> texts(std::string_view key) const;
  result<const std::vector<std::int64_t>*> numbers(std::string_view key) const;
  result<const std::vector<bool>*> flags(std::string_view key) const;

  /// True if the key holds a list of booleans.
  bool has_flags(std::string_view key) const;

  /// A list of numbers with fractions; null if the key is missing.
  result<const std::vector<double>*> reals(std::string_view key) const;

  /// "file.gguf: metadata 'key' <what>".
  error wrong(std::string_view key, std::string_view what,
              errc code = errc::corrupt) const;

private:
  template <class T>
  result<const T*> get(std::string_view key, std::string_view what) const;

  const weights::checkpoint& file_;
};

} // namespace troupe::model
