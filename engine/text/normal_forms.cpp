#include "engine/text/normal_forms.hpp"

#include "engine/text/nfc_tables.hpp"
#include "engine/text/unicode_forms.hpp"
#include "engine/text/utf8.hpp"

#include <algorithm>
#include <tuple>
#include <vector>

namespace troupe::text {

namespace {

// Hangul syllables are computed from their letters (The Unicode
// Standard, 3.12).
constexpr char32_t syllable_base = 0xAC00;
constexpr char32_t lead_base = 0x1100;
constexpr char32_t vowel_base = 0x1161;
constexpr char32_t tail_base = 0x11A7;
constexpr char32_t leads = 19;
constexpr char32_t vowels = 21;
constexpr char32_t tails = 28;
constexpr char32_t syllables = leads * vowels * tails;

bool is_within(char32_t c, char32_t base, char32_t count) {
  return c >= base && c - base < count;
}

std::uint8_t combining_class(char32_t c) {
  auto range = std::upper_bound(
      combining_classes.begin(), combining_classes.end(), c,
      [](char32_t value, const combining_range& r) { return value <= r.last; });
  return range != combining_classes.end() && c >= range->first
             ? range->combining_class
             : 0;
}

const decomposition* decomposition_of(char32_t c) {
  auto at = std::lower_bound(decompositions.begin(), decompositions.end(), c,
                             [](const decomposition& d, char32_t value) {
                               return d.composed < value;
                             });
  return at != decompositions.end() && at->composed == c ? &*at : nullptr;
}

// 0 if the two do not compose.
char32_t compose(char32_t first, char32_t second) {
  if (is_within(first, lead_base, leads) &&
      is_within(second, vowel_base, vowels))
    return syllable_base +
           ((first - lead_base) * vowels + (second - vowel_base)) * tails;
  if (is_within(first, syllable_base, syllables) &&
      (first - syllable_base) % tails == 0 &&
      is_within(second, tail_base + 1, tails - 1))
    return first + (second - tail_base);
  auto at = std::lower_bound(compositions.begin(), compositions.end(),
                             std::tuple{first, second},
                             [](const decomposition& d, const auto& pair) {
                               return std::tuple{d.first, d.second} < pair;
                             });
  auto found =
      at != compositions.end() && at->first == first && at->second == second;
  return found ? at->composed : 0;
}

// Characters whose presence may make a text differ from its form C.
std::vector<bool> make_unstable() {
  std::vector<bool> out(0x30000);
  for (const auto& range : combining_classes)
    std::fill(out.begin() + range.first, out.begin() + range.last + 1, true);
  for (const auto& step : decompositions)
    out[step.composed] = true;
  for (const auto& step : compositions) {
    out[step.composed] = false;
    out[step.second] = true;
  }
  std::fill_n(out.begin() + vowel_base, vowels, true);
  std::fill_n(out.begin() + tail_base + 1, tails - 1, true);
  return out;
}

bool is_stable(std::string_view text) {
  static const auto unstable = make_unstable();
  while (!text.empty()) {
    auto size = first_utf8_unit(text).size;
    auto c = decode_utf8(text.substr(0, size));
    if (c < unstable.size() && unstable[c])
      return false;
    text.remove_prefix(size);
  }
  return true;
}

void append_decomposed(char32_t c, std::vector<char32_t>& out) {
  if (is_within(c, syllable_base, syllables)) {
    auto index = c - syllable_base;
    out.push_back(lead_base + index / tails / vowels);
    out.push_back(vowel_base + index / tails % vowels);
    if (index % tails != 0)
      out.push_back(tail_base + index % tails);
    return;
  }
  const auto* step = decomposition_of(c);
  if (step == nullptr) {
    out.push_back(c);
    return;
  }
  append_decomposed(step->first, out); // four steps at most
  if (step->second != 0)
    append_decomposed(step->second, out);
}

// Puts every run of marks in the order of their classes.
void sort_marks(std::vector<char32_t>& text) {
  auto is_mark = [](char32_t c) { return combining_class(c) != 0; };
  auto at = text.begin();
  while ((at = std::find_if(at, text.end(), is_mark)) != text.end()) {
    auto end = std::find_if_not(at, text.end(), is_mark);
    std::stable_sort(at, end, [](char32_t a, char32_t b) {
      return combining_class(a) < combining_class(b);
    });
    at = end;
  }
}

void compose_all(std::vector<char32_t>& text) {
  std::size_t kept = 0;
  std::size_t starter = 0;
  auto has_starter = false;
  std::uint8_t last_class = 0; // of what stands between starter and here
  for (auto c : text) {
    auto its_class = combining_class(c);
    auto is_next = has_starter && kept == starter + 1;
    auto joined = has_starter && (is_next || last_class < its_class)
                      ? compose(text[starter], c)
                      : 0;
    if (joined != 0) {
      text[starter] = joined;
      continue;
    }
    if (its_class == 0) {
      starter = kept;
      has_starter = true;
    }
    last_class = its_class;
    text[kept++] = c;
  }
  text.resize(kept);
}

const compatibility_form* compatibility_form_of(char32_t c) {
  auto at =
      std::lower_bound(compatibility_forms.begin(), compatibility_forms.end(),
                       c, [](const compatibility_form& f, char32_t value) {
                         return f.character < value;
                       });
  return at != compatibility_forms.end() && at->character == c ? &*at : nullptr;
}

void append_characters(std::string_view text, std::vector<char32_t>& out) {
  while (!text.empty()) {
    auto size = first_utf8_unit(text).size;
    out.push_back(decode_utf8(text.substr(0, size)));
    text.remove_prefix(size);
  }
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x80;
  });
}

std::string form_of(std::string_view text, bool compatible, bool composed) {
  if (is_ascii(text))
    return std::string{text};
  std::vector<char32_t> characters;
  for (auto rest = text; !rest.empty();) {
    auto size = first_utf8_unit(rest).size;
    auto c = decode_utf8(rest.substr(0, size));
    const auto* form = compatible ? compatibility_form_of(c) : nullptr;
    if (form != nullptr)
      append_characters(form->form, characters);
    else
      append_decomposed(c, characters);
    rest.remove_prefix(size);
  }
  sort_marks(characters);
  if (composed)
    compose_all(characters);
  std::string out;
  out.reserve(text.size());
  for (auto c : characters)
    append_utf8(c, out);
  return out;
}

} // namespace

std::string to_nfc(std::string_view text) {
  return is_stable(text) ? std::string{text} : form_of(text, false, true);
}

std::string to_nfd(std::string_view text) {
  return form_of(text, false, false);
}

std::string to_nfkc(std::string_view text) {
  return form_of(text, true, true);
}

std::string to_nfkd(std::string_view text) {
  return form_of(text, true, false);
}

} // namespace troupe::text
