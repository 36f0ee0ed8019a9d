#pragma once

#include "engine/codec/error.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

// What is said when a machine joins (join.hpp): HTTP/1.1 with one request per
// connection, and JSON in it. Pure: bytes in, values out.

namespace troupe::runtime {

struct join_request {
  std::string token;
  std::string node;          ///< the name that it wants to bear
  std::uint32_t version = 0; ///< protocol version that it speaks
  std::string request;       ///< certificate request, PEM

  bool operator==(const join_request&) const = default;
};

struct join_answer {
  std::string certificate; ///< PEM
  std::string authority;   ///< PEM
  std::uint16_t port = 0;  ///< the head's cluster port
  std::uint32_t version = 0;

  bool operator==(const join_answer&) const = default;
};

/// A whole HTTP message.
struct http_message {
  std::string_view start_line;
  std::string_view body;
};

/// Takes a message apart; null while bytes are missing. Errors: limit (it has
/// or claims more than `bytes_max` bytes), invalid_argument (not HTTP, a coded
/// body, something after it).
std::optional<result<http_message>> read_http(std::string_view bytes,
                                              std::size_t bytes_max);

/// "POST /join" as it is sent to `host`, and what it is answered.
std::string write_join_request(const join_request&, std::string_view host);
std::string write_join_answer(const join_answer&);
std::string write_join_refusal(const error&);

/// Reads a request. Errors name what is wrong with it: another target
/// (not_found), a field that is missing or of the wrong kind, a bad name.
result<join_request> read_join_request(const http_message&);

/// Reads an answer, or the error that came instead of one.
result<join_answer> read_join_answer(const http_message&);

/// Whether a node may have this name: 1 to 63 of a-z, 0-9, "-" and ".", a
/// letter or digit first; and not "head", which is the head's.
result<void> check_worker_name(std::string_view);

/// Whether two processes of these protocol versions understand each other.
result<void> check_versions(std::uint32_t heads, std::uint32_t nodes);

} // namespace troupe::runtime
