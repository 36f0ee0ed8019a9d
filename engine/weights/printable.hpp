#pragma once

#include <string>
#include <string_view>

namespace troupe::weights {

/// Text of a file for a message: short and without control characters.
inline std::string printable(std::string_view text) {
  std::string out{text.substr(0, 80)};
  for (auto& c : out)
    if (static_cast<unsigned char>(c - 0x20) >= 0x5f)
      c = '?';
  return out;
}

} // namespace troupe::weights
