#include "engine/text/jinja/lexer.hpp"

#include "engine/text/utf8.hpp"

#include <algorithm>
#include <array>
#include <charconv>

namespace troupe::text::jinja {

namespace {

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' ||
         c == '\v';
}

bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

std::string with_unix_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n')
      ++i;
  }
  if (!out.empty() && out.back() == '\n')
    out.pop_back();
  return out;
}

class lexer {
public:
  explicit lexer(std::string source) : source_(std::move(source)) {
    // nop
  }

  result<std::vector<token>> run();

private:
  enum class tag { output, block, comment };

  error fail(std::string what) const {
    return {errc::invalid_argument,
            "line " + std::to_string(line_) + ": " + std::move(what)};
  }

  bool starts(std::string_view what) const {
    return source_.compare(at_, what.size(), what) == 0;
  }

  void advance(std::size_t count) {
    line_ += static_cast<int>(std::count(
        source_.begin() + static_cast<std::ptrdiff_t>(at_),
        source_.begin() + static_cast<std::ptrdiff_t>(at_ + count), '\n'));
    at_ += count;
  }

  void emit(token_type type, std::string value) {
    out_.push_back({type, std::move(value), line_});
  }

  void text_until(std::size_t end, bool tag_follows);
  result<void> comment();
  result<void> tag_body(tag kind);
  result<bool> raw_block();
  result<void> expression_token();
  result<void> numbered_escape(std::size_t& i, std::string& value);
  result<void> string_token();
  void number_token();
  /// Eats what the end of a tag takes along; `sign` is '-', '+' or 0.
  void after_close(bool newline_goes, char sign);

  std::string source_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool line_start_ = true; ///< the last token ended a line
  std::vector<token> out_;
};

/// Emits the text up to `end`, where a tag (or the end of the source) stands,
/// without the whitespace that the tag takes from its left.
void lexer::text_until(std::size_t end, bool tag_follows) {
  auto text = source_.substr(at_, end - at_);
  if (tag_follows) {
    auto sign = end + 2 < source_.size() ? source_[end + 2] : '\0';
    if (sign == '-') {
      while (!text.empty() && is_space(text.back()))
        text.pop_back();
    } else if (sign != '+' && source_[end + 1] != '{') {
      auto line_begin = text.rfind('\n') + 1; // npos + 1 = 0
      auto blank =
          text.find_first_not_of(" \t\f\v", line_begin) == std::string::npos;
      if ((line_begin > 0 || line_start_) && blank)
        text.resize(line_begin);
    }
  }
  if (!text.empty())
    emit(token_type::text, text);
  advance(end - at_);
}

void lexer::after_close(bool newline_goes, char sign) {
  line_start_ = false;
  if (sign == '-') {
    auto end = at_;
    while (end < source_.size() && is_space(source_[end]))
      ++end;
    line_start_ = end > at_ && source_[end - 1] == '\n';
    advance(end - at_);
  } else if (newline_goes && sign != '+' && at_ < source_.size() &&
             source_[at_] == '\n') {
    advance(1);
    line_start_ = true;
  }
}

result<void> lexer::comment() {
  auto end = source_.find("#}", at_ + 2);
  if (end == std::string::npos)
    return fail("a comment {# is not closed");
  auto sign = end > at_ + 2 ? source_[end - 1] : '\0';
  advance(end + 2 - at_);
  after_close(true, sign == '-' || sign == '+' ? sign : '\0');
  return {};
}

/// At "{%": if it opens {% raw %}, emits the text inside and returns true.
result<bool> lexer::raw_block() {
  auto word = [&](std::size_t from, std::string_view name, std::size_t& after,
                  char& sign) {
    auto i = from + 2;
    if (i < source_.size() && (source_[i] == '-' || source_[i] == '+'))
      ++i;
    while (i < source_.size() && is_space(source_[i]))
      ++i;
    if (source_.compare(i, name.size(), name) != 0)
      return false;
    i += name.size();
    while (i < source_.size() && is_space(source_[i]))
      ++i;
    sign = '\0';
    if (i < source_.size() && (source_[i] == '-' || source_[i] == '+'))
      sign = source_[i++];
    if (source_.compare(i, 2, "%}") != 0)
      return false;
    after = i + 2;
    return true;
  };
  std::size_t after = 0;
  auto sign = '\0';
  if (!word(at_, "raw", after, sign))
    return false;
  advance(after - at_);
  after_close(true, sign);
  for (auto end = source_.find("{%", at_); end != std::string::npos;
       end = source_.find("{%", end + 2)) {
    if (!word(end, "endraw", after, sign))
      continue;
    text_until(end, true);
    advance(after - at_);
    after_close(true, sign);
    return true;
  }
  return fail("{% raw %} is not closed");
}

/// The character of an escape \x, \u, \U or \101; `i` is at the sign behind
/// the backslash, and moves to the last one of the escape.
result<void> lexer::numbered_escape(std::size_t& i, std::string& value) {
  auto sign = source_[i];
  auto octal = sign >= '0' && sign <= '7';
  auto base = octal ? 8 : 16;
  std::size_t size = octal ? 3 : sign == 'x' ? 2 : sign == 'u' ? 4 : 8;
  auto first = source_.data() + i + (octal ? 0 : 1);
  auto room = static_cast<std::size_t>(source_.data() + source_.size() - first);
  std::uint32_t number = 0;
  auto end =
      std::from_chars(first, first + std::min(size, room), number, base).ptr;
  auto got = static_cast<std::size_t>(end - first);
  if (octal ? got == 0 : got != size)
    return fail(std::string{"escape \\"} + sign + " lacks digits");
  if (number > 0x10FFFF || (number >= 0xD800 && number < 0xE000))
    return fail(std::string{"escape \\"} + sign + " is no character");
  append_utf8(number, value);
  i = static_cast<std::size_t>(end - source_.data()) - 1;
  return {};
}

