#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace troupe::ptx {

/// A word, a number or a sign of PTX.
struct token {
  enum class kind : std::uint8_t { end, word, number, sign };

  kind what = kind::end;
  std::string_view text;
  std::size_t at = 0; ///< in the program's text

  bool operator==(std::string_view other) const {
    return text == other;
  }
};

/// Reads tokens one after the other; comments are left out.
class scanner {
public:
  /// From `begin` until `end` of the text.
  scanner(std::string_view text, std::size_t begin, std::size_t end);

  const token& peek() const {
    return next_;
  }
  token take();
  /// Whether that is next, which is taken then.
  bool take(std::string_view text);
  /// Throws fault if something else is next.
  void expect(std::string_view text);
  token expect_word();
  /// From after a "{" to after its "}".
  void skip_block();
  /// Where the next token begins.
  std::size_t at() const {
    return next_.at;
  }

  [[noreturn]] void fail(const std::string& what) const;
  [[noreturn]] void fail_at(std::size_t at, const std::string& what) const;

private:
  void advance();

  std::string_view text_;
  std::size_t position_, end_;
  token next_;
};

/// "line 12: add.s32 %r1, %r2, 1;"
std::string line_at(std::string_view text, std::size_t at);

/// A number of PTX as bits: of an integer all 64, of 0f... and 0d... those of
/// the float. Throws std::invalid_argument.
std::uint64_t number_of(std::string_view text);

} // namespace troupe::ptx
