#pragma once

#include "engine/text/tokenizer_data.hpp"

#include <array>
#include <cstring>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

namespace troupe::text {

/// Ids of the words met in one call. A new word takes the place of an older one
/// with the same hash, so the size is fixed.
class word_cache {
public:
  static constexpr std::size_t word_bytes_max = 22;
  static constexpr std::size_t ids_max = 10;

  class slot {
  public:
    /// Appends the ids of `word` if it is the one here.
    bool append_if(std::string_view word, std::vector<token_id>& out) const {
      if (size_ != word.size() ||
          std::memcmp(word_.data(), word.data(), word.size()) != 0)
        return false;
      out.insert(out.end(), ids_.begin(), ids_.begin() + count_);
      return true;
    }

    void put(std::string_view word, std::span<const token_id> ids) {
      if (ids.size() > ids_max)
        return;
      size_ = static_cast<std::uint8_t>(word.size());
      count_ = static_cast<std::uint8_t>(ids.size());
      std::memcpy(word_.data(), word.data(), word.size());
      std::copy(ids.begin(), ids.end(), ids_.begin());
    }

  private:
    std::array<char, word_bytes_max> word_{};
    std::uint8_t size_ = 0; ///< 0: nothing yet
    std::uint8_t count_ = 0;
    std::array<token_id, ids_max> ids_{};
  };

  /// Where a word of up to `word_bytes_max` bytes is, if it is known.
  slot& slot_of(std::string_view word) {
    return slots_[std::hash<std::string_view>{}(word) % slots_.size()];
  }

private:
  std::vector<slot> slots_{4096};
};

} // namespace troupe::text
