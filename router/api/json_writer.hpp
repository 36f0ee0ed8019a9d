#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace troupe::api {

/// `text` with U+FFFD in place of each malformed sequence.
std::string repaired_utf8(std::string_view text);

/// Writes JSON front to back into one string. The caller opens and closes in
/// the right order; the writer places commas, escapes and repairs.
///
/// Strings: control characters, quotes and backslashes are escaped, each
/// malformed UTF-8 sequence becomes U+FFFD, everything else stays as it is.
class json_writer {
public:
  /// `prefix` is put before the JSON as it is ("data: ").
  explicit json_writer(std::string_view prefix = {}) : out_{prefix} {
  }

  json_writer& begin_object();
  json_writer& end_object();
  json_writer& begin_array();
  json_writer& end_array();
  json_writer& key(std::string_view name);

  json_writer& text(std::string_view value);
  json_writer& integer(std::int64_t value);
  json_writer& natural(std::uint64_t value);
  /// Shortest form that reads back as the same float; what is not finite is
  /// -9999.0, as vLLM writes it.
  json_writer& real(float value);
  json_writer& null();
  /// JSON that was written elsewhere, as it is.
  json_writer& json(std::string_view value);

  /// The string, or null if it is empty.
  json_writer& text_or_null(std::string_view value);

  /// What was written, `suffix` behind it. The writer is empty afterwards.
  std::string take(std::string_view suffix = {});

private:
  void separate();
  json_writer& open(char bracket);
  json_writer& close(char bracket);

  std::string out_;
  bool comma_ = false; ///< the next key or value needs one
};

} // namespace troupe::api
