#pragma once

#include "engine/text/jinja/builtins.hpp"

#include <cstdint>
#include <string>

namespace troupe::text::jinja {

/// How a value is laid out, as both ways of formatting say it.
struct format_layout {
  marked_string fill{" "};
  char align = '\0';      ///< one of < > ^ =; 0: as the type has it
  char sign = '-';        ///< one of - + and blank
  bool alternate = false; ///< 0x, 0o, 0b in front
  char group = '\0';      ///< between digits: , or _
  std::int64_t width = 0;
  std::int64_t precision = -1; ///< < 0: not given
  char type = '\0';
};

/// The largest number of digits that a format may ask for.
inline constexpr std::int64_t precision_max = 1000;

/// A whole number of type b d o x X. With a precision, at least so many digits.
marked_string format_whole(meter&, std::int64_t, const format_layout&);

/// A number of type e E f F g G % or none (0).
marked_string format_real(meter&, double, const format_layout&);

/// A text, cut at the precision.
marked_string format_text(meter&, const marked_string&, const format_layout&);

} // namespace troupe::text::jinja
