#include "tests/ptx/text.hpp"

#include "tests/ptx/machine.hpp"

#include <algorithm>
#include <charconv>

namespace troupe::ptx {

namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool begins_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         c == '$' || c == '%' || c == '.';
}

bool is_of_word(char c) {
  return begins_word(c) || is_digit(c);
}

} // namespace

scanner::scanner(std::string_view text, std::size_t begin, std::size_t end)
    : text_(text), position_(begin), end_(end) {
  advance();
}

void scanner::advance() {
  for (;;) {
    while (position_ < end_ &&
           (text_[position_] == ' ' || text_[position_] == '\t' ||
            text_[position_] == '\n' || text_[position_] == '\r'))
      ++position_;
    if (text_.compare(position_, 2, "//") == 0 && position_ < end_)
      position_ = std::min(text_.find('\n', position_), end_);
    else if (text_.compare(position_, 2, "/*") == 0 && position_ < end_)
      position_ = std::min(text_.find("*/", position_ + 2), end_ - 2) + 2;
    else
      break;
  }
  next_ = {};
  next_.at = position_;
  if (position_ >= end_)
    return;
  const auto begin = position_;
  const char first = text_[begin];
  if (begins_word(first)) {
    next_.what = token::kind::word;
    while (position_ < end_ && (is_of_word(text_[position_]) ||
                                text_.compare(position_, 2, "::") == 0))
      position_ += text_[position_] == ':' ? 2 : 1;
  } else if (is_digit(first)) {
    next_.what = token::kind::number;
    while (position_ < end_ && is_of_word(text_[position_]))
      ++position_;
  } else if (first == '"') {
    next_.what = token::kind::sign;
    position_ = std::min(text_.find('"', begin + 1), end_ - 1) + 1;
  } else {
    next_.what = token::kind::sign;
    ++position_;
  }
  next_.text = text_.substr(begin, position_ - begin);
}

token scanner::take() {
  const auto out = next_;
  advance();
  return out;
}

bool scanner::take(std::string_view text) {
  if (next_.text != text)
    return false;
  advance();
  return true;
}

void scanner::expect(std::string_view text) {
  if (!take(text))
    fail("there should be '" + std::string{text} + "'");
}

token scanner::expect_word() {
  if (next_.what != token::kind::word)
    fail("there should be a word");
  return take();
}

void scanner::skip_block() {
  // By hand: most of a text is skipped here.
  std::size_t depth = 1;
  position_ = next_.at;
  while (depth > 0) {
    const auto at = text_.find_first_of("{}/\"", position_);
    if (at >= end_)
      fail("a block does not end");
    position_ = at + 1;
    if (text_[at] == '{')
      ++depth;
    else if (text_[at] == '}')
      --depth;
    else if (text_[at] == '"')
      position_ = std::min(text_.find('"', position_), end_ - 1) + 1;
    else if (text_.compare(at, 2, "//") == 0)
      position_ = std::min(text_.find('\n', at), end_);
    else if (text_.compare(at, 2, "/*") == 0)
      position_ = std::min(text_.find("*/", at + 2), end_ - 2) + 2;
  }
  advance();
}

void scanner::fail(const std::string& what) const {
  fail_at(next_.at, what);
}

void scanner::fail_at(std::size_t at, const std::string& what) const {
  throw fault{"PTX " + line_at(text_, at) + ": " + what};
}

std::string line_at(std::string_view text, std::size_t at) {
  at = std::min(at, text.size());
  const auto number =
      1 + std::count(text.begin(), text.begin() + static_cast<long>(at), '\n');
  const auto before =
      at == 0 ? std::string_view::npos : text.rfind('\n', at - 1);
  auto begin = before == std::string_view::npos ? 0 : before + 1;
  begin = std::min(text.find_first_not_of(" \t", begin), text.size());
  const auto end = std::min(text.find('\n', at), text.size());
  return "line " + std::to_string(number) + ": " +
         std::string{text.substr(begin, end < begin ? 0 : end - begin)};
}

std::uint64_t number_of(std::string_view text) {
  int base = 10;
  auto digits = text;
  const auto begins = [&](std::string_view with) {
    return text.starts_with(with);
  };
  if (begins("0f") || begins("0F") || begins("0d") || begins("0D") ||
      begins("0x") || begins("0X")) {
    base = 16;
    digits.remove_prefix(2);
  } else if (begins("0b") || begins("0B")) {
    base = 2;
    digits.remove_prefix(2);
  } else if (begins("0") && text.size() > 1) {
    base = 8;
    digits.remove_prefix(1);
  }
  if (digits.ends_with('U'))
    digits.remove_suffix(1);
  if (digits.empty() && base == 8) // 0U
    return 0;
  std::uint64_t out = 0;
  const auto* end = digits.data() + digits.size();
  const auto [read, why] = std::from_chars(digits.data(), end, out, base);
  if (why != std::errc{} || read != end)
    throw std::invalid_argument{"no number: " + std::string{text}};
  return out;
}

} // namespace troupe::ptx
