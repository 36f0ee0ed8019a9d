#pragma once

#include "engine/codec/error.hpp"
#include "engine/text/tokenizer_data.hpp"

#include <array>
#include <string_view>
#include <unordered_map>

namespace troupe::text {

/// Entries of a tokenizer's vocabulary by spelling.
class vocabulary_index {
public:
  /// Refuses entries spelled alike. `data` outlives the index.
  static result<vocabulary_index> make(const tokenizer_data& data);

  bool has(token_id id) const {
    return id >= 0 && static_cast<std::size_t>(id) < data_->vocabulary.size();
  }

  bool is_special(token_id id) const {
    return has(id) && kind_of(id) == token_kind::special;
  }

  token_kind kind_of(token_id id) const {
    return data_->kinds[static_cast<std::size_t>(id)];
  }

  /// -1 if there is none.
  token_id id_of(std::string_view spelling) const;

  /// As above, but special tokens do not count: text never yields them.
  token_id id_of_text(std::string_view spelling) const;

  /// Ids of "<0x00>" to "<0xFF>"; -1 where there is none.
  std::array<token_id, 256> byte_tokens() const;

private:
  const tokenizer_data* data_ = nullptr;
  std::unordered_map<std::string_view, token_id> ids_;
};

/// The byte that "<0x41>" stands for; -1 if that is no such spelling.
int byte_of_spelling(std::string_view spelling);

} // namespace troupe::text
