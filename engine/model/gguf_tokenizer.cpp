#include "engine/model/gguf_tokenizer.hpp"

#include "engine/text/character_sets.hpp"
#include "engine/text/pretokenizers.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

namespace troupe::model {

namespace {

using text::frame_place;
using text::token_kind;
using norm = text::normalizer_step::kind;
using dec = text::decoder_step::kind;

constexpr std::string_view visible_space = "\u2581";

/// Families whose tokenizer.json adds bos although files may not say so.
bool adds_bos_by_default(std::string_view pre) {
  return pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3" ||
         pre == "tekken";
}

class tokenizer_reader {
public:
  tokenizer_reader(const metadata& file, std::int64_t vocabulary)
      : file_(file), rows_(vocabulary) {
    // nop
  }

  result<text::tokenizer_data> run() {
    auto kind = file_.text(model_key);
    if (!kind)
      return kind.error();
    auto steps = steps_of(*kind);
    if (steps.empty())
      return refused(*kind);
    for (auto one : steps)
      if (auto done = (this->*one)(); !done)
        return done.error();
    return std::move(out_);
  }

private:
  using step = result<void> (tokenizer_reader::*)();
  using self = tokenizer_reader;

  static constexpr std::string_view model_key = "tokenizer.ggml.model";

  static std::vector<step> steps_of(std::string_view kind) {
    std::vector<step> out{&self::vocabulary, &self::kinds, &self::special_ids};
    if (kind == "gpt2")
      out.insert(out.end(), {&self::merges, &self::pretokenizer});
    else if (kind == "llama")
      out.insert(out.end(), {&self::scores, &self::sentencepiece_bpe});
    else if (kind == "t5")
      out.insert(out.end(), {&self::scores, &self::unigram});
    else if (kind == "bert")
      out.push_back(&self::wordpiece);
    else
      out.clear();
    return out;
  }

  error refused(const std::string& kind) const {
    for (const char* known : {"rwkv", "plamo2", "none"})
      if (kind == known)
        return file_.wrong(model_key,
                           fmt::format("is '{}': not supported yet", known),
                           errc::unsupported);
    return file_.wrong(
        model_key, "is not 'gpt2', 'llama', 't5' or 'bert': not supported yet",
        errc::unsupported);
  }

  // -- parts that all have ----------------------------------------------------

  result<void> vocabulary() {
    constexpr std::string_view key = "tokenizer.ggml.tokens";
    auto tokens = file_.texts(key);
    if (!tokens)
      return tokens.error();
    if (!*tokens)
      return file_.wrong(key, "is missing");
    if ((*tokens)->size() != static_cast<std::size_t>(rows_))
      return file_.wrong(
          key, fmt::format("has {} entries, but the embedding has {} rows",
                           (*tokens)->size(), rows_));
    out_.vocabulary = **tokens;
    return {};
  }

  result<void> kinds() {
    constexpr std::string_view key = "tokenizer.ggml.token_type";
    auto& out = out_.kinds;
    out.assign(out_.vocabulary.size(), token_kind::normal);
    auto types = file_.numbers(key);
    if (!types)
      return types.error();
    if (!*types)
      return {};
    if ((*types)->size() != out.size())
      return file_.wrong(key, fmt::format("has {} entries, not {}",
                                          (*types)->size(), out.size()));
    for (std::size_t i = 0; i < out.size(); ++i)
      if (!set_kind(out[i], (**types)[i]))
        return file_.wrong(
            key, fmt::format("holds {}, which is no token type", (**types)[i]));
    return {};
  }

  /// GGUF's token types. An "unknown" token is never text, a "byte" token is.
  static bool set_kind(token_kind& out, std::int64_t type) {
    switch (type) {
    case 1:
    case 6:
      out = token_kind::normal;
      return true;
    case 2:
    case 3:
      out = token_kind::special;
      return true;
    case 4:
      out = token_kind::added;
      return true;
    case 5:
      out = token_kind::unused;
      return true;
    default:
      return false;
    }
  }

