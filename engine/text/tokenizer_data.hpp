#pragma once

#include "engine/codec/error.hpp"
#include "engine/codec/tagged.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::text {

using token_id = std::int32_t;

/// What a vocabulary entry is.
enum class token_kind : std::uint8_t {
  normal,
  special, ///< control token: "<|im_end|>"; never part of visible text
  added,   ///< matched whole before the model, but visible text
  unused,
};

/// How the pieces that the pre-tokenizer leaves become entries.
enum class model_kind : std::uint8_t {
  byte_level_bpe, ///< merges of bytes, spelled in the byte alphabet
  bpe,            ///< merges of characters
  unigram,        ///< the entries with the best sum of scores
  wordpiece,      ///< the longest entry that fits, from left to right
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

/// What is looked for: plain text, or a pattern as tokenizer.json spells it
/// (split_pattern.hpp).
struct text_pattern {
  std::string source{};
  bool is_regex = false;

  bool operator==(const text_pattern&) const = default;
};

/// One step of a normalizer: each works on the text of the one before.
struct normalizer_step {
  enum class kind : std::uint8_t {
    nfc,
    nfd,
    nfkc,
    nfkd,
    lowercase,
    strip_accents,       ///< marks of any kind
    strip,               ///< white space at the ends
    replace,             ///< every match of `pattern` by `text`
    prepend,             ///< `text` before any text but the empty one
    charsmap,            ///< SentencePiece's table in `text` (charsmap.hpp)
    bert_clean,          ///< no controls, plain spaces
    bert_pad_ideographs, ///< spaces around them
    bert_strip_accents,  ///< nonspacing marks of the decomposed text
  };

  kind what = kind::nfc;
  text_pattern pattern{};
  std::string text{};
  bool left = false; ///< strip: at this end
  bool right = false;

  bool operator==(const normalizer_step&) const = default;
};

/// One step of a pre-tokenizer: each works on every piece of the one before.
struct pre_token_step {
  enum class kind : std::uint8_t {
    split,   ///< cuts at `pattern` as `mode` says
    replace, ///< every match of `pattern` by `text`
    prefix,  ///< `text` before a piece that does not begin with it
  };

  kind what = kind::split;
  text_pattern pattern{};
  split_options mode{};
  std::string text{};
  bool front_only = false; ///< prefix: only where the whole text begins

  bool operator==(const pre_token_step&) const = default;
};

/// One step from the spelling of an entry to text.
struct decoder_step {
  enum class kind : std::uint8_t {
    byte_level,    ///< the byte alphabet stands for bytes
    byte_fallback, ///< "<0x41>" is a byte
    fuse,          ///< what follows works on the whole text
    strip,         ///< up to `left` and `right` of the character `text`
    replace,       ///< every match of `pattern` by `text`
    metaspace,     ///< `text` is a space; nothing in the first entry, if `flag`
    wordpiece,     ///< `text` continues a word; a space before others. With
                   ///< `flag` none before signs and contractions
  };

  kind what = kind::byte_level;
  text_pattern pattern{};
  std::string text{};
  std::uint32_t left = 0;
  std::uint32_t right = 0;
  bool flag = false;

  bool operator==(const decoder_step&) const = default;
};

/// How a special or added token is looked for in text.
struct added_token_options {
  token_id id = -1;
  bool single_word = false; ///< only where no word character is next to it
  bool lstrip = false;      ///< takes the white space before it with it
  bool rstrip = false;      ///< takes the white space after it with it
  bool normalized = false;  ///< is looked for after normalisation
  bool is_piece = false;    ///< WordPiece: an entry for words, too

  bool operator==(const added_token_options&) const = default;
};

/// A place in what the model reads: an id, or one of the texts.
struct frame_place {
  static constexpr token_id first_text = -1;
  static constexpr token_id second_text = -2;

  token_id id = first_text;
  std::uint32_t type = 0; ///< BERT's token type

  bool operator==(const frame_place&) const = default;
};

/// A tokenizer as data, read from GGUF metadata or from a tokenizer.json;
/// travels inside the model card.
struct tokenizer_data {
  model_kind model = model_kind::byte_level_bpe;
  /// Entry by id, as the file spells it (byte-level alphabet for normal tokens
  /// of byte-level BPE, plain text for special and added ones).
  std::vector<std::string> vocabulary;
  std::vector<token_kind> kinds;   ///< one per entry
  std::vector<std::string> merges; ///< BPE: "left right", best first
  /// Unigram: log-probabilities by id; entries beyond the list are no pieces.
  /// BPE: if there are any, they stand for the merges, as in SentencePiece: of
  /// two neighbours that make an entry, the one with the best score goes first.
  std::vector<double> scores;
  std::vector<normalizer_step> normalizer;
  std::vector<pre_token_step> pre_tokenizer;
  std::vector<decoder_step> decoder;
  /// Of the special and added tokens that differ from the default.
  std::vector<added_token_options> added_options;
  bool ignore_merges = false;    ///< Llama 3: whole words in the vocabulary win
  bool byte_fallback = false;    ///< "<0x41>" for bytes of unknown characters
  bool fuse_unknown = false;     ///< BPE: neighbouring unknowns are one
  std::string continuing_prefix; ///< wordpiece: of entries inside a word
  std::uint32_t word_characters_max = 100; ///< wordpiece: longer is unknown
  token_id bos = -1;                       ///< -1 = none
  token_id eos = -1;
  /// Stands for what the vocabulary lacks. For byte-level BPE only if it is no
  /// special token (text never yields one); else such bytes are dropped, as
  /// `tokenizers` does without an unk_token. A GGUF's unknown_token_id is not
  /// meant for those: leave it out.
  token_id unknown = -1;
  bool add_bos = false; ///< prompts of /v1/completions begin with bos
  /// What is put around one text and around two, besides that bos. Empty: only
  /// the texts.
  std::vector<frame_place> frame_one;
  std::vector<frame_place> frame_two;

  bool operator==(const tokenizer_data&) const = default;
};

/// Tagged encoding (engine/codec/tagged.hpp).
codec::bytes encode(const tokenizer_data&);
result<tokenizer_data> decode_tokenizer_data(codec::bytes_view);

/// Reads a Hugging Face tokenizer.json; what it asks for and is not known here
/// is refused by its path. `text` is the file's content. Truncation and padding
/// are left out: a model's context limits a prompt, and batches need no
/// padding.
result<tokenizer_data> read_tokenizer_json(std::string_view text);

} // namespace troupe::text
