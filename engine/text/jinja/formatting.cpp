#include "engine/text/jinja/formatting.hpp"

#include "engine/text/jinja/number_format.hpp"
#include "engine/text/jinja/text_operations.hpp"
#include "engine/text/utf8.hpp"

#include <cmath>
#include <limits>

namespace troupe::text::jinja {

namespace {

constexpr std::int64_t width_max = std::numeric_limits<std::int32_t>::max();

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// Digits at `at`, which moves on; nothing: -1. Past `width_max`: that.
std::int64_t read_number(std::string_view text, std::size_t& at) {
  std::int64_t out = -1;
  for (; at < text.size() && is_digit(text[at]); ++at)
    out = std::min(std::max<std::int64_t>(out, 0) * 10 + (text[at] - '0'),
                   width_max);
  return out;
}

void check_precision(std::int64_t precision) {
  if (precision > precision_max)
    throw render_error{errc::limit, "the precision of a format is too large"};
}

marked_string represented_within(meter& cost, const runtime_value& v) {
  cost.check_bytes(weight_of(v));
  cost.spend(weight_of(v) / 64);
  return represented(v);
}

std::int64_t truncated(double x) {
  if (!(std::abs(x) < 9e18))
    fail("a number is too large");
  return static_cast<std::int64_t>(x);
}

/// The character of a number. Numbers may come from a request, and then this
/// could spell anything: it is content.
marked_string character_of(std::int64_t number) {
  if (number < 0 || number > 0x10FFFF || (number >= 0xD800 && number < 0xE000))
    fail("%c needs the number of a character");
  std::string out;
  append_utf8(static_cast<char32_t>(number), out);
  return marked_string{out, true};
}

// -- printf-style -------------------------------------------------------------

class percent_formatter {
public:
  percent_formatter(meter& cost, const marked_string& format,
                    const runtime_value& values)
      : cost_(cost), format_(format), bytes_(format.text()), values_(values) {
    if (const auto* items = values.items(); items && items->tuple)
      tuple_ = items;
  }

  marked_string run() {
    while (at_ < bytes_.size()) {
      auto next = std::min(bytes_.find('%', at_), bytes_.size());
      add(format_.slice(at_, next - at_));
      at_ = next;
      if (at_ < bytes_.size())
        field();
    }
    auto open = tuple_ ? used_ < tuple_->size() : used_ == 0 && !is_mapping();
    if (open && !named_)
      fail("not all arguments converted during string formatting");
    return std::move(out_).as_markup(format_.is_markup());
  }

private:
  bool is_mapping() const {
    return values_.map() || values_.items() || values_.is_undefined();
  }

  void add(const marked_string& text) {
    cost_.check_bytes(out_.size() + text.size());
    out_.append(text);
  }

  char now() const {
    if (at_ >= bytes_.size())
      fail("incomplete format");
    return bytes_[at_];
  }

  const runtime_value& next() {
    if (named_ != nullptr)
      return *std::exchange(named_, nullptr);
    if (used_ >= (tuple_ ? tuple_->size() : named_once_ ? 0 : 1))
      fail("not enough arguments for format string");
    return tuple_ ? (*tuple_)[used_++] : (++used_, values_);
  }

  /// (name) behind the sign.
  void read_name() {
    if (now() != '(')
      return;
    auto open = 1;
    auto from = ++at_;
    for (; open > 0; ++at_)
      open += now() == '(' ? 1 : now() == ')' ? -1 : 0;
    const auto* map = values_.map();
    if (map == nullptr)
      fail("format requires a mapping");
    auto name = bytes_.substr(from, at_ - 1 - from);
    named_ = map->find(name);
    named_once_ = true;
    if (named_ == nullptr)
      fail("a format names \"" + std::string{name} + "\", which is not there");
  }

  std::int64_t read_width() {
    if (now() != '*')
      return std::max<std::int64_t>(read_number(bytes_, at_), 0);
    ++at_;
    auto width = next().whole();
    if (!width)
      fail("* wants int");
    return std::clamp(*width, -width_max, width_max);
  }

