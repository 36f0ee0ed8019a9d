#include "engine/text/word_cutter.hpp"

#include "engine/text/pretokenizers.hpp"

#include <array>
#include <cstdint>

namespace troupe::text {

namespace {

// What a byte is to the patterns. The end of the text is a class of its own.
enum class byte_class : std::uint8_t { other, letter, digit, space, beyond };

constexpr auto classes = [] {
  std::array<byte_class, 256> out{};
  for (std::size_t c = 0; c < out.size(); ++c) {
    auto lower = c | 0x20;
    if (c >= 0x80)
      out[c] = byte_class::beyond;
    else if (lower >= 'a' && lower <= 'z')
      out[c] = byte_class::letter;
    else if (c >= '0' && c <= '9')
      out[c] = byte_class::digit;
    else if (c == ' ' || (c >= '\t' && c <= '\r'))
      out[c] = byte_class::space;
  }
  return out;
}();

byte_class class_of(char c) {
  return classes[static_cast<unsigned char>(c)];
}

// 0 stands for "cannot be told": every match has an end after its beginning.
constexpr std::size_t unknown = 0;

class cut {
public:
  cut(std::string_view text, std::size_t at) : text_(text), at_(at) {
    // nop
  }

  std::size_t gpt2() const {
    auto first = text_[at_];
    if (first == '\'')
      if (auto end = contraction(false); end != at_)
        return end;
    auto start = at_ + (first == ' ' && at_ + 1 < text_.size() ? 1 : 0);
    auto what = class_of(text_[start]);
    if (what == byte_class::beyond)
      return unknown;
    if (what != byte_class::space)
      return told(run_end(start, what));
    return white_space(false);
  }

  std::size_t llama3(std::size_t digits_max) const {
    auto first = text_[at_];
    auto what = class_of(first);
    auto next =
        at_ + 1 < text_.size() ? class_of(text_[at_ + 1]) : byte_class::space;
    if (what == byte_class::beyond || next == byte_class::beyond)
      return unknown;
    if (first == '\'')
      if (auto end = contraction(true); end != at_)
        return end;
    if (what == byte_class::letter)
      return told(run_end(at_, what));
    if (what == byte_class::digit)
      return number(digits_max);
    if (next == byte_class::letter && first != '\r' && first != '\n')
      return told(run_end(at_ + 1, next));
    if (what == byte_class::other)
      return signs(at_);
    if (first == ' ' && next == byte_class::other)
      return signs(at_ + 1);
    return white_space(true);
  }

private:
  // The end, unless a character beyond ASCII may go on with it.
  std::size_t told(std::size_t end) const {
    return end < text_.size() && class_of(text_[end]) == byte_class::beyond
               ? unknown
               : end;
  }

  std::size_t run_end(std::size_t from, byte_class what) const {
    while (from < text_.size() && class_of(text_[from]) == what)
      ++from;
    return from;
  }

  // The end of 's 't 'm 'd 're 've 'll; `at_` if there is none.
  std::size_t contraction(bool any_case) const {
    auto letter = [&](std::size_t i) {
      auto c = at_ + i < text_.size() ? text_[at_ + i] : '\0';
      return any_case ? static_cast<char>(c | 0x20) : c;
    };
    auto one = letter(1);
    auto two = letter(2);
    if (one == 's' || one == 't' || one == 'm' || one == 'd')
      return at_ + 2;
    auto is_long = (one == 'r' && two == 'e') || (one == 'v' && two == 'e') ||
                   (one == 'l' && two == 'l');
    return at_ + (is_long ? 3 : 0);
  }

  std::size_t number(std::size_t digits_max) const {
    auto end = at_;
    while (end < text_.size() && end - at_ < digits_max &&
           class_of(text_[end]) == byte_class::digit)
      ++end;
    return end - at_ == digits_max ? end : told(end);
  }

  // Signs and the line ends after them.
  std::size_t signs(std::size_t from) const {
    auto end = run_end(from, byte_class::other);
    if (told(end) == unknown)
      return unknown;
    while (end < text_.size() && (text_[end] == '\r' || text_[end] == '\n'))
      ++end;
    return end;
  }

  // Up to the last line end, if those count. Else all but the last character,
  // which goes to what follows.
  std::size_t white_space(bool line_ends) const {
    auto end = run_end(at_, byte_class::space);
    if (told(end) == unknown)
      return unknown;
    if (line_ends)
      for (auto i = end; i > at_; --i)
        if (text_[i - 1] == '\r' || text_[i - 1] == '\n')
          return i;
    return end == text_.size() || end - at_ == 1 ? end : end - 1;
  }

  std::string_view text_;
  std::size_t at_;
};

} // namespace

std::optional<word_cutter> word_cutter::of(std::string_view pattern) {
  static const auto gpt2 = pretokenizer_of("gpt-2")->split_patterns.front();
  static const auto llama3 =
      pretokenizer_of("llama-bpe")->split_patterns.front();
  static const auto qwen2 = pretokenizer_of("qwen2")->split_patterns.front();
  if (pattern == digit_pattern)
    return word_cutter{kind::digit, 1};
  if (pattern == gpt2)
    return word_cutter{kind::gpt2, 0};
  if (pattern == llama3)
    return word_cutter{kind::llama3, 3};
  if (pattern == qwen2)
    return word_cutter{kind::llama3, 1};
  return std::nullopt;
}

std::optional<split_pattern::range> word_cutter::find(std::string_view text,
                                                      std::size_t from) const {
  if (kind_ == kind::digit) {
    for (auto at = from; at < text.size(); ++at) {
      auto what = class_of(text[at]);
      if (what == byte_class::beyond)
        return std::nullopt;
      if (what == byte_class::digit)
        return split_pattern::range{at, at + 1};
    }
    return split_pattern::range{text.size(), text.size()};
  }
  if (from >= text.size())
    return std::nullopt;
  cut one{text, from};
  auto end = kind_ == kind::gpt2 ? one.gpt2() : one.llama3(digits_max_);
  if (end == unknown)
    return std::nullopt;
  return split_pattern::range{from, end};
}

} // namespace troupe::text
