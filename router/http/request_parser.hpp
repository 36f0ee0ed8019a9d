#pragma once

#include "router/http/server.hpp"
#include "router/http/syntax.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace troupe::http {

/// Turns the bytes of a connection into requests, strictly: what two readers
/// could understand differently is refused (docs/http.md has the rules). It
/// does no I/O and holds no clock. How the bytes are cut makes no difference.
class request_parser {
public:
  enum class stage {
    request_line,
    fields,
    body,
    done,   ///< `take` hands the request over
    failed, ///< for good; `why` tells what to answer
  };

  struct failure {
    int status = 0;
    std::string_view sentence; ///< a literal, fit for the client
  };

  /// `bounds` outlives the parser.
  explicit request_parser(const limits& bounds);

  /// Reads up to the end of one request; returns how many bytes it used. Bytes
  /// behind it belong to the next request: feed them after `take`. Nothing is
  /// used once `done` or `failed`.
  std::size_t feed(std::string_view bytes);

  stage where() const;
  const failure& why() const;

  /// A byte of the request has come (an empty line before it is none).
  bool started() const;

  /// Decoded body bytes held so far.
  std::size_t body_bytes() const;

  /// The request in work: its head is whole from stage `body` on.
  const request& current() const;

  /// Minor version: 0 or 1.
  int minor_version() const;

  /// What the client wishes; HTTP/1.0 must ask for it.
  bool keep_alive() const;

  /// The client holds its body back until it has seen "100 Continue".
  bool expects_continue() const;

  /// Hands the request over and begins the next. Only at stage `done`.
  request take();

private:
  /// What the next bytes are.
  enum class part {
    request_line,
    field_line,
    counted_body,
    chunk_head,
    chunk_data,
    chunk_end,
    trailer_line,
    done,
    failed,
  };

  /// Fields that frame or address the request and so may come only once.
  struct framing_fields {
    std::optional<std::string> host;
    std::optional<std::string> length;
    std::optional<std::string> coding;
    std::optional<std::string> expect;
  };

  std::size_t step(std::string_view bytes);
  std::size_t take_line(std::string_view bytes);
  std::size_t take_body(std::string_view bytes, part next);
  std::size_t take_chunk_end(char c);
  std::size_t line_limit() const;

  void on_line(std::string_view line);
  void on_request_line(std::string_view line);
  void on_field_line(std::string_view line);
  void on_chunk_head(std::string_view line);
  void on_trailer_line(std::string_view line);

  bool read_version(std::string_view text);
  bool read_target(std::string_view text);
  bool note_framing(const field& f);
  void on_head_end();
  bool check_host();
  bool check_framing();
  bool check_expectation();

  void fail(int status, std::string_view sentence);
  void fail_too_long();

  const limits* bounds_;
  part part_ = part::request_line;
  failure failure_;
  request request_;
  framing_fields framing_;
  std::string line_;      ///< the begun line, if it came in pieces
  std::string authority_; ///< of a target in absolute form
  std::size_t head_bytes_left_ = 0;
  std::size_t extra_bytes_left_ = 0; ///< for chunk extensions and trailers
  std::uint64_t body_left_ = 0;      ///< of the body or of the chunk
  int minor_version_ = 1;
  bool blank_line_seen_ = false;
  bool close_asked_ = false;
  bool keep_alive_asked_ = false;
  bool coded_content_ = false;
  bool expects_continue_ = false;
  bool chunk_end_begun_ = false;
};

} // namespace troupe::http