  format_layout read_layout() {
    format_layout out;
    auto zeros = false;
    auto left = false;
    constexpr std::string_view flags = "-+ #0";
    for (; flags.find(now()) != flags.npos; ++at_) {
      left |= now() == '-';
      zeros |= now() == '0';
      out.alternate |= now() == '#';
      if (now() == '+' || (now() == ' ' && out.sign != '+'))
        out.sign = now();
    }
    out.width = read_width();
    left |= out.width < 0;
    out.width = std::abs(out.width);
    if (now() == '.') {
      ++at_;
      out.precision = std::max<std::int64_t>(read_width(), 0);
      check_precision(out.precision);
    }
    while (now() == 'h' || now() == 'l' || now() == 'L')
      ++at_;
    out.align = left ? '<' : zeros ? '=' : '>';
    return out;
  }

  void field() {
    auto begin = at_++;
    read_name();
    auto layout = read_layout();
    auto type = now();
    auto size = character_size(bytes_, at_);
    at_ += size;
    if (type == '%')
      return add(format_.slice(at_ - 1, 1));
    if (std::string_view{"srcdiuxXoeEfFgG"}.find(type) == bytes_.npos)
      fail("unsupported format \"" +
           std::string{bytes_.substr(begin, at_ - begin)} + "\"");
    const auto& v = next();
    if (type == 's' || type == 'r' || type == 'c')
      add(text_field(v, type, layout));
    else
      add(number_field(v, type, layout));
  }

  marked_string text_field(const runtime_value& v, char type,
                           format_layout layout) {
    if (layout.align == '=')
      layout.align = '>';
    if (type == 'c') {
      auto number = v.whole();
      const auto* text = v.text();
      if (!number && (!text || count_characters(text->text()) != 1))
        fail("%c requires int or char");
      layout.precision = -1;
      return format_text(cost_, number ? character_of(*number) : *text, layout);
    }
    auto text = type == 's' ? printed(cost_, v) : represented_within(cost_, v);
    return format_text(cost_, format_.is_markup() ? escaped(cost_, text) : text,
                       layout);
  }

  marked_string number_field(const runtime_value& v, char type,
                             format_layout layout) {
    auto real = v.number();
    if (!real)
      fail(std::string{"%"} + type + " format: a number is required, not " +
           std::string{kind_of(v)});
    if (layout.align == '=')
      layout.fill = marked_string{"0"};
    layout.type = type;
    if (std::string_view{"eEfFgG"}.find(type) != std::string_view::npos)
      return format_real(cost_, *real, layout);
    auto decimal = type == 'd' || type == 'i' || type == 'u';
    auto number = v.whole();
    if (!number && !decimal)
      fail(std::string{"%"} + type + " format: an integer is required");
    layout.type = decimal ? 'd' : type;
    return format_whole(cost_, number ? *number : truncated(*real), layout);
  }

