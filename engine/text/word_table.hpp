#pragma once

#include "engine/text/short_word.hpp"
#include "engine/text/tokenizer_data.hpp"

#include <bit>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace troupe::text {

/// Words that are one id. Immutable after the last `add`.
class word_table {
public:
  explicit word_table(std::size_t count = 0)
      : slots_(std::bit_ceil(count * 2 + 2)) {
    // nop
  }

  /// Not more than the `count` of the constructor. Of the same word the first
  /// one counts.
  void add(std::string_view word, token_id id) {
    if (word.size() > short_word::bytes_max) {
      long_.try_emplace(std::string{word}, id);
      return;
    }
    auto& slot = const_cast<entry&>(find_slot(short_word{word}));
    if (slot.word.size == 0)
      slot = {short_word{word}, id};
  }

  /// -1 if there is none. `word` is not empty.
  token_id find(std::string_view word) const {
    if (word.size() <= short_word::bytes_max)
      return find_slot(short_word{word}).id;
    auto at = long_.find(word);
    return at == long_.end() ? -1 : at->second;
  }

private:
  struct entry {
    short_word word;
    token_id id = -1;
  };

  struct text_hash : std::hash<std::string_view> {
    using is_transparent = void;
  };

  const entry& find_slot(const short_word& word) const {
    auto at = word.hash() & (slots_.size() - 1);
    while (slots_[at].word.size != 0 && slots_[at].word != word)
      at = (at + 1) & (slots_.size() - 1);
    return slots_[at];
  }

  std::vector<entry> slots_; ///< open addressing, a power of two
  std::unordered_map<std::string, token_id, text_hash, std::equal_to<>> long_;
};

} // namespace troupe::text
