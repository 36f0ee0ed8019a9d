#include "client/event_parser.hpp"

#include <utility>

namespace troupe::client {

result<void> event_parser::feed(std::string_view bytes) {
  for (char c : bytes) {
    bool second_half = std::exchange(after_return_, c == '\r') && c == '\n';
    if (second_half)
      continue;
    if (c == '\n' || c == '\r') {
      line(line_);
      line_.clear();
    } else {
      line_ += c;
    }
    if (line_.size() + data_.size() > event_bytes_max)
      return error{errc::limit, "an event of the answer is too long"};
  }
  return {};
}

void event_parser::line(std::string_view text) {
  if (text.empty()) {
    if (std::exchange(has_data_, false))
      handler_(data_);
    data_.clear();
    return;
  }
  auto colon = text.find(':');
  if (text.substr(0, colon) != "data")
    return;
  auto value = colon == std::string_view::npos ? "" : text.substr(colon + 1);
  if (value.starts_with(' '))
    value.remove_prefix(1);
  if (std::exchange(has_data_, true))
    data_ += '\n';
  data_ += value;
}

} // namespace troupe::client
