#include "engine/text/jinja/number_format.hpp"

#include "engine/text/jinja/text_operations.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace troupe::text::jinja {

namespace {

void to_capitals(std::string& text) {
  for (auto& c : text)
    if (c >= 'a' && c <= 'z')
      c = static_cast<char>(c - 32);
}

/// `digits` with `group` between each `size` of them, at least `room` long by
/// zeros in front.
std::string grouped(const std::string& digits, char group, std::size_t size,
                    std::size_t room) {
  auto count = digits.size();
  auto length = [&](std::size_t n) { return n + (n - 1) / size; };
  if (length(count) < room)
    count = std::max(count, room - room / (size + 1));
  while (length(count) < room)
    ++count;
  while (count > digits.size() && length(count - 1) >= room)
    --count;
  std::string out;
  for (std::size_t i = 0; i < count; ++i) {
    if (i > 0 && (count - i) % size == 0)
      out += group;
    auto zeros = count - digits.size();
    out += i < zeros ? '0' : digits[i - zeros];
  }
  return out;
}

/// A number's parts, laid out.
struct number_parts {
  std::string sign;   ///< and 0x
  std::string digits; ///< of the whole part
  std::string rest;   ///< from the point on
};

marked_string lay_out(meter& cost, number_parts parts,
                      const format_layout& layout) {
  cost.check_bytes(
      static_cast<std::size_t>(std::max<std::int64_t>(layout.width, 0)));
  auto between = layout.align == '=';
  if (layout.group != '\0') {
    auto taken = parts.sign.size() + parts.rest.size();
    auto width =
        static_cast<std::size_t>(std::max<std::int64_t>(layout.width, 0));
    auto zeros = between && layout.fill.text() == "0";
    auto hex =
        layout.type != '\0' &&
        std::string_view{"boxX"}.find(layout.type) != std::string_view::npos;
    parts.digits = grouped(parts.digits, layout.group, hex ? 4 : 3,
                           zeros && width > taken ? width - taken : 0);
  }
  marked_string sign{parts.sign};
  marked_string number{parts.digits + parts.rest};
  if (between) {
    auto rest = layout.width - static_cast<std::int64_t>(sign.size());
    sign.append(pad(cost, number, rest, layout.fill, side::right));
    return sign;
  }
  sign.append(number);
  auto where = layout.align == '<'   ? side::left
               : layout.align == '^' ? side::middle
                                     : side::right;
  return pad(cost, sign, layout.width, layout.fill, where);
}

std::string sign_of(bool negative, char sign) {
  if (negative)
    return "-";
  return sign == '-' ? "" : std::string{sign};
}

std::string real_digits(double x, std::chars_format form, int precision) {
  std::string out(static_cast<std::size_t>(precision) + 400, '\0');
  auto end =
      std::to_chars(out.data(), out.data() + out.size(), x, form, precision)
          .ptr;
  out.resize(static_cast<std::size_t>(end - out.data()));
  return out;
}

void drop_zeros(std::string& digits, bool keep_one) {
  if (digits.find('.') == std::string::npos)
    digits += ".0";
  while (digits.back() == '0')
    digits.pop_back();
  if (digits.back() == '.' && keep_one)
    digits += '0';
  else if (digits.back() == '.')
    digits.pop_back();
}

/// Type g, and no type (with `keep_point`: 1.0, never 1).
std::string general_digits(double x, std::int64_t precision, bool keep_point) {
  auto wanted = static_cast<int>(std::max<std::int64_t>(precision, 1));
  auto out = real_digits(x, std::chars_format::scientific, wanted - 1);
  auto at = out.find('e');
  auto exponent = std::stoi(out.substr(at + 1));
  if (exponent < -4 || exponent >= wanted - (keep_point ? 1 : 0)) {
    auto mantissa = out.substr(0, at);
    drop_zeros(mantissa, false);
    return mantissa + out.substr(at);
  }
  out = real_digits(x, std::chars_format::fixed,
                    std::max(wanted - 1 - exponent, 0));
  drop_zeros(out, keep_point);
  return out;
}

std::string finite_digits(double x, const format_layout& layout) {
  auto precision = layout.precision < 0 ? 6 : layout.precision;
  switch (layout.type) {
  case 'e':
  case 'E':
    return real_digits(x, std::chars_format::scientific,
                       static_cast<int>(precision));
  case 'g':
  case 'G':
  case 'n':
    return general_digits(x, precision, false);
  case '\0':
    return layout.precision < 0 ? float_text(x)
                                : general_digits(x, precision, true);
  default:
    return real_digits(x, std::chars_format::fixed,
                       static_cast<int>(precision));
  }
}

} // namespace

marked_string format_whole(meter& cost, std::int64_t x,
                           const format_layout& layout) {
  auto base = layout.type == 'b'                         ? 2
              : layout.type == 'o'                       ? 8
              : layout.type == 'x' || layout.type == 'X' ? 16
                                                         : 10;
  auto size =
      x < 0 ? 0 - static_cast<std::uint64_t>(x) : static_cast<std::uint64_t>(x);
  char buffer[72];
  auto end = std::to_chars(buffer, buffer + sizeof buffer, size, base).ptr;
  number_parts parts{sign_of(x < 0, layout.sign), {buffer, end}, ""};
  if (layout.precision > 0)
    parts.digits.insert(
        0,
        static_cast<std::size_t>(std::max<std::int64_t>(
            layout.precision - static_cast<std::int64_t>(parts.digits.size()),
            0)),
        '0');
  if (layout.alternate && base != 10)
    parts.sign += base == 2 ? "0b" : base == 8 ? "0o" : "0x";
  if (layout.type == 'X') {
    to_capitals(parts.digits);
    to_capitals(parts.sign);
  }
  return lay_out(cost, std::move(parts), layout);
}

marked_string format_real(meter& cost, double x, const format_layout& layout) {
  if (layout.alternate)
    fail("# in the format of a float: not supported");
  number_parts parts{sign_of(std::signbit(x) && !std::isnan(x), layout.sign),
                     "", ""};
  auto size = std::abs(x);
  if (layout.type == '%')
    size *= 100;
  auto digits = std::isnan(size)   ? "nan"
                : std::isinf(size) ? "inf"
                                   : finite_digits(size, layout);
  if (layout.type == '%')
    digits += '%';
  if (layout.type == 'E' || layout.type == 'F' || layout.type == 'G')
    to_capitals(digits);
  auto end = std::find_if(digits.begin(), digits.end(),
                          [](char c) { return c < '0' || c > '9'; });
  if (end == digits.begin()) { // nan and inf
    parts.rest = std::move(digits);
    auto plain = layout;
    plain.group = '\0';
    return lay_out(cost, std::move(parts), plain);
  }
  parts.digits.assign(digits.begin(), end);
  parts.rest.assign(end, digits.end());
  return lay_out(cost, std::move(parts), layout);
}

marked_string format_text(meter& cost, const marked_string& text,
                          const format_layout& layout) {
  auto out =
      layout.precision < 0
          ? text
          : first_characters(text, static_cast<std::size_t>(layout.precision));
  auto where = layout.align == '>'   ? side::right
               : layout.align == '^' ? side::middle
                                     : side::left;
  return pad(cost, out, layout.width, layout.fill, where);
}

} // namespace troupe::text::jinja
