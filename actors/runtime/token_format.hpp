#pragma once

#include "engine/codec/error.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace troupe::runtime {

/// The words of a join token's text (see token.hpp).
struct token_parts {
  std::string authority_hash;
  std::uint64_t expires = 0; ///< seconds since 1970
  std::string mac;

  bool operator==(const token_parts&) const = default;
};

std::string write_token_parts(const token_parts&);

/// Takes nothing but what `write_token_parts` writes.
result<token_parts> read_token_parts(std::string_view text);

} // namespace troupe::runtime
