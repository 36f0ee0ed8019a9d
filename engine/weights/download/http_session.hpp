#pragma once

#include "engine/codec/error.hpp"
#include "engine/weights/download/fetch_settings.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::download {

struct http_header {
  std::string name;
  std::string value;
  bool secret = false; ///< goes to the origin of the request's URL alone
};

struct http_request {
  std::string method = "GET"; ///< or HEAD, PUT (without a body)
  std::string url;
  std::vector<http_header> headers;
  /// Of a body that is collected; more is an error.
  std::size_t body_bytes_max = 64 * 1024;
  /// Redirects are followed so often; an answer that redirects once more is
  /// an error. 0 = they are given back as they are.
  unsigned redirects_max = 0;
  bool same_origin_only = false; ///< others are given back as they are
};

struct http_response {
  int status = 0;
  std::vector<http_header> headers; ///< names in lower case
  std::string body;
  std::string url; ///< that answered

  /// Empty if there is none; the last of several.
  std::string_view header(std::string_view lower_case_name) const;
};

/// Takes the body of an answer of the 200s as it comes.
class body_reader {
public:
  virtual ~body_reader() = default;

  /// Looks at status and headers; an error refuses the body.
  virtual result<void> begin(const http_response& head) = 0;
  virtual result<void> take(std::string_view bytes) = 0;
};

/// Asked all the time while a transfer runs; true ends it (errc::cancelled).
using cancelled = std::function<bool()>;

/// Sends requests one after the other over connections that it keeps open. TLS
/// certificates are always verified. The usual proxy variables count
/// (https_proxy, no_proxy). For one thread at a time.
class http_session {
public:
  http_session(const transfer_limits&, std::filesystem::path ca_file,
               cancelled);
  http_session(http_session&&) noexcept;
  ~http_session();

  /// The answer whatever its status; bodies of the 200s go to `reader` if there
  /// is one. A redirect to another origin is followed without the secret
  /// headers, and never from https to http. Errors: errc::unavailable for what
  /// another try may mend (no connection, a stall, a body cut short), else
  /// final. They name the URL without its query.
  result<http_response> send(const http_request&,
                             body_reader* reader = nullptr);

  /// Ends early if the work is cancelled (false).
  bool pause(milliseconds) const;

  const transfer_limits& limits() const;

private:
  struct state;
  std::unique_ptr<state> state_;
};

/// Sends what `make` gives, again and again while the error or the status (408,
/// 429, 500, 502, 503, 504) lets hope, up to limits().tries times. A status
/// that stays so is an error of errc::unavailable; other answers are the
/// caller's.
result<http_response>
send_with_retries(http_session&,
                  const std::function<result<http_request>()>& make);

/// One wait between tries, for callers with a loop of their own.
class retry_pause {
public:
  /// `tries_max`: so many calls of `wait`, less one, are well.
  explicit retry_pause(const transfer_limits&);

  /// Something was achieved: the count starts again.
  void reset();

  /// Waits before the next try. An error if there is none: `why`, or that it
  /// was cancelled, or that `retry_after` (a header; may be empty) is too long.
  result<void> wait(const http_session&, const error& why,
                    std::string_view retry_after);

private:
  const transfer_limits& limits_;
  unsigned failed_ = 0;
};

/// True for a status that another try may mend.
bool is_passing(int status);

/// "HTTP status 503", with the URL that said so.
error status_error(const http_response&);

} // namespace troupe::download
