#include "engine/text/normalizer.hpp"

#include "engine/text/character_sets.hpp"
#include "engine/text/graphemes.hpp"
#include "engine/text/normal_forms.hpp"
#include "engine/text/utf8.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace troupe::text {

namespace {

constexpr std::size_t steps_max = 32;
constexpr std::size_t growth_max = 10'000;

using kind = normalizer_step::kind;

/// Calls `on_character(value, bytes)` for each character.
template <class OnCharacter>
void for_each_character(std::string_view text, OnCharacter on_character) {
  while (!text.empty()) {
    auto size = first_utf8_unit(text).size;
    auto bytes = text.substr(0, size);
    on_character(decode_utf8(bytes), bytes);
    text.remove_prefix(size);
  }
}

/// Takes away the characters of a set.
template <class IsRemoved>
void remove(normalized_text& text, IsRemoved is_removed) {
  std::string out;
  out.reserve(text.text.size());
  auto is_first = true;
  for_each_character(text.text, [&](char32_t c, std::string_view bytes) {
    if (!is_removed(c))
      out += bytes;
    else if (is_first)
      text.front_is_gone = true;
    is_first = false;
  });
  text.text = std::move(out);
}

void clean(normalized_text& text) {
  remove(text, is_bert_control);
  std::string out;
  out.reserve(text.text.size());
  for_each_character(text.text, [&](char32_t c, std::string_view bytes) {
    out += is_white_space(c) ? " " : bytes;
  });
  text.text = std::move(out);
}

std::string pad_ideographs(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for_each_character(text, [&](char32_t c, std::string_view bytes) {
    auto is_one = is_bert_ideograph(c);
    out += is_one ? " " : "";
    out += bytes;
    out += is_one ? " " : "";
  });
  return out;
}

void strip(normalized_text& text, bool left, bool right) {
  std::string_view rest = text.text;
  if (left)
    rest.remove_prefix(spaces_at_start(rest));
  if (rest.size() < text.text.size())
    text.front_is_gone = true;
  if (right)
    rest.remove_suffix(spaces_at_end(rest));
  text.text = std::string{rest};
}

// Characters that PCRE2 need not look at: no grapheme goes on after them.
bool stands_alone(std::string_view text) {
  auto is_ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
  return is_ascii(text[0]) && text[0] != '\r' &&
         (text.size() == 1 || is_ascii(text[1]));
}

// As `tokenizers` does it: a grapheme of up to five bytes is replaced whole by
// the shortest key that it begins with, else each of its characters is.
void apply(const charsmap& map, normalized_text& text) {
  constexpr std::size_t grapheme_bytes_max = 5;
  std::string out;
  out.reserve(text.text.size());
  grapheme_cutter cutter;
  for (std::string_view rest = text.text; !rest.empty();) {
    auto size = stands_alone(rest) ? 1 : cutter.first_size(rest);
    auto grapheme = rest.substr(0, size);
    auto before = out.size();
    auto whole = size <= grapheme_bytes_max ? map.find(grapheme) : std::nullopt;
    if (whole)
      out += *whole;
    else
      for_each_character(grapheme, [&](char32_t, std::string_view bytes) {
        out += map.find(bytes).value_or(bytes);
      });
    if (rest.size() == text.text.size() && out.size() == before)
      text.front_is_gone = true;
    rest.remove_prefix(size);
  }
  text.text = std::move(out);
}

error at_step(std::size_t index, const error& why) {
  return {why.code,
          fmt::format("tokenizer: normalizer {}: {}", index, why.message)};
}

} // namespace

result<normalizer> normalizer::make(const std::vector<normalizer_step>& steps) {
  if (steps.size() > steps_max)
    return error{errc::limit,
                 fmt::format("tokenizer: more than {} normalizers", steps_max)};
  normalizer out;
  std::size_t growth = 1;
  for (const auto& data : steps) {
    auto made = make_step(data);
    if (!made)
      return at_step(out.steps_.size(), made.error());
    growth *= std::max<std::size_t>(
        data.what == kind::replace ? data.text.size() : 1, 1);
    if (growth > growth_max)
      return at_step(out.steps_.size(),
                     {errc::limit, "makes texts too much longer"});
    out.steps_.push_back(std::move(*made));
  }
  return out;
}

result<normalizer::step> normalizer::make_step(const normalizer_step& data) {
  step out;
  out.data = data;
  if (data.what == kind::charsmap) {
    auto map = charsmap::make(data.text);
    if (!map)
      return map.error();
    out.map = std::move(*map);
    return out;
  }
  if (!is_utf8(data.text))
    return error{errc::corrupt, "a text that is not UTF-8"};
  if (data.what != kind::replace)
    return out;
  auto matcher = text_matcher::make(data.pattern);
  if (!matcher)
    return matcher.error();
  out.matcher = std::move(*matcher);
  return out;
}

normalized_text normalizer::run(std::string_view text,
                                match_scratch& scratch) const {
  normalized_text out{std::string{text}};
  for (const auto& one : steps_)
    run(one, out, scratch);
  return out;
}

void normalizer::run(const step& one, normalized_text& text,
                     match_scratch& scratch) {
  switch (one.data.what) {
  case kind::nfc:
    text.text = to_nfc(text.text);
    break;
  case kind::nfd:
    text.text = to_nfd(text.text);
    break;
  case kind::nfkc:
    text.text = to_nfkc(text.text);
    break;
  case kind::nfkd:
    text.text = to_nfkd(text.text);
    break;
  case kind::lowercase:
    text.text = to_lowercase(text.text);
    break;
  case kind::strip_accents:
    remove(text, is_combining_mark);
    break;
  case kind::strip:
    strip(text, one.data.left, one.data.right);
    break;
  case kind::replace:
    text.text = one.matcher->replace_all(text.text, one.data.text, scratch);
    break;
  case kind::prepend:
    if (!text.text.empty())
      text.text.insert(0, one.data.text);
    break;
  case kind::charsmap:
    apply(*one.map, text);
    break;
  case kind::bert_clean:
    clean(text);
    break;
  case kind::bert_pad_ideographs:
    text.text = pad_ideographs(text.text);
    break;
  case kind::bert_strip_accents:
    text.text = to_nfd(text.text);
    remove(text, is_nonspacing_mark);
    break;
  }
}

} // namespace troupe::text
