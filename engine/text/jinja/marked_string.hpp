#pragma once

#include "engine/text/text_piece.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace troupe::text::jinja {

/// Text that remembers of every byte whether it is content (from a request) or
/// template text. Slices and concatenations keep the marks, so content can
/// never turn into a special token, whatever a template does with it.
class marked_string {
public:
  marked_string() = default;

  explicit marked_string(std::string_view text, bool content = false)
      : text_(text), marks_(text.size(), content ? '\1' : '\0') {
    // nop
  }

  explicit marked_string(const text_pieces& pieces) {
    for (const auto& piece : pieces)
      append(piece.text, piece.content);
  }

  void append(std::string_view text, bool content) {
    text_ += text;
    marks_.append(text.size(), content ? '\1' : '\0');
  }

  void append(const marked_string& other) {
    text_ += other.text_;
    marks_ += other.marks_;
  }

  /// Adds `text` with the mark of the byte at `at` of `origin`.
  void append_like(std::string_view text, const marked_string& origin,
                   std::size_t at) {
    text_ += text;
    marks_.append(text.size(), origin.marks_[at]);
  }

  marked_string slice(std::size_t from,
                      std::size_t count = std::string::npos) const {
    marked_string out;
    out.text_ = text_.substr(from, count);
    out.marks_ = marks_.substr(from, count);
    out.markup_ = markup_;
    return out;
  }

  /// Escaped or safe for HTML: Python's Markup, which escapes what is added to
  /// it. Slices and copies keep that; `append` does not change it.
  bool is_markup() const {
    return markup_;
  }

  marked_string as_markup(bool markup) && {
    markup_ = markup;
    return std::move(*this);
  }

  const std::string& text() const {
    return text_;
  }

  bool content_at(std::size_t at) const {
    return marks_[at] != '\0';
  }

  std::size_t size() const {
    return text_.size();
  }

  bool empty() const {
    return text_.empty();
  }

  text_pieces pieces() const {
    text_pieces out;
    for (std::size_t from = 0; from < text_.size();) {
      auto to = marks_.find_first_not_of(marks_[from], from);
      if (to == std::string::npos)
        to = text_.size();
      out.push_back({text_.substr(from, to - from), marks_[from] != '\0'});
      from = to;
    }
    return out;
  }

private:
  std::string text_;
  std::string marks_; ///< one byte per byte of text_: 1 = content
  bool markup_ = false;
};

} // namespace troupe::text::jinja
