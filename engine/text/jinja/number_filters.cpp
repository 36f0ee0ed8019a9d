#include "engine/text/jinja/arguments.hpp"
#include "engine/text/jinja/filter_functions.hpp"
#include "engine/text/jinja/text_operations.hpp"

#include <charconv>
#include <cmath>

namespace troupe::text::jinja {

namespace {

std::optional<std::int64_t> truncated(double x) {
  if (!(std::abs(x) < 9e18))
    return std::nullopt;
  return static_cast<std::int64_t>(x);
}

/// The text of a number without blanks, "+" and the "_" between digits.
std::string bare_number(const marked_string& text) {
  auto out = strip(text, nullptr, true, true).text();
  for (std::size_t i = 1; i + 1 < out.size(); ++i)
    if (out[i] == '_' && out[i - 1] != '_' && out[i + 1] != '_')
      out.erase(i, 1);
  if (out.size() > 1 && out[0] == '+' && out[1] != '-')
    out.erase(0, 1);
  return out;
}

std::optional<double> read_real(const std::string& text) {
  double out = 0;
  auto [end, code] =
      std::from_chars(text.data(), text.data() + text.size(), out);
  if (code != std::errc{} || end != text.data() + text.size())
    return std::nullopt;
  return out;
}

/// Python's int(text, base). A prefix such as 0x may stand in front.
std::optional<std::int64_t> read_whole(std::string text, std::int64_t base) {
  auto sign = text.starts_with('-') ? std::size_t{1} : std::size_t{0};
  auto prefix = text.substr(sign, 2);
  for (auto [spelling, of] : {std::pair{"0x", 16},
                              {"0X", 16},
                              {"0o", 8},
                              {"0O", 8},
                              {"0b", 2},
                              {"0B", 2}})
    if (prefix == spelling && (base == of || base == 0)) {
      text.erase(sign, 2);
      base = of;
      break;
    }
  std::int64_t out = 0;
  auto [end, code] =
      std::from_chars(text.data(), text.data() + text.size(), out,
                      base == 0 ? 10 : static_cast<int>(base));
  if (code != std::errc{} || end != text.data() + text.size())
    return std::nullopt;
  return out;
}

} // namespace

runtime_value int_filter(meter&, const runtime_value& v,
                         const call_arguments& args) {
  const auto* fallback = args.find(0, "default");
  auto base = whole_argument(args.find(1, "base"), "int", 10);
  if (base != 0 && (base < 2 || base > 36))
    fail("int: the base must be 0 or 2 to 36");
  auto out = v.whole();
  if (const auto* d = v.get<double>())
    out = truncated(*d);
  if (const auto* text = v.text()) {
    auto bare = bare_number(*text);
    out = read_whole(bare, base);
    if (auto real = read_real(bare); !out && real)
      out = truncated(*real);
  }
  if (out)
    return *out;
  return fallback ? *fallback : runtime_value{std::int64_t{0}};
}

runtime_value float_filter(meter&, const runtime_value& v,
                           const call_arguments& args) {
  const auto* fallback = args.find(0, "default");
  auto out = v.number();
  if (const auto* text = v.text())
    out = read_real(bare_number(*text));
  if (out)
    return *out;
  return fallback ? *fallback : runtime_value{0.0};
}

runtime_value abs_filter(meter&, const runtime_value& v,
                         const call_arguments&) {
  if (const auto* d = v.get<double>())
    return std::abs(*d);
  auto i = v.whole();
  if (!i || *i == INT64_MIN)
    fail("abs needs a number");
  return *i < 0 ? -*i : *i;
}

runtime_value round_filter(meter&, const runtime_value& v,
                           const call_arguments& args) {
  auto digits = whole_argument(args.find(0, "precision"), "round", 0);
  const auto* given = args.find(1, "method");
  auto method = given ? text_argument(given, "round").text() : "common";
  if (digits < 0 || digits > 12)
    fail("round: the precision must be 0 to 12");
  auto real = v.number();
  if (!real)
    fail("round needs a number");
  auto scale = std::pow(10.0, static_cast<double>(digits));
  if (method == "ceil")
    return std::ceil(*real * scale) / scale;
  if (method == "floor")
    return std::floor(*real * scale) / scale;
  if (method != "common")
    fail("round: the method must be common, ceil or floor");
  if (auto whole = v.whole())
    return *whole;
  if (!std::isfinite(*real))
    return *real;
  // The decimal digits nearest to the number, half to even, as Python has it.
  char text[400];
  auto end = std::to_chars(text, text + sizeof text, *real,
                           std::chars_format::fixed, static_cast<int>(digits))
                 .ptr;
  return *read_real({text, end});
}

} // namespace troupe::text::jinja
