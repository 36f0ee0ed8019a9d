#pragma once

#include "engine/text/text_piece.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace troupe::text {

/// A JSON-like value handed to a chat template: messages, tools, flags. Strings
/// are spans that remember where each character came from, so that content
/// stays content through every filter (DESIGN.md, "Edge").
struct value {
  using list = std::vector<value>;
  using map = std::vector<std::pair<std::string, value>>; ///< keeps its order

  std::variant<std::monostate, bool, std::int64_t, double, text_pieces, list,
               map>
      data{}; // clang 14 cannot finish the type without the braces

  static value content(std::string_view text); ///< from a request
  static value trusted(std::string_view text); ///< from the operator
};

} // namespace troupe::text