  meter& cost_;
  const marked_string& format_;
  std::string_view bytes_;
  const runtime_value& values_;
  const list* tuple_ = nullptr;
  const runtime_value* named_ = nullptr; ///< what (name) said
  bool named_once_ = false;
  std::size_t used_ = 0;
  std::size_t at_ = 0;
  marked_string out_;
};

// -- in braces ----------------------------------------------------------------

/// [[fill]align][sign][#][0][width][group][.precision][type]
format_layout read_spec(const marked_string& spec, bool of_text) {
  format_layout out;
  std::string_view bytes = spec.text();
  std::size_t at = 0;
  auto is_align = [&](std::size_t i) {
    return i < bytes.size() &&
           std::string_view{"<>^="}.find(bytes[i]) != bytes.npos;
  };
  auto filled = false;
  if (!bytes.empty()) {
    auto size = character_size(bytes, 0);
    filled = is_align(size);
    if (filled)
      out.fill = spec.slice(0, size).as_markup(false);
    at = filled ? size : 0;
  }
  if (is_align(at))
    out.align = bytes[at++];
  auto accept = [&](char c) {
    auto is = at < bytes.size() && bytes[at] == c;
    at += is ? 1 : 0;
    return is;
  };
  for (auto sign : {'+', '-', ' '})
    if (accept(sign)) {
      out.sign = sign;
      if (of_text)
        fail("a sign is not allowed in the format of a text");
      break;
    }
  out.alternate = accept('#');
  if (!filled && accept('0')) {
    out.fill = marked_string{"0"};
    if (out.align == '\0' && !of_text)
      out.align = '=';
  }
  out.width = std::max<std::int64_t>(read_number(bytes, at), 0);
  out.group = accept(',') ? ',' : accept('_') ? '_' : '\0';
  if (accept('.')) {
    out.precision = read_number(bytes, at);
    if (out.precision < 0)
      fail("a format lacks its precision");
    if (!of_text)
      check_precision(out.precision);
  }
  if (at < bytes.size())
    out.type = bytes[at++];
  if (at != bytes.size())
    fail("invalid format specifier \"" + spec.text() + "\"");
  if (of_text && (out.alternate || out.group != '\0' || out.align == '='))
    fail("the format specifier \"" + spec.text() + "\" is not for texts");
  return out;
}

[[noreturn]] void wrong_type(char type, const runtime_value& v) {
  fail(std::string{"unknown format code '"} + type + "' for a value of kind " +
       std::string{kind_of(v)});
}

marked_string format_number(meter& cost, const runtime_value& v,
                            const marked_string& spec) {
  auto layout = read_spec(spec, false);
  auto is = [&](std::string_view types) {
    return types.find(layout.type) != types.npos;
  };
  auto number = v.whole();
  if (layout.group == ',' && layout.type != '\0' && !is("deEfFgG%"))
    fail("a format with , needs another type");
  if (is("eEfFgG%") || (!number && (layout.type == '\0' || is("n"))))
    return format_real(cost, *v.number(), layout);
  if (!number || (layout.type != '\0' && !is("bcdnoxX")))
    wrong_type(layout.type, v);
  if (layout.precision >= 0)
    fail("a precision is not allowed in the format of an int");
  if (!is("c") || layout.type == '\0')
    return format_whole(cost, *number, layout);
  if (layout.sign != '-')
    fail("a sign is not allowed with the format code 'c'");
  return format_text(cost, character_of(*number), layout);
}

/// Python's format(v, spec).
marked_string formatted(meter& cost, const runtime_value& v,
                        const marked_string& spec) {
  if (spec.empty())
    return printed(cost, v);
  if (v.number())
    return format_number(cost, v, spec);
  const auto* text = v.text();
  if (text == nullptr)
    fail("a value of kind " + std::string{kind_of(v)} +
         " takes no format specifier");
  auto layout = read_spec(spec, true);
  if (layout.type != '\0' && layout.type != 's')
    wrong_type(layout.type, v);
  return format_text(cost, *text, layout);
}

class brace_formatter {
public:
  brace_formatter(meter& cost, const call_arguments& args, bool escaping)
      : cost_(cost), args_(args), escaping_(escaping) {
    // nop
  }

  marked_string run(const marked_string& format, int depth) {
    if (depth < 0)
      fail("fields of a format are in each other too deeply");
    marked_string out;
    auto add = [&](const marked_string& text) {
      cost_.check_bytes(out.size() + text.size());
      out.append(text);
    };
    std::string_view bytes = format.text();
    for (std::size_t at = 0; at < bytes.size();) {
      auto brace = std::min(bytes.find_first_of("{}", at), bytes.size());
      add(format.slice(at, brace - at));
      if (brace == bytes.size())
        break;
      at = brace + 1;
      auto doubled = at < bytes.size() && bytes[at] == bytes[brace];
      if (doubled) {
        add(format.slice(at++, 1));
        continue;
      }
      if (bytes[brace] == '}' || at == bytes.size())
        fail(std::string{"a single \""} + bytes[brace] + "\" in a format");
      add(field(format, at, depth));
    }
    return out;
  }

private:
  /// The field behind "{" at `at`, which moves past its "}".
  marked_string field(const marked_string& format, std::size_t& at, int depth) {
    cost_.spend(1);
    std::string_view bytes = format.text();
    auto now = [&] {
      if (at >= bytes.size())
        fail("a field of a format is not closed");
      return bytes[at];
    };
    auto from = at;
    auto bracket = false;
    for (; bracket || (now() != '}' && now() != ':' && now() != '!'); ++at) {
      if (now() == '{')
        fail("a \"{\" in the name of a field");
      bracket = now() == '[' || (bracket && now() != ']');
    }
    auto v = named(bytes.substr(from, at - from));
    if (now() == '!') {
      ++at;
      v = converted(v, now());
      ++at;
      if (now() != ':' && now() != '}')
        fail("expected \":\" behind the conversion of a field");
    }
    marked_string spec;
    if (now() == ':') {
      from = ++at;
      for (auto open = 1;; ++at) {
        open += now() == '{' ? 1 : now() == '}' ? -1 : 0;
        if (open == 0)
          break;
      }
      spec = run(format.slice(from, at - from), depth - 1);
    }
    ++at;
    return filled(v, spec);
  }