result<void> lexer::string_token() {
  auto quote = source_[at_];
  std::string value;
  auto i = at_ + 1;
  for (; i < source_.size() && source_[i] != quote; ++i) {
    if (source_[i] != '\\') {
      value += source_[i];
      continue;
    }
    if (++i == source_.size())
      break;
    constexpr std::string_view names = "ntr\\'\"bfva";
    constexpr std::string_view values = "\n\t\r\\'\"\b\f\v\a";
    auto known = names.find(source_[i]);
    if (known != std::string_view::npos) {
      value += values[known];
    } else if (source_[i] == 'x' || source_[i] == 'u' || source_[i] == 'U' ||
               (source_[i] >= '0' && source_[i] <= '7')) {
      if (auto done = numbered_escape(i, value); !done)
        return done;
    } else if (source_[i] == 'N') {
      return fail("escape \\N in a string: not supported");
    } else if (source_[i] != '\n') {
      value += '\\';
      value += source_[i];
    }
  }
  if (i >= source_.size())
    return fail("a string is not closed");
  emit(token_type::string, std::move(value));
  advance(i + 1 - at_);
  return {};
}

void lexer::number_token() {
  auto i = at_;
  auto floating = false;
  auto digits = [&] {
    while (i < source_.size() && (is_digit(source_[i]) || source_[i] == '_'))
      ++i;
  };
  digits();
  // In x.0.1 there are two numbers.
  auto whole = !out_.empty() && out_.back().type == token_type::symbol &&
               out_.back().value == ".";
  if (!whole && i + 1 < source_.size() && source_[i] == '.' &&
      is_digit(source_[i + 1])) {
    floating = true;
    ++i;
    digits();
  }
  if (!whole && i + 1 < source_.size() &&
      (source_[i] == 'e' || source_[i] == 'E')) {
    auto j = i + 1;
    if (source_[j] == '+' || source_[j] == '-')
      ++j;
    if (j < source_.size() && is_digit(source_[j])) {
      floating = true;
      i = j;
      digits();
    }
  }
  auto text = source_.substr(at_, i - at_);
  std::erase(text, '_');
  emit(floating ? token_type::floating : token_type::integer, text);
  advance(i - at_);
}

result<void> lexer::expression_token() {
  auto c = source_[at_];
  if (is_space(c)) {
    advance(1);
    return {};
  }
  if (c == '\'' || c == '"')
    return string_token();
  if (is_digit(c)) {
    number_token();
    return {};
  }
  if (is_name_start(c)) {
    auto i = at_;
    while (i < source_.size() &&
           (is_name_start(source_[i]) || is_digit(source_[i])))
      ++i;
    emit(token_type::name, source_.substr(at_, i - at_));
    advance(i - at_);
    return {};
  }
  constexpr std::array<std::string_view, 23> symbols{
      "==", "!=", "<=", ">=", "//", "**", "+", "-", "*", "/", "%", "~",
      "<",  ">",  "=",  "(",  ")",  "[",  "]", "{", "}", ",", ".",
  };
  for (auto symbol : symbols)
    if (starts(symbol)) {
      emit(token_type::symbol, std::string{symbol});
      advance(symbol.size());
      return {};
    }
  if (c == ':' || c == '|') {
    emit(token_type::symbol, std::string{c});
    advance(1);
    return {};
  }
  return fail(std::string{"unexpected character \""} + c + "\" in a tag");
}

result<void> lexer::tag_body(tag kind) {
  auto output = kind == tag::output;
  std::string_view close = output ? "}}" : "%}";
  emit(output ? token_type::output_open : token_type::block_open, "");
  advance(2);
  if (at_ < source_.size() && (source_[at_] == '-' || source_[at_] == '+'))
    advance(1);
  auto open_braces = 0; // "}}" may also close two dicts
  for (;;) {
    if (at_ >= source_.size())
      return fail("a tag is not closed");
    auto signed_close = (source_[at_] == '-' || source_[at_] == '+') &&
                        source_.compare(at_ + 1, 2, close) == 0;
    auto here = source_.compare(at_, 2, close) == 0;
    if (open_braces == 0 && (here || signed_close)) {
      auto sign = signed_close ? source_[at_] : '\0';
      emit(output ? token_type::output_close : token_type::block_close, "");
      advance(signed_close ? 3 : 2);
      after_close(!output, sign);
      return {};
    }
    if (source_[at_] == '{')
      ++open_braces;
    if (source_[at_] == '}')
      --open_braces;
    if (auto done = expression_token(); !done)
      return done;
  }
}

result<std::vector<token>> lexer::run() {
  while (at_ < source_.size()) {
    auto open = at_;
    do {
      open = source_.find('{', open);
      if (open == std::string::npos || open + 1 >= source_.size()) {
        open = std::string::npos;
        break;
      }
      auto next = source_[open + 1];
      if (next == '{' || next == '%' || next == '#')
        break;
      ++open;
    } while (true);
    if (open == std::string::npos) {
      text_until(source_.size(), false);
      break;
    }
    text_until(open, true);
    auto done = result<void>{};
    if (starts("{#")) {
      done = comment();
    } else if (starts("{%")) {
      auto raw = raw_block();
      if (!raw)
        return raw.error();
      if (!*raw)
        done = tag_body(tag::block);
    } else {
      done = tag_body(tag::output);
    }
    if (!done)
      return done.error();
  }
  emit(token_type::end, "");
  return std::move(out_);
}

} // namespace

result<std::vector<token>> tokenize(std::string_view source) {
  return lexer{with_unix_newlines(source)}.run();
}

} // namespace troupe::text::jinja
