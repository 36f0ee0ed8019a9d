#include "router/api/openai.hpp"

namespace troupe::api {

namespace {

/// The text of a {type, text} part.
std::string text_of(const text::value& part) {
  const auto& text = std::get<text::value::map>(part.data).back().second;
  std::string all;
  for (const auto& piece : std::get<text::text_pieces>(text.data))
    all += piece.text;
  return all;
}

text::value joined(const text::value::list& parts) {
  std::string all;
  for (const auto& part : parts)
    all += (&part == &parts.front() ? "" : "\n") + text_of(part);
  return text::value::content(all);
}

} // namespace

void join_text_parts(text::value& messages) {
  for (auto& message : std::get<text::value::list>(messages.data))
    for (auto& [key, field] : std::get<text::value::map>(message.data))
      if (auto* parts = std::get_if<text::value::list>(&field.data))
        field = joined(*parts);
}

} // namespace troupe::api