  marked_string filled(const runtime_value& v, const marked_string& spec) {
    if (!escaping_)
      return formatted(cost_, v, spec);
    if (v.text() && v.text()->is_markup()) {
      if (!spec.empty())
        fail("a format specifier does not fit markup");
      return *v.text();
    }
    return escaped(cost_, formatted(cost_, v, spec).as_markup(false));
  }

  runtime_value converted(const runtime_value& v, char how) {
    if (how == 's')
      return make_text(printed(cost_, v));
    if (how == 'r')
      return make_text(represented_within(cost_, v));
    fail(std::string{"the conversion !"} + how + ": not supported");
  }

  static std::optional<std::int64_t> whole_name(std::string_view name) {
    std::size_t at = 0;
    auto number = read_number(name, at);
    return !name.empty() && at == name.size() ? std::optional{number}
                                              : std::nullopt;
  }

  /// The argument of a name such as "0", "who" or "who.name[0]".
  runtime_value named(std::string_view path) {
    auto end = std::min(path.find_first_of(".["), path.size());
    auto v = argument(path.substr(0, end), end == path.size());
    while (end < path.size()) {
      auto attribute = path[end] == '.';
      if (!attribute && path[end] != '[')
        fail("only \".\" or \"[\" may follow \"]\" in a field");
      auto from = end + 1;
      end = attribute ? std::min(path.find_first_of(".[", from), path.size())
                      : path.find(']', from);
      if (end == path.npos)
        fail("a \"[\" in a field is not closed");
      auto name = path.substr(from, end - from);
      if (name.empty())
        fail("an empty attribute in a field");
      if (!attribute)
        ++end;
      auto index = attribute ? std::nullopt : whole_name(name);
      v = index ? item_of(v, *index) : attribute_of(v, name);
    }
    return v;
  }

  runtime_value argument(std::string_view name, bool alone) {
    auto index = whole_name(name);
    if (alone && name.empty()) {
      if (manual_)
        fail("a format changes from numbered fields to unnumbered");
      index = automatic_++;
    } else if (alone && index) {
      if (automatic_ > 0)
        fail("a format changes from unnumbered fields to numbered");
      manual_ = true;
    }
    if (index) {
      auto at = static_cast<std::size_t>(*index);
      if (at >= args_.positional.size())
        fail("a format has more fields than arguments");
      return args_.positional[at];
    }
    for (const auto& [key, v] : args_.named)
      if (key == name)
        return v;
    fail("a format names \"" + std::string{name} + "\", which is not there");
  }

  meter& cost_;
  const call_arguments& args_;
  bool escaping_;
  bool manual_ = false;
  std::int64_t automatic_ = 0;
};

} // namespace

marked_string format_percent(meter& cost, const marked_string& format,
                             const runtime_value& values) {
  return percent_formatter{cost, format, values}.run();
}

marked_string format_braces(meter& cost, const marked_string& format,
                            const call_arguments& args) {
  brace_formatter out{cost, args, format.is_markup()};
  return out.run(format, 2).as_markup(format.is_markup());
}

} // namespace troupe::text::jinja
