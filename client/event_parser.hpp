#pragma once

#include "engine/codec/error.hpp"

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace troupe::client {

/// Takes the bytes of an event stream (HTML standard, "server-sent events") as
/// they come and hands over the data of each event. Only "data" fields are
/// read, which is all that the OpenAI API uses.
class event_parser {
public:
  using on_data = std::function<void(std::string_view data)>;

  /// An event of more bytes than this is an error.
  static constexpr std::size_t event_bytes_max = 16u << 20;

  explicit event_parser(on_data handler) : handler_(std::move(handler)) {
    // nop
  }

  /// Errors: an event that is too long.
  result<void> feed(std::string_view bytes);

private:
  void line(std::string_view text);

  on_data handler_;
  std::string line_; ///< of the line that is not yet complete
  std::string data_; ///< of the event that is not yet complete
  bool has_data_ = false;
  bool after_return_ = false; ///< the last byte was CR: a LF belongs to it
};

} // namespace troupe::client
