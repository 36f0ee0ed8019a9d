#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace troupe::text {

/// What the front of a byte string is.
struct utf8_unit {
  enum class kind {
    character,  ///< a whole character
    invalid,    ///< a maximal subpart of an ill-formed sequence
    incomplete, ///< the start of a character that the end cuts off
  };
  kind what = kind::character;
  std::size_t size = 0; ///< bytes, at least 1
};

/// The first unit of `bytes`, which is not empty.
utf8_unit first_utf8_unit(std::string_view bytes);

bool is_utf8(std::string_view bytes);

/// U+FFFD, which stands for each unit that is no character, as Python's
/// errors="replace" has it.
inline constexpr std::string_view replacement_character = "\xEF\xBF\xBD";

/// Appends `bytes` with every unit that is no character replaced.
void append_replaced(std::string_view bytes, std::string& out);

/// Appends the UTF-8 form of a scalar value.
void append_utf8(char32_t character, std::string& out);

/// The scalar value of a whole character as `first_utf8_unit` found it.
char32_t decode_utf8(std::string_view character);

} // namespace troupe::text
