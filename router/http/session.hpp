#pragma once

#include "router/http/outbox.hpp"
#include "router/http/request_parser.hpp"
#include "router/http/server.hpp"

#include <atomic>
#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/strand.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace troupe::http {

class session;

/// Owns the open connections of a listener and counts them. Any thread.
class session_registry {
public:
  /// `on_room` runs when a connection ends after `has_room` said no.
  session_registry(std::size_t connections_max, std::function<void()> on_room);

  /// False at the limit; `on_room` will run when that changes.
  bool has_room();

  /// False after `release`: the connection is to be dropped.
  bool add(const std::shared_ptr<session>&);

  /// Every connection says so once, when its socket is closed.
  void ended(session*);

  std::size_t size() const;
  std::vector<std::shared_ptr<session>> all() const;

  /// Owns nobody any longer and never calls `on_room` again; goes on counting.
  std::vector<std::shared_ptr<session>> release();

private:
  mutable std::mutex mutex_;
  std::unordered_map<session*, std::shared_ptr<session>> owned_;
  std::size_t count_ = 0;
  std::size_t connections_max_;
  std::function<void()> on_room_;
  bool room_awaited_ = false;
  bool released_ = false;
};

/// What the connections of one listener share; lives as long as the last.
struct session_context {
  server_options options;
  handler on_request;
  std::unique_ptr<session_registry> registry;
  std::atomic<bool> draining{false};
  std::atomic<std::int64_t> keep_alive_ms{0}; ///< `options.bounds` has the first
  std::atomic<std::size_t> requests_in_flight{0};
  std::atomic<std::size_t> body_bytes{0}; ///< of requests not yet answered
};

/// One connection. It answers one request at a time, in order of arrival.
/// Everything here belongs to the strand, but where it says "any thread"; the
/// answers come from any thread through the `outbox`.
class session : public std::enable_shared_from_this<session> {
public:
  using executor = boost::asio::strand<boost::asio::io_context::executor_type>;
  using socket =
      boost::asio::basic_stream_socket<boost::asio::ip::tcp, executor>;

  static std::shared_ptr<session> make(std::shared_ptr<session_context>,
                                       socket);
  session(std::shared_ptr<session_context>, socket); ///< use `make`
  ~session();

  /// Any thread, once, after it was added to the registry.
  void start();

  /// Closes if idle; else behind the answer in work. Any thread.
  void drain();

  /// Any thread. Replies are dead when it returns; the socket is closed soon.
  void close();

  /// The outbox has something to send. Any thread.
  void post_flush();

  /// Closes the socket, then tells who is to be told. Any thread.
  void post_close(outbox::listeners);

private:
  using clock = std::chrono::steady_clock;
  using timer =
      boost::asio::basic_waitable_timer<clock, boost::asio::wait_traits<clock>,
                                        executor>;

  enum class mode {
    reading,
    answering, ///< further requests wait in `waiting_input_`
    lingering, ///< all is said; the rest of the input is thrown away
    closed,
  };

  /// What the connection waits for while it reads, each with its own time.
  enum class awaiting { nothing, request, head, body };

  // Input.
  void wait_readable();
  void on_readable();
  void received(std::string_view bytes);
  void consume(std::string_view& input);
  void react(bool more_input);
  void resume();
  void on_end_of_input();
  void watch_for_reset();
  void look_for_client();
  outbox::request_traits traits(bool close) const;
  void begin_answer();
  void fail(int status, std::string_view sentence);
  void send_continue();
  bool hold_body();

  // Output.
  void flush();
  void send_output();
  bool load_output();
  bool send_some();
  void wait_writable();
  void answer_ended();
  void release_request();
  void release_body();
  void linger();
  void close_now(bool reset = false);

  // Time.
  void set_deadline(clock::time_point);
  void arm_timer();
  void on_timer();
  void on_deadline();
  bool reader_moved();
  clock::time_point reading_deadline();

  std::shared_ptr<session_context> context_;
  const limits& bounds_;
  executor strand_;
  std::shared_ptr<outbox> outbox_;

  socket socket_;
  request_parser parser_;
  mode mode_ = mode::reading;
  std::string waiting_input_; ///< behind the request that is being answered
  std::size_t pipelined_ = 0; ///< requests that came without a pause
  std::size_t held_body_bytes_ = 0;
  bool consuming_ = false;
  bool read_awaited_ = false;
  bool write_awaited_ = false;
  bool end_of_input_ = false;
  std::chrono::milliseconds next_look_{0}; ///< for a client that sends no more
  bool continue_sent_ = false;
  bool in_flight_ = false;  ///< counted in `requests_in_flight`
  bool answer_out_ = false; ///< the answer has ended and is in `sending_`

  timer timer_;
  clock::time_point deadline_ = clock::time_point::max();
  clock::time_point armed_for_ = clock::time_point::max();
  awaiting awaiting_ = awaiting::nothing;
  clock::time_point awaiting_since_;
  bool fresh_ = true; ///< no request has come yet

  std::string sending_;      ///< bytes under way to the socket
  std::string sending_body_; ///< and these behind them
  std::size_t sent_ = 0;     ///< of both
  int untaken_bytes_ = 0;    ///< of what the kernel has, when last looked
};

} // namespace troupe::http
