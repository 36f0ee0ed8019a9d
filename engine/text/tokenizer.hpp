#pragma once

#include "engine/codec/error.hpp"
#include "engine/codec/tagged.hpp"
#include "engine/text/text_piece.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::text {

using token_id = std::int32_t;

/// What a vocabulary entry is.
enum class token_kind : std::uint8_t {
  normal,
  special, ///< control token: "<|im_end|>"; never part of visible text
  added,   ///< matched whole before BPE, but visible text
  unused,
};

/// What becomes of the parts that a split pattern matches (`tokenizers` has the
/// same names). Whatever it is, no piece ever holds parts of two pieces.
enum class split_behavior : std::uint8_t {
  isolated, ///< a piece of their own
  removed,  ///< dropped
  merged_with_previous,
  merged_with_next,
  contiguous, ///< neighbouring matches are one piece
};

/// How a split pattern is applied.
struct split_options {
  split_behavior behavior = split_behavior::isolated;
  bool invert = false; ///< the parts between the matches count as the matches

  bool operator==(const split_options&) const = default;
};

/// How a special or added token is looked for in text.
struct added_token_options {
  token_id id = -1;
  bool single_word = false; ///< only where no word character is next to it
  bool lstrip = false;      ///< takes the white space before it with it
  bool rstrip = false;      ///< takes the white space after it with it
  bool normalized = false;  ///< is looked for after normalisation

  bool operator==(const added_token_options&) const = default;
};

/// A byte-level BPE tokenizer as data, read from GGUF metadata or from a
/// tokenizer.json; travels inside the model card.
struct tokenizer_data {
  /// Entry by id, as the file spells it (byte-level alphabet for normal tokens,
  /// plain text for special and added ones).
  std::vector<std::string> vocabulary;
  std::vector<token_kind> kinds;   ///< one per entry
  std::vector<std::string> merges; ///< "left right", best first
  /// Pre-tokenizer: patterns applied one after the other, each splitting the
  /// pieces of the one before. Spelled as in tokenizer.json
  /// (split_pattern.hpp).
  std::vector<std::string> split_patterns;
  std::vector<split_options> split_modes; ///< one per pattern; empty: isolated
  /// Of the special and added tokens that differ from the default.
  std::vector<added_token_options> added_options;
  bool normalize_nfc = false;
  bool add_prefix_space = false; ///< ByteLevel's
  bool ignore_merges = false;    ///< Llama 3: whole words in the vocabulary win
  token_id bos = -1;             ///< -1 = none
  token_id eos = -1;
  /// Stands for a byte that the vocabulary lacks, if it is no special token
  /// (text never yields one); else such bytes are dropped, as `tokenizers` does
  /// without an unk_token. A GGUF's unknown_token_id is not meant: leave it
  /// out.
  token_id unknown = -1;
  bool add_bos = false; ///< prompts of /v1/completions begin with bos

  bool operator==(const tokenizer_data&) const = default;
};

/// Tagged encoding (engine/codec/tagged.hpp).
codec::bytes encode(const tokenizer_data&);
result<tokenizer_data> decode_tokenizer_data(codec::bytes_view);

/// Reads a Hugging Face tokenizer.json (byte-level BPE; what else it asks for
/// is refused by name). `text` is the file's content.
result<tokenizer_data> read_tokenizer_json(std::string_view text);

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

  /// Appends the ids of pieces: neighbouring text is one text for BPE whatever
  /// its origin, but special tokens are recognised only where every character
  /// of them is template text.
  virtual void encode(const text_pieces& pieces,
                      std::vector<token_id>& out) const = 0;

  /// The bytes that a token stands for (special: its text).
  virtual std::string_view bytes_of(token_id id) const = 0;

  virtual bool is_special(token_id id) const = 0;

  /// Id of a vocabulary entry by its spelling; -1 if there is none.
  virtual token_id id_of(std::string_view spelling) const = 0;

  virtual const tokenizer_data& data() const = 0;
};

} // namespace troupe::text
