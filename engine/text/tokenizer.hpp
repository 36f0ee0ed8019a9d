#pragma once

#include "engine/codec/error.hpp"
#include "engine/text/text_piece.hpp"
#include "engine/text/tokenizer_data.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::text {

/// Text to ids and back. Immutable after `make`; safe to use from any thread.
class tokenizer {
public:
  /// Checks the data: ids in range, merges known, patterns compile.
  static result<std::shared_ptr<const tokenizer>> make(tokenizer_data);

  virtual ~tokenizer() = default;

  /// Appends the ids of `text`. With `parse_special` the text of special tokens
  /// becomes their ids, else it is plain characters; `added` tokens are matched
  /// either way. No bos. Invalid UTF-8 is replaced by U+FFFD as `tokenizers`
  /// sees it after Python's decode(errors="replace"). Time is O(n log n).
  virtual void encode(std::string_view text, bool parse_special,
                      std::vector<token_id>& out) const = 0;

  /// Appends the ids of pieces: neighbouring text is one text for the model
  /// whatever its origin, but special tokens are recognised only where every
  /// character of them is template text.
  virtual void encode(const text_pieces& pieces,
                      std::vector<token_id>& out) const = 0;

  /// The bytes that a token stands for inside a text (special: its text).
  virtual std::string_view bytes_of(token_id id) const = 0;

  /// The bytes that it stands for as the first of a text: some tokenizers spell
  /// a space that is not shown there.
  virtual std::string_view bytes_at_front(token_id id) const = 0;

  /// What a whole text loses at its front: up to `count` times `text`.
  struct leading_strip {
    std::string text;
    std::uint32_t count = 0;
  };
  virtual const leading_strip& strip_of_text() const = 0;

  virtual bool is_special(token_id id) const = 0;

  /// Id of a vocabulary entry by its spelling; -1 if there is none.
  virtual token_id id_of(std::string_view spelling) const = 0;

  virtual const tokenizer_data& data() const = 0;
};

} // namespace troupe::text
