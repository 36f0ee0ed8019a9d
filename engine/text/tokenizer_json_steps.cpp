#include "engine/text/tokenizer_json_steps.hpp"

#include "engine/text/character_sets.hpp"
#include "engine/text/pretokenizers.hpp"
#include "engine/text/utf8.hpp"

#include <array>

namespace troupe::text {

namespace {

namespace dom = simdjson::dom;

constexpr std::size_t steps_max = 16;
constexpr std::string_view white_space_pattern = "\\s";

/// Calls `read_one(step, type)` for a step or, if it is a Sequence, for each of
/// the steps in its list `list_key`. Sequences in sequences are refused.
template <class ReadOne>
bool read_steps(const json_object& step, std::string_view list_key,
                ReadOne read_one) {
  std::string_view type;
  if (!step.get("type", type))
    return false;
  if (type != "Sequence")
    return read_one(step, type);
  std::size_t count = 0;
  return step.only({"type", list_key}) &&
         step.for_each(list_key, [&](const json_object& inner) {
           if (++count > steps_max)
             return step.refuse(list_key, "a sequence of more than 16 steps");
           if (!inner.get("type", type))
             return false;
           return type == "Sequence" ? inner.refuse("type", type)
                                     : read_one(inner, type);
         });
}

/// {"String": text} or {"Regex": pattern}
bool read_pattern(const json_object& step, text_pattern& out) {
  auto pattern = step.child("pattern");
  if (!pattern)
    return false;
  out.is_regex = pattern->has("Regex");
  std::string_view key = out.is_regex ? "Regex" : "String";
  if (!pattern->get_text(key, out.source) || !pattern->only({key}))
    return false;
  return !out.source.empty() || step.refuse("pattern", "an empty text");
}

/// One character.
bool read_character(const json_object& step, std::string_view key,
                    std::string& out) {
  if (!step.get_text(key, out))
    return false;
  return (!out.empty() && first_utf8_unit(out).size == out.size()) ||
         step.refuse(key, "what is not one character");
}

bool append_base64(std::string_view text, std::string& out) {
  constexpr std::string_view digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  while (text.ends_with('='))
    text.remove_suffix(1);
  unsigned bits = 0;
  unsigned count = 0;
  for (auto c : text) {
    auto digit = digits.find(c);
    if (digit == digits.npos)
      return false;
    bits = (bits << 6 | static_cast<unsigned>(digit)) & 0xFFFF;
    count += 6;
    if (count < 8)
      continue;
    count -= 8;
    out += static_cast<char>(bits >> count & 0xFF);
  }
  return true;
}

// -- normalizer ---------------------------------------------------------------

using norm = normalizer_step::kind;

bool read_bert_normalizer(const json_object& step, tokenizer_data& out) {
  bool clean = true;
  bool pad = true;
  bool lowercase = true;
  if (!step.only({"type", "clean_text", "handle_chinese_chars", "strip_accents",
                  "lowercase"}) ||
      !step.get_or("clean_text", clean) ||
      !step.get_or("handle_chinese_chars", pad) ||
      !step.get_or("lowercase", lowercase))
    return false;
  bool strip = lowercase;
  if (!step.get_or("strip_accents", strip))
    return false;
  for (auto [on, what] : {std::pair{clean, norm::bert_clean},
                          {pad, norm::bert_pad_ideographs},
                          {strip, norm::bert_strip_accents},
                          {lowercase, norm::lowercase}})
    if (on)
      out.normalizer.push_back({.what = what});
  return true;
}

bool read_normalizer_step(const json_object& step, std::string_view type,
                          tokenizer_data& out) {
  constexpr std::pair<std::string_view, norm> plain[] = {
      {"NFC", norm::nfc},
      {"NFD", norm::nfd},
      {"NFKC", norm::nfkc},
      {"NFKD", norm::nfkd},
      {"Lowercase", norm::lowercase},
      {"StripAccents", norm::strip_accents}};
  for (auto [name, what] : plain)
    if (type == name) {
      out.normalizer.push_back({.what = what});
      return step.only({"type"});
    }
  if (type == "BertNormalizer")
    return read_bert_normalizer(step, out);
  normalizer_step one;
  if (type == "Replace") {
    one.what = norm::replace;
    if (!step.only({"type", "pattern", "content"}) ||
        !read_pattern(step, one.pattern) || !step.get_text("content", one.text))
      return false;
  } else if (type == "Prepend") {
    one.what = norm::prepend;
    if (!step.only({"type", "prepend"}) || !step.get_text("prepend", one.text))
      return false;
  } else if (type == "Strip") {
    one.what = norm::strip;
    if (!step.only({"type", "strip_left", "strip_right"}) ||
        !step.get("strip_left", one.left) ||
        !step.get("strip_right", one.right))
      return false;
  } else if (type == "Precompiled") {
    one.what = norm::charsmap;
    std::string_view table;
    if (!step.only({"type", "precompiled_charsmap"}) ||
        !step.get_or("precompiled_charsmap", table))
      return false;
    if (table.empty())
      return true;
    if (!append_base64(table, one.text))
      return step.fail(errc::corrupt, "precompiled_charsmap", "not base64");
  } else {
    return step.refuse("type", type);
  }
  out.normalizer.push_back(std::move(one));
  return true;
}

// -- pre-tokenizer ------------------------------------------------------------

using pre = pre_token_step::kind;

class pre_tokenizer_reader {
public:
  explicit pre_tokenizer_reader(tokenizer_data& out) : out_(out) {
    // nop
  }

