#pragma once

#include "engine/text/short_word.hpp"
#include "engine/text/tokenizer_data.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <string_view>
#include <vector>

namespace troupe::text {

/// Ids of the words met in one call. A new word takes the place of an older one
/// with the same hash, so the size is fixed.
class word_cache {
public:
  static constexpr std::size_t ids_max = 9;

  class slot {
  public:
    /// Appends the ids of `word` if it is the one here.
    bool append_if(const short_word& word, std::vector<token_id>& out) const {
      if (word_ != word)
        return false;
      out.insert(out.end(), ids_.begin(), ids_.begin() + count_);
      return true;
    }

    void put(const short_word& word, std::span<const token_id> ids) {
      if (ids.size() > ids_max)
        return;
      word_ = word;
      count_ = static_cast<std::uint32_t>(ids.size());
      std::copy(ids.begin(), ids.end(), ids_.begin());
    }

  private:
    short_word word_; ///< of size 0: nothing yet
    std::array<token_id, ids_max> ids_{};
    std::uint32_t count_ = 0;
  };

  /// Where a word is, if it is known.
  slot& slot_of(const short_word& word) {
    return slots_[word.hash() % slots_.size()];
  }

private:
  std::vector<slot> slots_{4096};
};

} // namespace troupe::text