  result<void> special_ids() {
    for (auto [out, name] : {std::pair{&out_.bos, "bos_token_id"},
                             {&out_.eos, "eos_token_id"},
                             {&out_.unknown, "unknown_token_id"}}) {
      auto found = read_token_id(file_, name, rows_);
      if (!found)
        return found.error();
      *out = *found;
    }
    return {};
  }

  result<void> scores() {
    constexpr std::string_view key = "tokenizer.ggml.scores";
    auto scores = file_.reals(key);
    if (!scores)
      return scores.error();
    if (!*scores)
      return file_.wrong(key, "is missing");
    if ((*scores)->size() != out_.vocabulary.size())
      return file_.wrong(key, fmt::format("has {} entries, not {}",
                                          (*scores)->size(),
                                          out_.vocabulary.size()));
    out_.scores = **scores;
    return {};
  }

  /// Whether prompts begin with bos, and eos after the text.
  result<void> ends(bool bos_by_default, bool eos_by_default) {
    auto bos = file_.flag("tokenizer.ggml.add_bos_token", bos_by_default);
    if (!bos)
      return bos.error();
    auto eos = file_.flag("tokenizer.ggml.add_eos_token", eos_by_default);
    if (!eos)
      return eos.error();
    if (*bos && out_.bos < 0)
      return file_.wrong("tokenizer.ggml.bos_token_id",
                         "is missing although prompts begin with it");
    if (*eos && out_.eos < 0)
      return file_.wrong("tokenizer.ggml.eos_token_id",
                         "is missing although prompts end with it");
    out_.add_bos = *bos;
    if (*eos)
      out_.frame_one = {{frame_place::first_text}, {out_.eos}};
    return {};
  }

  // -- byte-level BPE ---------------------------------------------------------

  result<void> merges() {
    constexpr std::string_view key = "tokenizer.ggml.merges";
    auto merges = file_.texts(key);
    if (!merges)
      return merges.error();
    if (!*merges)
      return file_.wrong(key, "is missing");
    out_.merges = **merges;
    return {};
  }

  result<void> pretokenizer() {
    constexpr std::string_view key = "tokenizer.ggml.pre";
    auto name = file_.text(key);
    if (!name)
      return name.error();
    auto found = text::pretokenizer_of(*name);
    if (!found)
      return file_.wrong(key,
                         "names a pre-tokenizer that is not supported yet" +
                             in_brackets(*name),
                         errc::unsupported);
    auto prefix = file_.flag("tokenizer.ggml.add_space_prefix", false);
    if (!prefix)
      return prefix.error();
    if (*prefix)
      out_.pre_tokenizer.push_back(
          {.what = text::pre_token_step::kind::prefix, .text = " "});
    for (auto& pattern : found->split_patterns)
      out_.pre_tokenizer.push_back({.pattern = {std::move(pattern), true}});
    if (found->normalize_nfc)
      out_.normalizer.push_back({.what = norm::nfc});
    out_.ignore_merges = found->ignore_merges;
    return ends(adds_bos_by_default(*name), false);
  }

  /// " (name)" if the name is a plain one, so that no control character of a
  /// file gets into a message.
  static std::string in_brackets(const std::string& name) {
    bool plain = name.size() <= 64 &&
                 std::all_of(name.begin(), name.end(), [](unsigned char c) {
                   return c > 0x20 && c < 0x7f;
                 });
    return plain ? fmt::format(" ({})", name) : "";
  }

  // -- SentencePiece ----------------------------------------------------------

  result<void> sentencepiece_bpe() {
    out_.model = text::model_kind::bpe;
    out_.byte_fallback = true;
    out_.fuse_unknown = true;
    auto prefix = file_.flag("tokenizer.ggml.add_space_prefix", true);
    if (!prefix)
      return prefix.error();
    add_spaces(*prefix);
    return ends(true, false);
  }

