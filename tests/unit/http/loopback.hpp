#pragma once

#include "router/http/server.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

/// What the tests of this folder share: a server on 127.0.0.1 and a client that
/// sends any bytes at all.
namespace troupe::http::test {

/// Polls until `true` or ten seconds have passed.
bool eventually(const std::function<bool()>& condition);

/// A server with two threads. Its default handler answers 200 with
/// "METHOD path body".
class test_server {
public:
  explicit test_server(limits bounds = {}, handler on_request = {},
                       server_options options = {});
  ~test_server();

  server& get() {
    return *server_;
  }

  /// Ends the server object, but not the threads.
  void destroy_server() {
    server_.reset();
  }

  std::uint16_t port() const {
    return port_;
  }

  /// Requests that reached the handler, in order.
  std::vector<request> seen() const;

private:
  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type>
      work_;
  mutable std::mutex mutex_;
  std::vector<request> seen_;
  std::unique_ptr<server> server_;
  std::uint16_t port_ = 0;
  std::vector<std::thread> threads_;
};

/// Keeps the replies of a server's handler for the test to answer. Outlives the
/// server.
class reply_box {
public:
  handler as_handler();

  /// Waits for the next one; throws if none comes.
  std::shared_ptr<reply> next();

  std::size_t size();

private:
  std::mutex mutex_;
  std::deque<std::shared_ptr<reply>> replies_;
};

struct answer {
  int status = 0;
  std::map<std::string, std::string> headers; ///< names in lower case
  std::string body;
  bool whole = false; ///< ended as its framing says
};

/// A blocking TCP client; every wait ends after ten seconds.
class raw_client {
public:
  /// Unconnected if `port` is 0.
  explicit raw_client(std::uint16_t port, int receive_buffer_bytes = 0);
  ~raw_client();
  raw_client(const raw_client&) = delete;
  raw_client& operator=(const raw_client&) = delete;

  void connect(std::uint16_t port);

  /// False when the other side has closed.
  bool send(std::string_view bytes);
  void send_byte_by_byte(std::string_view bytes);
  void end_sending();
  void close();
  void reset(); ///< closes with a RST

  /// One answer, also an informational one.
  answer read_answer(bool has_body = true);

  /// Everything up to the end of the connection.
  std::string read_to_end();

  /// True if the connection ends here, properly and with nothing more to read.
  bool at_end();

  /// At least `n` bytes, unless the connection ends.
  std::string read_at_least(std::size_t n);

private:
  bool receive();
  std::string take_line();
  bool take_chunks(std::string& body);

  int fd_ = -1;
  bool failed_ = false; ///< reset, or nothing came for too long
  std::string buffer_;
};

/// "GET path HTTP/1.1" with a Host field.
std::string get(std::string_view path, std::string_view more_fields = {});

/// "POST path HTTP/1.1" with a Host and a Content-Length field.
std::string post(std::string_view path, std::string_view body,
                 std::string_view more_fields = {});

} // namespace troupe::http::test
