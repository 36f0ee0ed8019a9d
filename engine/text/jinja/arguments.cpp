#include "engine/text/jinja/arguments.hpp"

#include <algorithm>

namespace troupe::text::jinja {

const runtime_value* call_arguments::find(std::size_t index,
                                          std::string_view name) const {
  if (index < positional.size())
    return &positional[index];
  for (const auto& [key, value] : named)
    if (key == name)
      return &value;
  return nullptr;
}

const marked_string& text_argument(const runtime_value* v,
                                   std::string_view what) {
  if (v == nullptr || v->text() == nullptr)
    fail(std::string{what} + " needs a text");
  return *v->text();
}

std::int64_t whole_argument(const runtime_value* v, std::string_view what) {
  auto out = v ? v->whole() : std::nullopt;
  if (!out)
    fail(std::string{what} + " needs a whole number");
  return *out;
}

std::int64_t whole_argument(const runtime_value* v, std::string_view what,
                            std::int64_t fallback) {
  return v ? whole_argument(v, what) : fallback;
}

bool flag_argument(const runtime_value* v, bool fallback) {
  return v == nullptr ? fallback : truth(*v);
}

void check_arguments(const call_arguments& args, std::string_view what,
                     std::span<const std::string_view> names) {
  if (args.positional.size() > names.size())
    fail(std::string{what} + " takes fewer arguments");
  for (const auto& [name, value] : args.named) {
    auto at = std::find(names.begin(), names.end(), name);
    if (at == names.end())
      fail(std::string{what} + " takes no argument " + name);
    if (static_cast<std::size_t>(at - names.begin()) < args.positional.size())
      fail(std::string{what} + " got the argument " + name + " twice");
  }
}

} // namespace troupe::text::jinja