  bool read(const json_object& step, std::string_view type) {
    if (is_byte_level_)
      return step.problem().refuse(step.path(), "a step after ByteLevel");
    if (type == "Split")
      return read_split(step);
    if (type == "Digits")
      return read_digits(step);
    if (type == "ByteLevel")
      return read_byte_level(step);
    if (type == "Metaspace")
      return read_metaspace(step);
    if (type == "Punctuation")
      return read_punctuation(step);
    if (type == "CharDelimiterSplit")
      return read_delimiter(step);
    auto removed = split_options{split_behavior::removed};
    if (type == "Whitespace")
      add_split(fmt::format("[{0}]+|[^\\s{0}]+", word_items),
                {split_behavior::removed, true});
    else if (type == "WhitespaceSplit" || type == "BertPreTokenizer")
      add_split(std::string{white_space_pattern}, removed);
    else
      return step.refuse("type", type);
    if (type == "BertPreTokenizer")
      add_split(punctuation_pattern());
    return step.only({"type"});
  }

  bool is_byte_level() const {
    return is_byte_level_;
  }

private:
  void add_split(std::string pattern, split_options mode = {}) {
    out_.pre_tokenizer.push_back(
        {.pattern = {std::move(pattern), true}, .mode = mode});
  }

  bool read_behavior(const json_object& step, split_behavior& out) {
    constexpr std::pair<std::string_view, split_behavior> known[] = {
        {"Isolated", split_behavior::isolated},
        {"Removed", split_behavior::removed},
        {"MergedWithPrevious", split_behavior::merged_with_previous},
        {"MergedWithNext", split_behavior::merged_with_next},
        {"Contiguous", split_behavior::contiguous},
    };
    std::string_view name;
    if (!step.get("behavior", name))
      return false;
    for (auto [spelling, behavior] : known)
      if (name == spelling) {
        out = behavior;
        return true;
      }
    return step.refuse("behavior", name);
  }

  bool read_split(const json_object& step) {
    pre_token_step one;
    if (!step.only({"type", "pattern", "behavior", "invert"}) ||
        !read_pattern(step, one.pattern) ||
        !read_behavior(step, one.mode.behavior) ||
        !step.get_or("invert", one.mode.invert))
      return false;
    out_.pre_tokenizer.push_back(std::move(one));
    return true;
  }

