#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace troupe::text {

/// A word of 1 to 16 bytes as three numbers: different words have different
/// ones, so that tables compare and hash without touching the text again.
struct short_word {
  static constexpr std::size_t bytes_max = 16;

  std::uint64_t front = 0;
  std::uint64_t back = 0;
  std::uint32_t size = 0; ///< 0: no word

  short_word() = default;

  explicit short_word(std::string_view word)
      : size(static_cast<std::uint32_t>(word.size())) {
    const auto* begin = word.data();
    const auto* end = begin + word.size();
    if (word.size() >= 8) {
      front = load<std::uint64_t>(begin);
      back = load<std::uint64_t>(end - 8);
    } else if (word.size() >= 4) {
      front = load<std::uint32_t>(begin);
      back = load<std::uint32_t>(end - 4);
    } else {
      front = load<std::uint8_t>(begin);
      back = load<std::uint8_t>(begin + word.size() / 2) |
             load<std::uint8_t>(end - 1) << 8;
    }
  }

  bool operator==(const short_word&) const = default;

  std::uint64_t hash() const {
    auto mixed = (front ^ size) * 0x9E3779B97F4A7C15ull;
    mixed = (mixed ^ mixed >> 32 ^ back) * 0xD6E8FEB86659FD93ull;
    return mixed ^ mixed >> 32;
  }

private:
  template <class T>
  static std::uint64_t load(const char* at) {
    T out;
    std::memcpy(&out, at, sizeof out);
    return out;
  }
};

} // namespace troupe::text
