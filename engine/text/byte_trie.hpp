#pragma once

#include "engine/text/tokenizer_data.hpp"

#include <cstdint>
#include <string_view>
#include <vector>

namespace troupe::text {

/// Vocabulary entries by their bytes: walks a text and tells which entries end
/// on the way. Immutable after `make`.
class byte_trie {
public:
  struct entry {
    std::string_view spelling; ///< not empty
    token_id id = -1;
  };

  using node = std::uint32_t;
  static constexpr node root = 0;
  static constexpr node none = UINT32_MAX;

  /// Of entries spelled alike the last one counts.
  static byte_trie make(std::vector<entry> entries);

  /// Where a byte leads; `none` if no entry goes on so.
  node next(node from, char byte) const {
    auto label = static_cast<std::uint8_t>(byte);
    auto at = nodes_[from].base + label;
    return at < slots_.size() && slots_[at].parent == from ? slots_[at].child
                                                           : none;
  }

  /// Where a text leads.
  node walk(node from, std::string_view text) const;

  /// The entry that ends at a node, or -1.
  token_id id_at(node at) const {
    return nodes_[at].id;
  }

private:
  struct place {
    std::uint32_t base = 0; ///< its children are at base + byte
    token_id id = -1;
  };
  struct slot {
    node parent = none;
    node child = none;
  };
  struct range;

  void place_children(const std::vector<entry>& entries, const range& all,
                      std::vector<range>& open, std::size_t& free_from);

  std::vector<place> nodes_;
  std::vector<slot> slots_;
};

} // namespace troupe::text
