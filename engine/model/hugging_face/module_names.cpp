#include "engine/model/hugging_face/module_names.hpp"

#include <charconv>
#include <vector>

namespace troupe::model::hugging_face {

namespace {

/// The digits that `text` begins with; empty unless they are one number as a
/// program writes it, of at most six digits.
std::string_view leading_number(std::string_view text) {
  auto digits = text.substr(0, text.find_first_not_of("0123456789"));
  bool padded = digits.size() > 1 && digits.front() == '0';
  return padded || digits.size() > 6 ? std::string_view{} : digits;
}

/// The numbers at the stars of `pattern`; nothing if `text` does not fit.
std::optional<std::vector<std::string_view>> match(std::string_view pattern,
                                                   std::string_view text) {
  std::vector<std::string_view> numbers;
  while (!pattern.empty()) {
    if (pattern.front() != '*') {
      auto plain = pattern.substr(0, pattern.find('*'));
      if (!text.starts_with(plain))
        return std::nullopt;
      text.remove_prefix(plain.size());
      pattern.remove_prefix(plain.size());
      continue;
    }
    auto number = leading_number(text);
    if (number.empty())
      return std::nullopt;
    numbers.push_back(number);
    text.remove_prefix(number.size());
    pattern.remove_prefix(1);
  }
  return text.empty() ? std::optional{numbers} : std::nullopt;
}

std::int64_t value_of(std::string_view number) {
  std::int64_t out = 0;
  std::from_chars(number.data(), number.data() + number.size(), out);
  return out;
}

module_name named(const module_row& row,
                  const std::vector<std::string_view>& numbers) {
  module_name out{std::string{row.to}, -1, row.how};
  if (auto star = out.to.find('*'); star != std::string::npos)
    out.to.replace(star, 1, numbers.at(0));
  if (numbers.size() == 2)
    out.in_stack = value_of(numbers[1]);
  return out;
}

} // namespace

std::optional<module_name> name_module(const family& of,
                                       std::string_view module) {
  if (module.starts_with(of.prefix))
    module.remove_prefix(of.prefix.size());
  // Decoders without an output layer are stored without this prefix.
  const auto prefixed = "model." + std::string{module};
  for (const auto* rows : {&of.modules, &common_modules()})
    for (const auto& row : *rows)
      for (auto name : {module, std::string_view{prefixed}})
        if (auto numbers = match(row.from, name))
          return named(row, *numbers);
  return std::nullopt;
}

} // namespace troupe::model::hugging_face