  result<void> unigram() {
    out_.model = text::model_kind::unigram;
    if (out_.unknown < 0)
      return file_.wrong("tokenizer.ggml.unknown_token_id", "is missing");
    auto map = file_.numbers("tokenizer.ggml.precompiled_charsmap");
    if (!map)
      return map.error();
    if (*map && !(*map)->empty()) {
      auto& step = out_.normalizer.emplace_back();
      step.what = norm::charsmap;
      for (auto byte : **map)
        step.text += static_cast<char>(byte);
    }
    auto trims = file_.flag("tokenizer.ggml.remove_extra_whitespaces", false);
    if (!trims)
      return trims.error();
    if (*trims) {
      out_.normalizer.push_back(
          {.what = norm::strip, .left = true, .right = true});
      out_.normalizer.push_back(
          {.what = norm::replace, .pattern = {" {2,}", true}, .text = " "});
    }
    auto prefix = file_.flag("tokenizer.ggml.add_space_prefix", false);
    if (!prefix)
      return prefix.error();
    add_spaces(*prefix);
    return ends(false, true);
  }

  // Spaces are a visible character, with one before the text if `prefix`.
  void add_spaces(bool prefix) {
    std::string space{visible_space};
    if (prefix)
      out_.normalizer.push_back({.what = norm::prepend, .text = space});
    out_.normalizer.push_back(
        {.what = norm::replace, .pattern = {" ", false}, .text = space});
    out_.decoder.push_back(
        {.what = dec::replace, .pattern = {space, false}, .text = " "});
    if (out_.byte_fallback)
      out_.decoder.push_back({.what = dec::byte_fallback});
    out_.decoder.push_back({.what = dec::fuse});
    if (prefix)
      out_.decoder.push_back({.what = dec::strip, .text = " ", .left = 1});
  }

  // -- WordPiece --------------------------------------------------------------

  // Files mark the beginnings of words, WordPiece what goes on.
  result<void> wordpiece() {
    out_.model = text::model_kind::wordpiece;
    out_.continuing_prefix = "##";
    for (std::size_t i = 0; i < out_.vocabulary.size(); ++i) {
      auto& entry = out_.vocabulary[i];
      if (entry.starts_with(visible_space))
        entry.erase(0, visible_space.size());
      else if (!entry.empty() && out_.kinds[i] == token_kind::normal &&
               !(entry.starts_with('[') && entry.ends_with(']')))
        entry.insert(0, "##");
    }
    if (out_.unknown < 0)
      return file_.wrong("tokenizer.ggml.unknown_token_id", "is missing");
    for (auto what : {norm::bert_clean, norm::bert_pad_ideographs,
                      norm::bert_strip_accents, norm::lowercase})
      out_.normalizer.push_back({.what = what});
    out_.pre_tokenizer.push_back(
        {.pattern = {"\\s", true}, .mode = {text::split_behavior::removed}});
    out_.pre_tokenizer.push_back(
        {.pattern = {text::punctuation_pattern(), true}});
    out_.decoder.push_back(
        {.what = dec::wordpiece, .text = "##", .flag = true});
    return bert_frames();
  }

  result<void> bert_frames() {
    auto begin = read_token_id(file_, "cls_token_id", rows_);
    if (!begin)
      return begin.error();
    auto end = read_token_id(file_, "seperator_token_id", rows_); // sic
    if (!end)
      return end.error();
    auto cls = *begin < 0 ? out_.bos : *begin;
    auto sep = *end < 0 ? out_.eos : *end;
    if (cls < 0 || sep < 0)
      return file_.wrong("tokenizer.ggml.seperator_token_id",
                         "or the one of cls is missing");
    auto first = frame_place::first_text;
    auto second = frame_place::second_text;
    out_.frame_one = {{cls}, {first}, {sep}};
    out_.frame_two = {{cls}, {first}, {sep}, {second, 1}, {sep, 1}};
    return {};
  }

  const metadata& file_;
  std::int64_t rows_;
  text::tokenizer_data out_;
};

} // namespace

result<text::tokenizer_data> read_gguf_tokenizer(const metadata& file,
                                                 std::int64_t vocabulary) {
  return tokenizer_reader{file, vocabulary}.run();
}

result<text::token_id> read_token_id(const metadata& file,
                                     std::string_view name,
                                     std::int64_t vocabulary) {
  auto value = file.number(fmt::format("tokenizer.ggml.{}", name), 0,
                           vocabulary - 1, -1);
  if (!value)
    return value.error();
  return static_cast<text::token_id>(*value);
}

} // namespace troupe::model