  bool read_digits(const json_object& step) {
    bool individual = false;
    if (!step.only({"type", "individual_digits"}) ||
        !step.get_or("individual_digits", individual))
      return false;
    add_split(individual ? digit_pattern : fmt::format("{}+", digit_pattern));
    return true;
  }

  bool read_punctuation(const json_object& step) {
    split_options mode;
    if (!step.only({"type", "behavior"}) ||
        (step.has("behavior") && !read_behavior(step, mode.behavior)))
      return false;
    add_split(punctuation_pattern(), mode);
    return true;
  }

  bool read_delimiter(const json_object& step) {
    pre_token_step one;
    one.mode.behavior = split_behavior::removed;
    if (!step.only({"type", "delimiter"}) ||
        !read_character(step, "delimiter", one.pattern.source))
      return false;
    out_.pre_tokenizer.push_back(std::move(one));
    return true;
  }

  bool read_byte_level(const json_object& step) {
    bool prefix = true;
    bool words = true;
    if (!step.only({"type", "add_prefix_space", "trim_offsets", "use_regex"}) ||
        !step.get_or("add_prefix_space", prefix) ||
        !step.get_or("use_regex", words))
      return false;
    if (prefix)
      out_.pre_tokenizer.push_back({.what = pre::prefix, .text = " "});
    if (words) // GPT-2's, which ByteLevel cuts by itself
      add_split(pretokenizer_of("gpt-2")->split_patterns.front());
    is_byte_level_ = true;
    return true;
  }

  // Spaces become a visible character, which begins words.
  bool read_metaspace(const json_object& step);

  tokenizer_data& out_;
  bool is_byte_level_ = false;
};

enum class prepend_scheme { always, first, never };

/// What Metaspace says, as a pre-tokenizer and as a decoder. Older files have
/// only `add_prefix_space`.
struct metaspace {
  std::string replacement;
  prepend_scheme prepend = prepend_scheme::always;
  bool splits = true;
};

bool read_metaspace(const json_object& step, metaspace& out) {
  bool prefix = true;
  std::string_view scheme;
  if (!step.only({"type", "replacement", "str_rep", "add_prefix_space",
                  "prepend_scheme", "split"}) ||
      !read_character(step, "replacement", out.replacement) ||
      !step.get_or("add_prefix_space", prefix) ||
      !step.get_or("prepend_scheme", scheme) ||
      !step.get_or("split", out.splits))
    return false;
  if (scheme == "first")
    out.prepend = prepend_scheme::first;
  else if (scheme == "never")
    out.prepend = prepend_scheme::never;
  else if (!scheme.empty() && scheme != "always")
    return step.refuse("prepend_scheme", scheme);
  if (prefix || out.prepend == prepend_scheme::never)
    return true;
  if (!scheme.empty())
    return step.refuse("add_prefix_space", "false with this prepend_scheme");
  out.prepend = prepend_scheme::never;
  return true;
}

bool pre_tokenizer_reader::read_metaspace(const json_object& step) {
  metaspace with;
  if (!text::read_metaspace(step, with))
    return false;
  out_.pre_tokenizer.push_back({.what = pre::replace,
                                .pattern = {" ", false},
                                .text = with.replacement});
  if (with.prepend != prepend_scheme::never)
    out_.pre_tokenizer.push_back(
        {.what = pre::prefix,
         .text = with.replacement,
         .front_only = with.prepend == prepend_scheme::first});
  if (with.splits)
    out_.pre_tokenizer.push_back({.pattern = {with.replacement, false},
                                  .mode = {split_behavior::merged_with_next}});
  return true;
}

// -- post-processor -----------------------------------------------------------

/// ["spelling", id]
bool read_named_id(const json_object& step, std::string_view key,
                   token_id& out) {
  dom::array pair;
  if (!step.get(key, pair))
    return false;
  if (pair.size() != 2)
    return step.fail(errc::corrupt, key, "not [text, id]");
  return read_json_id(pair.at(1).value_unsafe(), step.path_of(key),
                      step.problem(), out);
}

class post_processor_reader {
public:
  explicit post_processor_reader(tokenizer_data& out) : out_(out) {
    // nop
  }

