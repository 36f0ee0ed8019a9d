#pragma once

#include "engine/codec/error.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::text {

/// SentencePiece's precompiled table of replacements: a double-array trie of
/// what is replaced (darts-clone's units), then the replacements, each with a
/// zero byte after it. Layout, little-endian:
///   u32 bytes of the trie | u32 units | replacements
class charsmap {
public:
  static result<charsmap> make(std::string_view table);

  /// The replacement of the shortest key that `text` begins with; nothing if no
  /// key fits. What `tokenizers` asks with a grapheme or a character.
  std::optional<std::string_view> find(std::string_view text) const;

private:
  std::vector<std::uint32_t> units_;
  std::string replacements_;
};

} // namespace troupe::text
