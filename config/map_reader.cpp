#include "config/map_reader.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fmt/format.h>

namespace troupe::config {

position located::where() const {
  auto mark = node.IsDefined() ? node.Mark() : YAML::Mark::null_mark();
  if (mark.is_null())
    return absent.line == 0 ? position{file, 0, 0} : absent;
  return {file, mark.line + 1, mark.column + 1};
}

void located::error(std::string message) const {
  findings->error(where(), path, std::move(message));
}

void located::note(std::string message) const {
  findings->note(where(), path, std::move(message));
}

bool located::present() const {
  return node.IsDefined() && !node.IsNull();
}

void located::replace(const std::string& text) const {
  YAML::Node same = node; // refers to the value in the document
  same = text;
}

namespace {

std::string_view kind_of(const YAML::Node& node) {
  switch (node.Type()) {
  case YAML::NodeType::Scalar:
    return "a single value";
  case YAML::NodeType::Sequence:
    return "a list";
  case YAML::NodeType::Map:
    return "a map";
  default:
    return "nothing";
  }
}

/// A plain scalar, or an error that says what was expected.
std::optional<std::string> scalar(const located& value,
                                  std::string_view expected) {
  if (value.node.IsScalar())
    return value.node.Scalar();
  value.error(fmt::format("must be {}, not {}", expected, kind_of(value.node)));
  return std::nullopt;
}

/// A quoted scalar is text, whatever it looks like.
bool quoted(const located& value) {
  return value.node.Tag() == "!";
}

std::string shortened(std::string_view text) {
  constexpr std::size_t shown_max = 60;
  return text.size() <= shown_max
             ? std::string{text}
             : fmt::format("{}...", text.substr(0, shown_max));
}

std::string shown(std::string_view text) {
  return fmt::format("\"{}\"", shortened(text));
}

/// Whether YAML has it as text: "2" and two are, 2, 1_000, .nan and yes not.
bool is_text(const located& value) {
  auto bare = value.node.Scalar();
  std::erase(bare, '_');
  YAML::Node same{bare};
  double number = 0;
  bool truth = false;
  return quoted(value) || (!YAML::convert<double>::decode(same, number) &&
                           !YAML::convert<bool>::decode(same, truth));
}

/// A scalar where no text is expected: 1.5, or the text "1".
std::string given(const located& value) {
  const auto& scalar = value.node.Scalar();
  return is_text(value) ? "the text " + shown(scalar) : shortened(scalar);
}

std::string range_of(bounds range) {
  auto side = [](double x) {
    return std::abs(x) < 1e15 && x == std::floor(x)
               ? fmt::format("{}", static_cast<std::int64_t>(x))
               : fmt::format("{}", x);
  };
  if (std::isinf(range.high) || range.high >= 9e15)
    return fmt::format("at least {}", side(range.low));
  return fmt::format("from {} to {}", side(range.low), side(range.high));
}

} // namespace

std::optional<std::string> read_text(const located& value) {
  return scalar(value, "text");
}

std::optional<bool> read_boolean(const located& value) {
  auto text = scalar(value, "true or false");
  if (!text)
    return std::nullopt;
  if (!quoted(value)) {
    auto is_true = *text == "true" || *text == "True" || *text == "TRUE";
    if (is_true || *text == "false" || *text == "False" || *text == "FALSE") {
      value.replace(is_true ? "true" : "false");
      return is_true;
    }
  }
  value.error(fmt::format("must be true or false, not {}", given(value)));
  return std::nullopt;
}

std::optional<std::int64_t> read_integer(const located& value, bounds range) {
  auto text = scalar(value, "a whole number");
  if (!text)
    return std::nullopt;
  std::int64_t number = 0;
  auto digits = std::string_view{*text};
  if (digits.starts_with('+'))
    digits.remove_prefix(1);
  // YAML users write 1_000; Ray's reader takes it too.
  std::string bare{digits};
  if (bare.size() > 1 && bare.front() != '_' && bare.back() != '_')
    std::erase(bare, '_');
  auto [end, code] =
      std::from_chars(bare.data(), bare.data() + bare.size(), number);
  auto whole = code == std::errc{} && end == bare.data() + bare.size();
  auto in_range = static_cast<double>(number) >= range.low &&
                  static_cast<double>(number) <= range.high;
  if (whole && in_range && !quoted(value)) {
    value.replace(std::to_string(number));
    return number;
  }
  value.error(fmt::format("must be a whole number {}, not {}", range_of(range),
                          given(value)));
  return std::nullopt;
}

std::optional<double> read_number(const located& value, bounds range) {
  auto text = scalar(value, "a number");
  if (!text)
    return std::nullopt;
  double number = 0;
  auto digits = std::string_view{*text};
  if (digits.starts_with('+'))
    digits.remove_prefix(1);
  auto [end, code] =
      std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (code == std::errc{} && end == digits.data() + digits.size() &&
      std::isfinite(number) && number >= range.low && number <= range.high &&
      !quoted(value)) {
    value.replace(fmt::format("{}", number));
    return number;
  }
  value.error(fmt::format("must be a number {}, not {}", range_of(range),
                          given(value)));
  return std::nullopt;
}

map_reader::map_reader(located value) : value_(std::move(value)) {
  if (value_.present() && !value_.node.IsMap()) {
    value_.error(fmt::format("must be a map, not {}", kind_of(value_.node)));
    value_.node = YAML::Node{YAML::NodeType::Undefined};
    return;
  }
  if (!value_.present())
    return;
  std::vector<std::string> seen;
  for (const auto& entry : value_.node) {
    if (!entry.first.IsScalar()) {
      value_.error("keys must be plain text");
      continue;
    }
    const auto& key = entry.first.Scalar();
    if (std::find(seen.begin(), seen.end(), key) != seen.end())
      located{entry.first, value_.file, value_.path, value_.findings}.error(
          fmt::format("the key {} stands here twice", shown(key)));
    seen.push_back(key);
  }
}

map_reader::~map_reader() {
  if (!value_.present())
    return;
  for (const auto& entry : value_.node) {
    if (!entry.first.IsScalar())
      continue;
    const auto& key = entry.first.Scalar();
    if (std::find(known_.begin(), known_.end(), key) != known_.end())
      continue;
    auto meant = nearest(key, known_);
    auto path = value_.path.empty() ? key : value_.path + "." + key;
    located{entry.first, value_.file, path, value_.findings}.error(
        meant.empty()
            ? std::string{"unknown key"}
            : fmt::format("unknown key; did you mean {}?", shown(meant)));
  }
}

located map_reader::take(std::string_view key) {
  known_.push_back(key);
  auto path = value_.path.empty() ? std::string{key}
                                  : fmt::format("{}.{}", value_.path, key);
  auto found = value_.present() ? std::as_const(value_.node)[std::string{key}]
                                : YAML::Node{YAML::NodeType::Undefined};
  return {found,           value_.file,    std::move(path),
          value_.findings, value_.where(), value_.read_for};
}

std::optional<std::string> map_reader::text(std::string_view key) {
  auto value = take(key);
  return value.present() ? read_text(value) : std::nullopt;
}

std::optional<bool> map_reader::boolean(std::string_view key) {
  auto value = take(key);
  return value.present() ? read_boolean(value) : std::nullopt;
}

std::optional<std::int64_t> map_reader::integer(std::string_view key,
                                                bounds range) {
  auto value = take(key);
  return value.present() ? read_integer(value, range) : std::nullopt;
}

std::optional<double> map_reader::number(std::string_view key, bounds range) {
  auto value = take(key);
  return value.present() ? read_number(value, range) : std::nullopt;
}

std::optional<std::string>
map_reader::choice(std::string_view key,
                   std::initializer_list<std::string_view> allowed) {
  auto value = take(key);
  if (!value.present())
    return std::nullopt;
  auto text = read_text(value);
  if (!text)
    return std::nullopt;
  if (std::find(allowed.begin(), allowed.end(), *text) != allowed.end())
    return text;
  auto meant = nearest(*text, {allowed.begin(), allowed.end()});
  value.error(fmt::format(
      "must be one of {}, not {}{}", fmt::join(allowed, ", "), shown(*text),
      meant.empty() ? std::string{}
                    : fmt::format("; did you mean {}?", meant)));
  return std::nullopt;
}

void map_reader::refuse(std::string_view key, std::string_view why) {
  auto value = take(key);
  if (value.present())
    value.error(std::string{why});
}

void map_reader::refuse(std::string_view key) {
  refuse(key, "not supported yet");
}

void map_reader::refuse(std::initializer_list<std::string_view> keys) {
  for (auto key : keys)
    refuse(key);
}

void map_reader::only(std::string_view key, bool wanted,
                      std::string_view otherwise) {
  auto value = take(key);
  if (!value.present())
    return;
  auto given = read_boolean(value);
  if (given && *given != wanted)
    value.error(std::string{otherwise});
}

std::vector<located> map_reader::list(std::string_view key) {
  auto value = take(key);
  std::vector<located> out;
  if (!value.present())
    return out;
  if (!value.node.IsSequence()) {
    value.error(fmt::format("must be a list, not {}", kind_of(value.node)));
    return out;
  }
  for (std::size_t i = 0; i < value.node.size(); ++i)
    out.push_back({value.node[i],
                   value.file,
                   fmt::format("{}[{}]", value.path, i),
                   value.findings,
                   {},
                   value.read_for});
  return out;
}

} // namespace troupe::config
