#include "engine/text/jinja/case_forms.hpp"

#include "engine/text/character_sets.hpp"
#include "engine/text/jinja/upper_forms.hpp"
#include "engine/text/unicode_forms.hpp"
#include "engine/text/utf8.hpp"

#include <unordered_map>

namespace troupe::text::jinja {

namespace {

/// lowercase_ranges backwards, and the forms that this does not give.
std::unordered_map<char32_t, std::string> make_upper_forms() {
  std::unordered_map<char32_t, std::string> out;
  for (const auto& form : upper_forms) {
    auto& to = out[form.from];
    for (auto c : form.to)
      append_utf8(c, to);
  }
  for (const auto& range : lowercase_ranges)
    for (auto c = range.first; c <= range.last; c += range.step) {
      auto small = c + static_cast<char32_t>(range.shift);
      if (out.contains(small))
        continue;
      append_utf8(c, out[small]);
    }
  return out;
}

} // namespace

std::string lower_form(std::string_view character) {
  if (character.size() == 1) {
    auto c = character[0];
    return {c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c};
  }
  return is_utf8(character) ? to_lowercase(character) : std::string{character};
}

std::string upper_form_of(std::string_view character) {
  if (character.size() == 1) {
    auto c = character[0];
    return {c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c};
  }
  static const auto forms = make_upper_forms();
  if (is_utf8(character))
    if (auto found = forms.find(decode_utf8(character)); found != forms.end())
      return found->second;
  return std::string{character};
}

} // namespace troupe::text::jinja
