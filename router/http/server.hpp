#pragma once

#include "engine/codec/error.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace boost::asio {
class io_context;
}

/// A strict HTTP/1.1 layer (docs/http.md): whatever is not one well-formed
/// request is refused here, before any handler runs.
namespace troupe::http {

/// Header fields in order of arrival, names as sent.
using header_list = std::vector<std::pair<std::string, std::string>>;

struct request {
  std::string method; ///< "GET"
  std::string target; ///< as sent, checked: origin form
  std::string path;   ///< percent-decoded once, no "//", "/./" or "/../" in it
  std::string query;  ///< behind '?', raw
  header_list headers;
  std::string body;

  /// First field of this name (case-insensitive); empty if there is none.
  std::string_view header(std::string_view name) const;

  bool operator==(const request&) const = default;
};

/// The answer to one request. Any thread; calls after the end are ignored.
/// Either `respond` once, or `start_stream`, `write`..., then `finish` or
/// `abort`.
class reply {
public:
  virtual ~reply() = default;

  /// A whole answer. Content-Length and Date are added; `headers` holds the
  /// content type.
  virtual void respond(int status, header_list headers, std::string body) = 0;

  /// Begins a chunked answer (to HTTP/1.0: until close).
  virtual void start_stream(int status, header_list headers) = 0;

  /// Adds to the stream. Sent at once when the socket is idle, else coalesced.
  /// False once the client is gone. Whatever is given is kept until it is sent:
  /// ask `has_room` before.
  virtual bool write(std::string bytes) = 0;

  /// Whether fewer than `limits::stream_buffer_bytes` are unsent, or nobody is
  /// there to send to. Who writes only then never holds more than that and one
  /// write, and no reader that keeps up is cut.
  virtual bool has_room() const = 0;

  /// Runs once, on a server thread, when a stream has room again; at once, on
  /// the calling thread, if it has. Dropped when the answer ends; a later
  /// callback replaces an earlier one.
  virtual void on_room(std::function<void()>) = 0;

  /// Ends the stream properly.
  virtual void finish() = 0;

  /// Closes the connection without the final chunk, so that nobody takes the
  /// stream for whole.
  virtual void abort() = 0;

  /// Runs once, on a server thread, when the client leaves before the end of
  /// the answer; at once, on the calling thread, if it already has. Dropped
  /// when the answer ends; a later callback replaces an earlier one. Who only
  /// ends its sending has not left (docs/http.md).
  virtual void on_client_gone(std::function<void()>) = 0;
};

/// Runs on a server thread; must not block. The reply may be kept and answered
/// later from any thread; dropping the last reference unanswered answers 500.
using handler = std::function<void(request, std::shared_ptr<reply>)>;

struct limits {
  std::size_t header_bytes = 8 * 1024;
  std::size_t header_fields = 100;
  std::size_t target_bytes = 8 * 1024;
  std::size_t body_bytes = 64u << 20;
  /// All bodies whose answer has not ended, together; beyond it 503.
  std::size_t body_bytes_total = 1u << 30;
  std::size_t connections = 10'000;
  std::size_t pipelined_requests = 100; ///< per connection, then it is closed
  /// From so many unsent bytes on, a stream has no room.
  std::size_t stream_buffer_bytes = 32 * 1024;
  std::chrono::milliseconds header_time{10'000};
  /// A body must come at 1 KB/s after this grace.
  std::chrono::milliseconds body_grace{5'000};
  std::chrono::milliseconds keep_alive{60'000};
  /// A reader that takes nothing for so long is closed.
  std::chrono::milliseconds write_stall{30'000};
};

struct server_options {
  std::string host = "127.0.0.1";
  std::uint16_t port = 0; ///< 0 = any; see server::port
  limits bounds;
  /// Bodies of the layer's own errors (400, 408, 413, ...): content type and
  /// body for a status and a sentence. Unset: plain text.
  std::function<std::pair<std::string, std::string>(int status,
                                                    std::string_view sentence)>
      error_body;
};

/// A listener on the given io_context; its sessions run on that context's
/// threads, whose number it does not change. Destroy the server before the
/// context. Replies may outlive both: their calls do nothing then. After
/// `close` a call of the handler that had begun may still run: join the
/// context's threads before destroying what the handler uses.
class server {
public:
  static result<std::unique_ptr<server>> start(boost::asio::io_context&,
                                               server_options, handler);

  virtual ~server() = default;
  virtual std::uint16_t port() const = 0;

  /// From now on idle connections are closed after so long, whatever
  /// `limits::keep_alive` says. Any thread.
  virtual void set_keep_alive(std::chrono::milliseconds) = 0;

  /// False once the port is free again.
  virtual bool listening() const = 0;

  /// No new connections; idle ones are closed; answers under way go on, with
  /// `Connection: close`.
  virtual void stop_accepting() = 0;

  /// Requests whose answer has not ended.
  virtual std::size_t requests_in_flight() const = 0;
  virtual std::size_t connections() const = 0;

  /// Closes everything now.
  virtual void close() = 0;
};

/// "host:port" listing, and reason phrases for the statuses we send.
std::string_view reason_phrase(int status);

} // namespace troupe::http
