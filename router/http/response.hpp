#pragma once

#include "router/http/server.hpp"

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

/// Answers as bytes. Pure, but for the Date field.
namespace troupe::http {

/// What the head of an answer says beside the handler's own fields.
struct response_frame {
  int minor_version = 1; ///< of the request
  bool close = false;    ///< the connection ends behind this answer
  bool chunked = false;
  std::optional<std::size_t> content_length;
};

/// What the head of every answer begins with.
inline constexpr std::string_view head_start = "HTTP/1.1 ";

/// Appends status line, Date, `headers` and the framing fields. Of `headers`,
/// fields that are not well-formed (they could split the answer) and those this
/// layer owns (Content-Length, Transfer-Encoding, Connection, Date) are left
/// out. A status outside 200..599 becomes 500.
void append_head(std::string& out, int status, const header_list& headers,
                 const response_frame& frame);

/// Appends one chunk; nothing for no bytes, since that would end the body.
void append_chunk(std::string& out, std::string_view bytes);

/// What ends a chunked body.
inline constexpr std::string_view last_chunk = "0\r\n\r\n";

/// Whether answers of this status have a body at all (204 and 304 have none).
bool status_has_body(int status);

} // namespace troupe::http
