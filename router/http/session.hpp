#pragma once

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

/// The open connections of a listener, and whether there is room for more. Any
/// thread.
class session_registry {
public:
  /// `on_room` runs when a connection ends after `has_room` said no.
  session_registry(std::size_t connections_max, std::function<void()> on_room);

  /// False at the limit; `on_room` will run when that changes.
  bool has_room();

  void add(const std::shared_ptr<session>&);
  void remove(session*);
  std::size_t size() const;
  std::vector<std::shared_ptr<session>> all() const;

  /// No more calls of `on_room`.
  void forget_listener();

private:
  mutable std::mutex mutex_;
  std::unordered_map<session*, std::weak_ptr<session>> open_;
  std::size_t connections_max_;
  std::function<void()> on_room_;
  bool room_awaited_ = false;
};

/// What the connections of one listener share; lives as long as the last.
struct session_context {
  server_options options;
  handler on_request;
  std::unique_ptr<session_registry> registry;
  std::atomic<bool> draining{false};
  std::atomic<std::size_t> requests_in_flight{0};
  std::atomic<std::size_t> body_bytes{0}; ///< of requests not yet answered
};

/// One connection. It answers one request at a time, in order of arrival.
///
/// Two halves. The connection (socket, parser, timer) belongs to the strand:
/// only its threads touch it. The answer in work is open to any thread under
/// `mutex_`; the strand carries its bytes to the socket. No callback of the
/// user's runs, or is destroyed, under the mutex.
class session : public std::enable_shared_from_this<session> {
public:
  using executor = boost::asio::strand<boost::asio::io_context::executor_type>;
  using socket =
      boost::asio::basic_stream_socket<boost::asio::ip::tcp, executor>;

  session(std::shared_ptr<session_context>, socket);
  ~session();

  /// Any thread, once.
  void start();

  /// Closes if idle; else behind the answer in work. Any thread.
  void drain();

  /// Any thread. Replies are dead when it returns; the socket is closed soon.
  void close();

  // The reply's calls: any thread. `serial` names the request; those of an
  // answer that has ended are ignored.
  void respond(std::uint64_t serial, int status, const header_list& headers,
               std::string body);
  void start_stream(std::uint64_t serial, int status,
                    const header_list& headers);
  bool write(std::uint64_t serial, std::string_view bytes);
  void finish(std::uint64_t serial);
  void abort(std::uint64_t serial);
  void on_client_gone(std::uint64_t serial, std::function<void()>);

  /// The last reference is gone: 500 if nothing was answered, abort in mid
  /// stream.
  void dropped(std::uint64_t serial);

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

  enum class phase { none, awaited, streaming, ended };

  /// What the connection waits for while it reads, each with its own time.
  enum class awaiting { nothing, request, head, body };

  /// The answer to the request in work. Guarded by `mutex_`.
  struct answer_state {
    std::uint64_t serial = 0;
    phase at = phase::none;
    int minor_version = 1;
    bool body_wanted = true; ///< false for HEAD, 204, 304
    bool close = false;      ///< no further request behind it
    bool truncated = false;  ///< ends without having been finished
    std::function<void()> on_gone;
  };

  // Input, on the strand.
  void wait_readable();
  void on_readable();
  void received(std::string_view bytes);
  void consume(std::string_view& input);
  void react(bool more_input);
  void resume();
  void on_end_of_input();
  void begin_answer();
  void fail(int status, std::string_view sentence);
  void send_continue();
  bool hold_body();

  // Output, on the strand.
  void flush();
  bool load_output();
  bool send_some();
  void wait_writable();
  void answer_ended();
  void release_request();
  void linger();
  void client_left();
  void close_now(bool reset = false);

  // Time, on the strand.
  void set_deadline(clock::time_point);
  void arm_timer();
  void on_timer();
  void on_deadline();
  clock::time_point reading_deadline();

  // The answer, under the mutex.
  using lock = std::unique_lock<std::mutex>;
  bool is_at(std::uint64_t serial, phase) const;
  std::uint64_t new_answer(bool close);
  bool closes_behind_answer();
  void encode_whole(int status, const header_list& headers, std::string body);
  std::function<void()> end_answer();
  void post_flush(lock&);
  void kill(lock&);

  std::shared_ptr<session_context> context_;
  const limits& bounds_;
  executor strand_;

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

  mutable std::mutex mutex_;
  answer_state answer_;
  std::string output_;      ///< bytes for the strand to send
  std::string output_body_; ///< a long body behind them, not copied
  std::size_t sending_bytes_ = 0;
  bool flush_due_ = false; ///< the strand will look at `output_`
  bool gone_ = false;
  bool dead_ = false; ///< closed, as the reply sees it
};

} // namespace troupe::http