  bool read(const json_object& step, std::string_view type) {
    if (type == "ByteLevel") // changes offsets only
      return true;
    if (has_frame_)
      return step.refuse("type", "a second template");
    has_frame_ = true;
    if (type == "TemplateProcessing")
      return read_template(step);
    if (type == "BertProcessing")
      return read_bert(step, false);
    if (type == "RobertaProcessing")
      return read_bert(step, true);
    return step.refuse("type", type);
  }

private:
  using frame = std::vector<frame_place>;

  // A beginning and an end; RoBERTa has no types and two ends between texts.
  bool read_bert(const json_object& step, bool is_roberta) {
    token_id begin = -1;
    token_id end = -1;
    if (!step.only(
            {"type", "sep", "cls", "trim_offsets", "add_prefix_space"}) ||
        !read_named_id(step, "sep", end) || !read_named_id(step, "cls", begin))
      return false;
    auto first = frame_place::first_text;
    auto second = frame_place::second_text;
    out_.frame_one = {{begin}, {first}, {end}};
    if (is_roberta)
      out_.frame_two = {{begin}, {first}, {end}, {end}, {second}, {end}};
    else
      out_.frame_two = {{begin}, {first}, {end}, {second, 1}, {end, 1}};
    return true;
  }

  // [bos, text] is what prompts of generating models begin with.
  bool read_template(const json_object& step) {
    if (!step.only({"type", "single", "pair", "special_tokens"}) ||
        !read_frame(step, "single", out_.frame_one) ||
        (step.has("pair") && !read_frame(step, "pair", out_.frame_two)))
      return false;
    auto& one = out_.frame_one;
    if (one.size() == 1)
      one.clear();
    if (one.size() == 2 && one[0].id >= 0) {
      out_.bos = one[0].id;
      out_.add_bos = true;
      one.clear();
    }
    return true;
  }

  bool read_frame(const json_object& step, std::string_view key, frame& out) {
    auto texts = 0;
    auto ok = step.for_each(key, [&](const json_object& piece) {
      return piece.has("Sequence") ? read_text(piece, texts, out)
                                   : read_special(step, piece, out);
    });
    auto wanted = key == "single" ? 1 : 2;
    return ok && (texts == wanted ||
                  step.refuse(key, "a template without each text once"));
  }

  bool read_text(const json_object& piece, int& texts, frame& out) {
    auto text = piece.child("Sequence");
    std::string_view name;
    std::int64_t type = 0;
    if (!text || !text->get("id", name) || !text->get("type_id", type))
      return false;
    if (name != (texts == 0 ? "A" : "B"))
      return piece.refuse("Sequence", "another order than A, B");
    ++texts;
    out.push_back(
        {name == "A" ? frame_place::first_text : frame_place::second_text,
         static_cast<std::uint32_t>(type & 0xFF)});
    return true;
  }

  // The ids are given as {"special_tokens": {name: {ids}}}.
  bool read_special(const json_object& step, const json_object& piece,
                    frame& out) {
    auto special = piece.child("SpecialToken");
    std::string_view name;
    std::int64_t type = 0;
    if (!special || !special->get("id", name) || !special->get("type_id", type))
      return false;
    auto tokens = step.child("special_tokens");
    auto token = tokens ? tokens->child(name) : std::nullopt;
    dom::array ids;
    if (!token || !token->get("ids", ids))
      return false;
    for (auto value : ids) {
      auto& place = out.emplace_back(
          frame_place{0, static_cast<std::uint32_t>(type & 0xFF)});
      if (!read_json_id(value, token->path_of("ids"), step.problem(), place.id))
        return false;
    }
    return true;
  }

