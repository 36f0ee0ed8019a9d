#pragma once

#include "engine/text/byte_trie.hpp"
#include "engine/text/split_pattern.hpp"
#include "engine/text/tokenizer.hpp"

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace troupe::text {

/// Finds special and added tokens in text: leftmost first, of those the
/// longest. Immutable after `prepare`.
class added_token_finder {
public:
  /// Longer spellings are refused when the tokenizer is made, so that the time
  /// to look at one position is bounded.
  static constexpr std::size_t spelling_bytes_max = 512;

  /// A token as it is found. `token_end` and `token_begin` enclose the
  /// spelling, `begin` and `end` the white space that it takes with it, too.
  struct found {
    token_id id = -1;
    std::size_t begin = 0;
    std::size_t token_begin = 0;
    std::size_t token_end = 0;
    std::size_t end = 0;
  };

  /// `allowed(id, begin, end)` says whether that text may be this token.
  using filter = std::function<bool(token_id, std::size_t, std::size_t)>;

  /// Of tokens spelled alike the first one counts.
  void add(std::string_view spelling, const added_token_options& options);

  /// After the last `add`.
  void prepare();

  bool empty() const {
    return options_.empty();
  }

  /// The first token at `from` or after it. White space before `from` is not
  /// taken. False if there is none.
  bool find(std::string_view text, std::size_t from, const filter& allowed,
            found& out) const;

private:
  bool longest_at(std::string_view text, std::size_t at, const filter& allowed,
                  found& out) const;
  bool is_word(std::string_view character) const;
  bool place(std::string_view text, std::size_t from, found& token) const;

  std::vector<std::pair<std::string, token_id>> added_;
  byte_trie tokens_;
  std::unordered_map<token_id, added_token_options> options_;
  std::shared_ptr<const split_pattern> word_character_; ///< if one asks for it
  std::array<bool, 256> starts_{};
};

} // namespace troupe::text
