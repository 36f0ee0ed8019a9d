#pragma once

#include "engine/codec/error.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::text::jinja {

enum class token_type : std::uint8_t {
  text,        ///< outside of tags; whitespace control is already applied
  output_open, ///< {{
  output_close,
  block_open, ///< {%
  block_close,
  name,
  string,
  integer,
  floating,
  symbol, ///< operators and punctuation
  end,
};

struct token {
  token_type type = token_type::end;
  std::string value; ///< text, name, symbol, or the string's characters
  int line = 0;
};

/// Splits a template as Jinja2 does with trim_blocks and lstrip_blocks on and
/// one trailing newline dropped, which is how chat templates are meant.
/// Comments and {% raw %} are gone afterwards.
result<std::vector<token>> tokenize(std::string_view source);

} // namespace troupe::text::jinja