  tokenizer_data& out_;
  bool has_frame_ = false;
};

// -- decoder ------------------------------------------------------------------

using dec = decoder_step::kind;

bool read_count(const json_object& step, std::string_view key,
                std::uint32_t& out) {
  std::int64_t count = 0;
  if (!step.get(key, count))
    return false;
  if (count < 0 || count > 64)
    return step.refuse(key, "a count that is not 0 to 64");
  out = static_cast<std::uint32_t>(count);
  return true;
}

bool read_decoder_step(const json_object& step, std::string_view type,
                       tokenizer_data& out) {
  auto& one = out.decoder.emplace_back();
  if (type == "ByteLevel") {
    one.what = dec::byte_level;
    return true; // its flags are the pre-tokenizer's
  }
  if (type == "ByteFallback") {
    one.what = dec::byte_fallback;
    return step.only({"type"});
  }
  if (type == "Fuse") {
    one.what = dec::fuse;
    return step.only({"type"});
  }
  if (type == "Strip") {
    one.what = dec::strip;
    return step.only({"type", "content", "start", "stop"}) &&
           read_character(step, "content", one.text) &&
           read_count(step, "start", one.left) &&
           read_count(step, "stop", one.right);
  }
  if (type == "Replace") {
    one.what = dec::replace;
    return step.only({"type", "pattern", "content"}) &&
           read_pattern(step, one.pattern) &&
           step.get_text("content", one.text);
  }
  if (type == "Metaspace") {
    metaspace with;
    if (!read_metaspace(step, with))
      return false;
    one.what = dec::metaspace;
    one.text = with.replacement;
    one.flag = with.prepend != prepend_scheme::never;
    return true;
  }
  if (type == "WordPiece") {
    one.what = dec::wordpiece;
    one.flag = true;
    return step.only({"type", "prefix", "cleanup"}) &&
           step.get_text("prefix", one.text) &&
           step.get_or("cleanup", one.flag);
  }
  return step.refuse("type", type);
}

} // namespace

bool read_json_id(const dom::element& value, std::string_view path,
                  json_problem& problem, token_id& out) {
  std::int64_t id = 0;
  if (value.get(id) != simdjson::SUCCESS || id < 0 || id >= json_ids_max)
    return problem.fail(errc::corrupt, path, "not an id below 1000000");
  out = static_cast<token_id>(id);
  return true;
}

bool read_normalizer(const json_object& root, tokenizer_data& out) {
  if (!root.has("normalizer"))
    return true;
  auto step = root.child("normalizer");
  return step && read_steps(*step, "normalizers",
                            [&](const json_object& one, auto type) {
                              return read_normalizer_step(one, type, out);
                            });
}

bool read_pre_tokenizer(const json_object& root, tokenizer_data& out,
                        bool& is_byte_level) {
  if (!root.has("pre_tokenizer"))
    return true;
  pre_tokenizer_reader reader{out};
  auto step = root.child("pre_tokenizer");
  if (!step || !read_steps(*step, "pretokenizers",
                           [&](const json_object& one, auto type) {
                             return reader.read(one, type);
                           }))
    return false;
  is_byte_level = reader.is_byte_level();
  return true;
}

bool read_post_processor(const json_object& root, tokenizer_data& out) {
  if (!root.has("post_processor"))
    return true;
  post_processor_reader reader{out};
  auto step = root.child("post_processor");
  return step && read_steps(*step, "processors",
                            [&](const json_object& one, auto type) {
                              return reader.read(one, type);
                            });
}

bool read_decoder(const json_object& root, tokenizer_data& out) {
  if (!root.has("decoder")) { // then entries are joined by spaces
    out.decoder.emplace_back().what = dec::wordpiece;
    return true;
  }
  auto step = root.child("decoder");
  return step &&
         read_steps(*step, "decoders", [&](const json_object& one, auto type) {
           return read_decoder_step(one, type, out);
         });
}

} // namespace troupe::text
