#pragma once

#include "engine/codec/error.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace troupe::codec {

/// Bytes of an encoded record.
using bytes = std::vector<std::uint8_t>;
using bytes_view = std::span<const std::uint8_t>;

/// Writes a record as a sequence of fields, each
///   tag: u16 little-endian | length: u32 little-endian | payload.
/// A field that holds its default is left out, so records stay small and old
/// readers do not meet fields that nobody used. Fields may come in any order;
/// a repeated tag is a list.
class writer {
public:
  /// Writes a number, enum or bool in little-endian form.
  template <class T>
    requires(std::is_arithmetic_v<T> || std::is_enum_v<T>)
  void put(std::uint16_t tag, T value) {
    put_raw(tag, &value, sizeof value);
  }

  /// Writes `value` unless it equals `fallback`.
  template <class T>
  void put_unless(std::uint16_t tag, const T& value, const T& fallback) {
    if (value != fallback)
      put(tag, value);
  }

  void put(std::uint16_t tag, std::string_view text) {
    put_raw(tag, text.data(), text.size());
  }

  /// Writes the elements one after the other; `T` is trivially copyable.
  template <class T>
    requires std::is_trivially_copyable_v<T>
  void put(std::uint16_t tag, std::span<const T> values) {
    put_raw(tag, values.data(), values.size_bytes());
  }

  template <class T>
    requires std::is_trivially_copyable_v<T>
  void put(std::uint16_t tag, const std::vector<T>& values) {
    put(tag, std::span<const T>{values});
  }

  /// The record so far; the writer is empty afterwards.
  bytes take() {
    return std::move(out_);
  }

private:
  void put_raw(std::uint16_t tag, const void* data, std::size_t size);

  bytes out_;
};

/// One field of a record: its tag and payload, with typed access that checks
/// the length.
struct field {
  std::uint16_t tag = 0;
  bytes_view payload;

  template <class T>
    requires(std::is_arithmetic_v<T> || std::is_enum_v<T>)
  [[nodiscard]] bool get(T& out) const {
    if (payload.size() != sizeof out)
      return false;
    if constexpr (std::is_same_v<T, bool>) {
      if (payload[0] > 1)
        return false;
      out = payload[0] == 1;
    } else {
      std::memcpy(&out, payload.data(), sizeof out);
    }
    return true;
  }

  [[nodiscard]] bool get(std::string& out) const {
    out.assign(reinterpret_cast<const char*>(payload.data()), payload.size());
    return true;
  }

  template <class T>
    requires std::is_trivially_copyable_v<T>
  [[nodiscard]] bool get(std::vector<T>& out) const {
    if (payload.size() % sizeof(T) != 0)
      return false;
    out.resize(payload.size() / sizeof(T));
    if (!payload.empty())
      std::memcpy(out.data(), payload.data(), payload.size());
    return true;
  }
};

/// Reads the fields of a record in order. Never reads outside `data`.
class reader {
public:
  explicit reader(bytes_view data) : rest_(data) {
    // nop
  }

  /// Moves to the next field. False at the end and on broken input, which
  /// `ok()` tells apart.
  bool next(field& out);

  /// False once the input turned out to be cut short.
  bool ok() const {
    return ok_;
  }

private:
  bytes_view rest_;
  bool ok_ = true;
};

/// The error for a field that the reader of `record` does not know: an unknown
/// field is refused by number, never skipped.
error unknown_field(std::string_view record, std::uint16_t tag);

/// The error for a field or record whose bytes do not fit its type.
error broken_field(std::string_view record, std::uint16_t tag);

} // namespace troupe::codec
