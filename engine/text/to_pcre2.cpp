#include "engine/text/split_pattern.hpp"
#include "engine/text/unicode_additions.hpp"
#include "engine/text/utf8.hpp"

#include <fmt/format.h>

namespace troupe::text {

namespace {

constexpr std::size_t pattern_bytes_max = 16384;
constexpr std::size_t depth_max = 32;
constexpr unsigned repeats_max = 1000;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_sign(char c) {
  return c > 0x20 && c < 0x7F && !is_digit(c) && !(c >= 'a' && c <= 'z') &&
         !(c >= 'A' && c <= 'Z');
}

void append_range(char32_t first, char32_t last, std::string& out) {
  out += fmt::format("\\x{{{:x}}}", static_cast<unsigned>(first));
  if (first != last)
    out += fmt::format("-\\x{{{:x}}}", static_cast<unsigned>(last));
}

// The items of a set that stands for a general category ("L", "Lu").
std::string category_items(std::string_view name) {
  auto out = fmt::format("\\p{{{}}}", name);
  for (const auto& range : unicode_additions)
    if (range.category.starts_with(name))
      append_range(range.first, range.last, out);
  return out;
}

std::string space_items() {
  std::string out;
  for (const auto& range : white_space)
    append_range(range.first, range.last, out);
  return out;
}

std::string non_space_items() {
  std::string out;
  char32_t next = 0;
  for (const auto& range : white_space) {
    append_range(next, range.first - 1, out);
    next = range.last + 1;
  }
  append_range(next, 0x10FFFF, out);
  return out;
}

bool is_known_category(std::string_view name) {
  constexpr std::string_view known[] = {
      "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "N",  "Nd",
      "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf",
      "Po", "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs"};
  for (auto entry : known)
    if (entry == name)
      return true;
  return false;
}

class translator {
public:
  explicit translator(std::string_view pattern) : in_(pattern) {
    // nop
  }

  result<std::string> run() {
    if (in_.size() > pattern_bytes_max)
      return error{errc::limit, fmt::format("pattern: longer than {} bytes",
                                            pattern_bytes_max)};
    if (!is_utf8(in_))
      return error{errc::corrupt, "pattern: not UTF-8"};
    bool unbounded = false;
    if (alternatives(0, unbounded) && at_ < in_.size())
      refuse("a ) without its (");
    if (!problem_.empty())
      return error{errc::unsupported,
                   fmt::format("pattern: {} at byte {}", problem_, at_)};
    return std::move(out_);
  }

private:
  bool more() const {
    return at_ < in_.size();
  }

  bool take(std::string_view text) {
    if (!in_.substr(at_).starts_with(text))
      return false;
    at_ += text.size();
    return true;
  }

  bool refuse(std::string_view what) {
    if (problem_.empty())
      problem_ = what;
    return false;
  }

  // Everything up to the end or a `)`. Tells whether it repeats without bound.
  bool alternatives(std::size_t depth, bool& unbounded) {
    if (depth > depth_max)
      return refuse("groups nested too deep");
    while (more() && in_[at_] != ')') {
      if (take("|")) {
        out_ += '|';
        continue;
      }
      bool inner_unbounded = false;
      bool repeatable = true;
      if (!atom(depth, inner_unbounded, repeatable) ||
          !quantifier(inner_unbounded, repeatable))
        return false;
      unbounded = unbounded || inner_unbounded;
    }
    return true;
  }

  bool atom(std::size_t depth, bool& unbounded, bool& repeatable) {
    auto c = in_[at_];
    switch (c) {
    case '(':
      return group(depth, unbounded, repeatable);
    case '[':
      return set();
    case '\\':
      return escape(false);
    case '$': // ends a line or the text
      ++at_;
      repeatable = false;
      out_ += "(?=\\n|\\z)";
      return true;
    case '^':
    case '*':
    case '+':
    case '?':
    case '{':
    case '}':
    case ']':
      return refuse(fmt::format("`{}` in a place that is not supported", c));
    default:
      if (c == '.' && caseless_)
        return refuse("`.` in a group that ignores case");
      return literal();
    }
  }

  bool literal() {
    auto size = first_utf8_unit(in_.substr(at_)).size;
    if (in_[at_] == '\0')
      return refuse("a zero byte");
    out_ += in_.substr(at_, size);
    at_ += size;
    return true;
  }

  bool group(std::size_t depth, bool& unbounded, bool& repeatable) {
    ++at_;
    auto caseless_before = caseless_;
    if (!take("?")) {
      out_ += "(?:";
    } else {
      constexpr std::string_view kinds[] = {":", "i:", ">", "=",
                                            "!", "<=", "<!"};
      auto* kind = kinds;
      while (kind != std::end(kinds) && !take(*kind))
        ++kind;
      if (kind == std::end(kinds))
        return refuse("a kind of group that is not supported");
      repeatable = *kind == ":" || *kind == "i:" || *kind == ">";
      caseless_ = caseless_ || *kind == "i:";
      out_ += "(?";
      out_ += *kind;
    }
    if (!alternatives(depth + 1, unbounded))
      return false;
    if (!take(")"))
      return refuse("a ( without its )");
    out_ += ')';
    caseless_ = caseless_before;
    return true;
  }

  bool escape(bool in_set) {
    ++at_;
    if (!more())
      return refuse("a \\ at the end");
    auto c = in_[at_++];
    if (is_sign(c)) {
      out_ += '\\';
      out_ += c;
      return true;
    }
    switch (c) {
    case 'n':
    case 'r':
    case 't':
    case 'f':
      out_ += '\\';
      out_ += c;
      return true;
    case 'u':
      return scalar();
    case 's':
      return items(space_items(), in_set, false);
    case 'S':
      return items(non_space_items(), in_set, false);
    case 'd':
      return items(category_items("Nd"), in_set, false);
    case 'p':
    case 'P':
      return property(in_set, c == 'P');
    default:
      return refuse(fmt::format("`\\{}`, which is not supported,", c));
    }
  }

  bool scalar() {
    char32_t value = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      auto c = more() ? in_[at_] : '\0';
      auto lower = static_cast<char>(c | 0x20);
      if (is_digit(c))
        value = value * 16 + static_cast<char32_t>(c - '0');
      else if (lower >= 'a' && lower <= 'f')
        value = value * 16 + static_cast<char32_t>(lower - 'a' + 10);
      else
        return refuse("\\u without four hexadecimal digits");
    }
    if (value >= 0xD800 && value <= 0xDFFF)
      return refuse("half of a surrogate pair");
    append_range(value, value, out_);
    return true;
  }

  bool property(bool in_set, bool negated) {
    auto end = in_.find('}', at_);
    if (!take("{") || end == std::string_view::npos)
      return refuse("\\p without {..}");
    auto name = in_.substr(at_, end - at_);
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    if (!is_known_category(name))
      return refuse(fmt::format("\\p{{{}}}, which is not supported,", name));
    at_ = end + 1;
    return items(category_items(name), in_set, negated);
  }

  bool items(const std::string& text, bool in_set, bool negated) {
    if (caseless_)
      return refuse("a class of characters in a group that ignores case");
    if (in_set && negated)
      return refuse("a negated class in a set");
    if (in_set) {
      out_ += text;
    } else {
      out_ += negated ? "[^" : "[";
      out_ += text;
      out_ += ']';
    }
    return true;
  }

  bool set() {
    if (caseless_)
      return refuse("a set in a group that ignores case");
    ++at_;
    out_ += '[';
    if (take("^"))
      out_ += '^';
    if (more() && in_[at_] == ']')
      return refuse("an empty set");
    while (more() && in_[at_] != ']') {
      if (in_.substr(at_).starts_with("&&") || in_[at_] == '[')
        return refuse("a set in a set");
      auto ok = in_[at_] == '\\' ? escape(true) : literal();
      if (!ok)
        return false;
    }
    if (!take("]"))
      return refuse("a [ without its ]");
    out_ += ']';
    return true;
  }

  bool quantifier(bool& unbounded, bool repeatable) {
    if (!more())
      return true;
    auto c = in_[at_];
    if (c != '*' && c != '+' && c != '?' && c != '{')
      return true;
    if (!repeatable)
      return refuse("a repeat of something without length");
    auto endless = c == '*' || c == '+';
    if (c == '{') {
      if (!counts(endless))
        return false;
    } else {
      out_ += c;
      ++at_;
      if (take("?"))
        out_ += '?'; // as little as possible
      else if (take("+"))
        out_ += '+'; // never gives back
    }
    if (more() && std::string_view{"*+?{"}.find(in_[at_]) != in_.npos)
      return refuse("a repeat of a repeat");
    if (endless && unbounded)
      return refuse("an unbounded repeat of an unbounded repeat");
    unbounded = unbounded || endless;
    return true;
  }

  // {n}, {n,} or {n,m}
  bool counts(bool& endless) {
    ++at_;
    unsigned low = 0;
    if (!number(low))
      return false;
    auto high = low;
    endless = false;
    out_ += fmt::format("{{{}", low);
    if (take(",")) {
      out_ += ',';
      endless = more() && in_[at_] == '}';
      if (!endless) {
        if (!number(high))
          return false;
        out_ += std::to_string(high);
      }
    }
    if (!take("}") || high < low)
      return refuse("a repeat that is not {n}, {n,} or {n,m}");
    out_ += '}';
    return true;
  }

  bool number(unsigned& value) {
    if (!more() || !is_digit(in_[at_]))
      return refuse("a repeat that is not {n}, {n,} or {n,m}");
    value = 0;
    while (more() && is_digit(in_[at_]) && value <= repeats_max)
      value = value * 10 + static_cast<unsigned>(in_[at_++] - '0');
    return value <= repeats_max || refuse("a repeat of more than 1000");
  }

  std::string_view in_;
  std::size_t at_ = 0;
  std::string out_;
  std::string problem_;
  bool caseless_ = false;
};

} // namespace

result<std::string> to_pcre2(std::string_view pattern) {
  return translator{pattern}.run();
}

} // namespace troupe::text
