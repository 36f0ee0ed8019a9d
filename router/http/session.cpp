#include "router/http/session.hpp"

#include "router/http/response.hpp"

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <climits>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <tuple>
#include <utility>

namespace troupe::http {

namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using std::chrono::milliseconds;

constexpr std::size_t read_bytes = 64 * 1024;

/// Input kept behind a request that is being answered; then reading pauses.
constexpr std::size_t waiting_input_bytes_max = 16 * 1024;

/// A longer body is sent from where it is instead of being copied.
constexpr std::size_t copied_body_bytes_max = 4 * 1024;

/// Buffers that have grown beyond this are given back between answers.
constexpr std::size_t kept_buffer_bytes_max = 4 * 1024;

constexpr std::size_t body_bytes_per_second_min = 1024;

/// How long the input of a closing connection is read and thrown away, so that
/// the answer is not lost to a reset.
constexpr milliseconds linger_time{3000};

/// Options that only make a connection better: a refusal is no failure.
void tune(session::socket& s, const limits& bounds) {
  error_code ignored;
  s.non_blocking(true, ignored);
  s.set_option(asio::ip::tcp::no_delay(true), ignored);
  auto set = [&](int option, long long value) {
    auto number = static_cast<int>(std::min<long long>(value, INT_MAX));
    ::setsockopt(s.native_handle(), IPPROTO_TCP, option, &number,
                 sizeof number);
  };
  set(TCP_USER_TIMEOUT, bounds.write_stall.count());
  set(TCP_NOTSENT_LOWAT, static_cast<long long>(bounds.stream_buffer_bytes));
}

void call(const std::function<void()>& callback) {
  try {
    if (callback)
      callback();
  } catch (...) {
    // The user's failure is not the connection's.
  }
}

void clear_buffer(std::string& buffer) {
  buffer.clear();
  if (buffer.capacity() > kept_buffer_bytes_max)
    buffer.shrink_to_fit();
}

/// What the handler gets: a name for one answer of a session.
class session_reply final : public reply {
public:
  session_reply(std::shared_ptr<session> s, std::uint64_t serial)
      : session_(std::move(s)), serial_(serial) {
  }

  ~session_reply() override {
    session_->dropped(serial_);
  }

  void respond(int status, header_list headers, std::string body) override {
    session_->respond(serial_, status, headers, std::move(body));
  }

  void start_stream(int status, header_list headers) override {
    session_->start_stream(serial_, status, headers);
  }

  bool write(std::string bytes) override {
    return session_->write(serial_, bytes);
  }

  void finish() override {
    session_->finish(serial_);
  }

  void abort() override {
    session_->abort(serial_);
  }

  void on_client_gone(std::function<void()> callback) override {
    session_->on_client_gone(serial_, std::move(callback));
  }

private:
  std::shared_ptr<session> session_;
  std::uint64_t serial_;
};

struct error_answer {
  header_list headers;
  std::string body;
};

error_answer make_error(const server_options& options, int status,
                        std::string_view sentence) {
  error_answer answer;
  std::string type = "text/plain; charset=utf-8";
  if (options.error_body)
    std::tie(type, answer.body) = options.error_body(status, sentence);
  else
    answer.body.append(sentence).append("\n");
  answer.headers.emplace_back("Content-Type", std::move(type));
  if (status == 503)
    answer.headers.emplace_back("Retry-After", "1");
  return answer;
}

} // namespace

// -- session_registry ---------------------------------------------------------

session_registry::session_registry(std::size_t connections_max,
                                   std::function<void()> on_room)
    : connections_max_(connections_max), on_room_(std::move(on_room)) {
}

bool session_registry::has_room() {
  std::lock_guard guard{mutex_};
  room_awaited_ = open_.size() >= connections_max_;
  return !room_awaited_;
}

void session_registry::add(const std::shared_ptr<session>& s) {
  std::lock_guard guard{mutex_};
  open_.emplace(s.get(), s);
}

void session_registry::remove(session* s) {
  std::function<void()> on_room;
  {
    std::lock_guard guard{mutex_};
    if (open_.erase(s) == 1 && std::exchange(room_awaited_, false))
      on_room = on_room_;
  }
  if (on_room)
    on_room();
}

std::size_t session_registry::size() const {
  std::lock_guard guard{mutex_};
  return open_.size();
}

std::vector<std::shared_ptr<session>> session_registry::all() const {
  std::vector<std::shared_ptr<session>> sessions;
  std::lock_guard guard{mutex_};
  sessions.reserve(open_.size());
  for (auto& [key, weak] : open_)
    if (auto s = weak.lock())
      sessions.push_back(std::move(s));
  return sessions;
}

void session_registry::forget_listener() {
  std::lock_guard guard{mutex_};
  on_room_ = nullptr;
}

// -- session: life ------------------------------------------------------------

session::session(std::shared_ptr<session_context> context, socket s)
    : context_(std::move(context)), bounds_(context_->options.bounds),
      strand_(s.get_executor()), socket_(std::move(s)), parser_(bounds_),
      timer_(strand_) {
}

session::~session() {
  release_request();
  context_->registry->remove(this);
}

void session::start() {
  asio::post(strand_, [self = shared_from_this()] {
    if (self->mode_ == mode::closed)
      return;
    tune(self->socket_, self->bounds_);
    self->set_deadline(self->reading_deadline());
    self->wait_readable();
  });
}

void session::drain() {
  asio::post(strand_, [self = shared_from_this()] {
    if (self->mode_ == mode::reading && !self->parser_.started())
      self->close_now();
  });
}

void session::close() {
  lock l{mutex_};
  kill(l);
}

void session::kill(lock& l) {
  if (std::exchange(dead_, true))
    return;
  auto left = std::exchange(answer_.on_gone, nullptr);
  l.unlock();
  asio::post(strand_, [self = shared_from_this(), left = std::move(left)] {
    self->close_now(true);
    call(left);
  });
}

void session::close_now(bool reset) {
  if (mode_ == mode::closed)
    return;
  mode_ = mode::closed;
  error_code ignored;
  timer_.cancel();
  if (reset)
    socket_.set_option(asio::socket_base::linger(true, 0), ignored);
  socket_.close(ignored);
  release_request();
  parser_ = request_parser(bounds_);
  waiting_input_ = {};
  std::function<void()> left;
  {
    lock l{mutex_};
    dead_ = true;
    left = std::exchange(answer_.on_gone, nullptr);
    output_ = {};
    output_body_ = {};
  }
  context_->registry->remove(this);
  call(left);
}

// -- session: input -----------------------------------------------------------

void session::wait_readable() {
  if (mode_ == mode::closed || read_awaited_ || end_of_input_)
    return;
  if (mode_ == mode::answering &&
      waiting_input_.size() >= waiting_input_bytes_max)
    return;
  read_awaited_ = true;
  socket_.async_wait(socket::wait_read,
                     [self = shared_from_this()](error_code failed) {
                       self->read_awaited_ = false;
                       if (!failed)
                         self->on_readable();
                     });
}

void session::on_readable() {
  if (mode_ == mode::closed)
    return;
  std::array<char, read_bytes> bytes;
  auto room = bytes.size();
  if (mode_ == mode::answering)
    room = waiting_input_bytes_max -
           std::min(waiting_input_bytes_max, waiting_input_.size());
  if (room == 0)
    return;
  error_code failed;
  auto n = socket_.read_some(asio::buffer(bytes.data(), room), failed);
  if (failed == asio::error::eof)
    return on_end_of_input();
  if (failed && failed != asio::error::would_block)
    return close_now();
  if (!failed)
    received({bytes.data(), n});
  wait_readable();
}

void session::received(std::string_view bytes) {
  if (mode_ == mode::answering) {
    waiting_input_.append(bytes);
  } else if (mode_ == mode::reading) {
    if (!parser_.started())
      pipelined_ = 0;
    consume(bytes);
    if (mode_ == mode::answering)
      waiting_input_.assign(bytes);
  }
}

/// Takes from the front of `input` until a request waits for its answer.
void session::consume(std::string_view& input) {
  consuming_ = true;
  while (mode_ == mode::reading && !input.empty()) {
    input.remove_prefix(parser_.feed(input));
    react(!input.empty());
  }
  consuming_ = false;
  if (mode_ == mode::reading)
    set_deadline(reading_deadline());
}

void session::react(bool more_input) {
  if (!hold_body())
    return fail(503, "Too many request bodies are held; try again later.");
  switch (parser_.where()) {
  case request_parser::stage::done:
    return begin_answer();
  case request_parser::stage::failed:
    return fail(parser_.why().status, parser_.why().sentence);
  case request_parser::stage::body:
    if (!more_input && parser_.body_bytes() == 0)
      send_continue();
    return;
  default:
    return;
  }
}

/// Goes on with the input that waited for the answer to end.
void session::resume() {
  auto waited = std::exchange(waiting_input_, {});
  std::string_view input = waited;
  consume(input);
  if (mode_ == mode::answering)
    waiting_input_.assign(input);
  if (mode_ == mode::reading && end_of_input_)
    return close_now();
  wait_readable();
}

void session::on_end_of_input() {
  end_of_input_ = true;
  if (mode_ == mode::answering)
    client_left();
  else
    close_now();
}

void session::begin_answer() {
  mode_ = mode::answering;
  awaiting_ = awaiting::nothing;
  fresh_ = false;
  continue_sent_ = false;
  ++pipelined_;
  std::uint64_t serial = 0;
  {
    lock l{mutex_};
    if (dead_)
      return;
    serial = new_answer(!parser_.keep_alive() ||
                        pipelined_ >= bounds_.pipelined_requests);
    flush_due_ = true; // below, when the handler has returned
  }
  in_flight_ = true;
  ++context_->requests_in_flight;
  auto r = std::make_shared<session_reply>(shared_from_this(), serial);
  try {
    context_->on_request(parser_.take(), std::move(r));
  } catch (...) {
    dropped(serial);
  }
  flush();
}

void session::fail(int status, std::string_view sentence) {
  mode_ = mode::answering;
  auto [headers, body] = make_error(context_->options, status, sentence);
  {
    lock l{mutex_};
    if (dead_)
      return;
    new_answer(true);
    encode_whole(status, headers, std::move(body));
  }
  flush();
}

void session::send_continue() {
  if (!parser_.expects_continue() || std::exchange(continue_sent_, true))
    return;
  {
    lock l{mutex_};
    output_.append("HTTP/1.1 100 Continue\r\n\r\n");
  }
  flush();
}

/// Counts the body's new bytes; false when all bodies together are too many.
bool session::hold_body() {
  auto added = parser_.body_bytes() - held_body_bytes_;
  if (added == 0)
    return true;
  held_body_bytes_ += added;
  return context_->body_bytes.fetch_add(added) + added <=
         bounds_.body_bytes_total;
}

// -- session: output ----------------------------------------------------------

void session::flush() {
  if (mode_ == mode::closed || write_awaited_)
    return;
  while (load_output())
    if (!send_some())
      return;
  if (answer_out_ && mode_ == mode::answering)
    answer_ended();
  else if (mode_ == mode::reading)
    set_deadline(reading_deadline());
  else if (mode_ == mode::answering)
    set_deadline(clock::time_point::max());
}

/// True while there is something to send.
bool session::load_output() {
  if (!sending_.empty() || !sending_body_.empty())
    return true;
  lock l{mutex_};
  flush_due_ = false;
  sending_.swap(output_);
  sending_body_.swap(output_body_);
  sending_bytes_ = sending_.size() + sending_body_.size();
  answer_out_ = answer_.at == phase::ended;
  return sending_bytes_ != 0;
}

/// False when the socket takes no more for now, or is closed.
bool session::send_some() {
  auto from_head = std::min(sent_, sending_.size());
  std::array<asio::const_buffer, 2> buffers{asio::buffer(sending_) + from_head,
                                            asio::buffer(sending_body_) +
                                                (sent_ - from_head)};
  error_code failed;
  sent_ += socket_.write_some(buffers, failed);
  if (failed == asio::error::would_block) {
    wait_writable();
    return false;
  }
  if (failed) {
    close_now();
    return false;
  }
  if (sent_ == sending_.size() + sending_body_.size()) {
    sending_.clear();
    sending_body_ = {};
    sent_ = 0;
  }
  return true;
}

void session::wait_writable() {
  write_awaited_ = true;
  {
    lock l{mutex_};
    flush_due_ = true;
    sending_bytes_ = sending_.size() + sending_body_.size() - sent_;
  }
  set_deadline(clock::now() + bounds_.write_stall);
  socket_.async_wait(socket::wait_write,
                     [self = shared_from_this()](error_code failed) {
                       self->write_awaited_ = false;
                       if (!failed)
                         self->flush();
                     });
}

void session::answer_ended() {
  answer_out_ = false;
  release_request();
  bool last = false;
  bool reset = false;
  {
    lock l{mutex_};
    last = answer_.close || context_->draining;
    // Without chunks only a reset says that the end is missing.
    reset = answer_.truncated && answer_.minor_version == 0;
    clear_buffer(output_);
  }
  clear_buffer(sending_);
  if (reset)
    return close_now(true);
  if (last)
    return linger();
  mode_ = mode::reading;
  if (!consuming_)
    resume();
}

void session::release_request() {
  if (std::exchange(in_flight_, false))
    --context_->requests_in_flight;
  if (held_body_bytes_ != 0)
    context_->body_bytes -= std::exchange(held_body_bytes_, 0);
}

void session::linger() {
  if (end_of_input_)
    return close_now();
  mode_ = mode::lingering;
  waiting_input_ = {};
  error_code failed;
  socket_.shutdown(socket::shutdown_send, failed);
  if (failed)
    return close_now();
  set_deadline(clock::now() + linger_time);
  wait_readable();
}

/// The client will send no more while it is owed an answer: that counts as
/// having left. A whole answer is still sent if the handler gives one.
void session::client_left() {
  std::function<void()> left;
  bool streaming = false;
  {
    lock l{mutex_};
    gone_ = true;
    left = std::exchange(answer_.on_gone, nullptr);
    streaming = answer_.at == phase::streaming;
  }
  if (streaming)
    close_now();
  call(left);
}

// -- session: time ------------------------------------------------------------

/// The timer is set anew only for an earlier deadline: a later one is found
/// when it fires, so that a busy connection hardly touches it.
void session::set_deadline(clock::time_point t) {
  deadline_ = t;
  if (deadline_ < armed_for_)
    arm_timer();
}

void session::arm_timer() {
  armed_for_ = deadline_;
  if (deadline_ == clock::time_point::max())
    return;
  timer_.expires_at(deadline_);
  timer_.async_wait([self = shared_from_this()](error_code failed) {
    if (!failed && self->mode_ != mode::closed)
      self->on_timer();
  });
}

void session::on_timer() {
  armed_for_ = clock::time_point::max();
  if (clock::now() < deadline_)
    arm_timer();
  else
    on_deadline();
}

void session::on_deadline() {
  if (write_awaited_)
    close_now(true);
  else if (mode_ == mode::reading && parser_.started())
    fail(408, "The request did not arrive in time.");
  else
    close_now();
}

session::clock::time_point session::reading_deadline() {
  auto now_awaiting = awaiting::request;
  if (parser_.where() == request_parser::stage::body)
    now_awaiting = awaiting::body;
  else if (parser_.started())
    now_awaiting = awaiting::head;
  if (now_awaiting != awaiting_) {
    awaiting_ = now_awaiting;
    awaiting_since_ = clock::now();
  }
  switch (awaiting_) {
  case awaiting::body:
    return awaiting_since_ + bounds_.body_grace +
           milliseconds(parser_.body_bytes() * 1000 /
                        body_bytes_per_second_min);
  case awaiting::head:
    return awaiting_since_ + bounds_.header_time;
  default:
    return awaiting_since_ +
           (fresh_ ? bounds_.header_time : bounds_.keep_alive);
  }
}

// -- session: the answer, any thread ------------------------------------------

bool session::is_at(std::uint64_t serial, phase at) const {
  return !dead_ && answer_.serial == serial && answer_.at == at;
}

/// Strand only, since it asks the parser.
std::uint64_t session::new_answer(bool close) {
  auto serial = answer_.serial + 1;
  answer_ = answer_state{};
  answer_.serial = serial;
  answer_.at = phase::awaited;
  answer_.minor_version = parser_.minor_version();
  answer_.body_wanted = parser_.current().method != "HEAD";
  answer_.close = close;
  return serial;
}

bool session::closes_behind_answer() {
  answer_.close = answer_.close || context_->draining;
  return answer_.close;
}

std::function<void()> session::end_answer() {
  answer_.at = phase::ended;
  return std::exchange(answer_.on_gone, nullptr);
}

void session::encode_whole(int status, const header_list& headers,
                           std::string body) {
  answer_.at = phase::ended;
  response_frame frame;
  frame.minor_version = answer_.minor_version;
  frame.close = closes_behind_answer();
  if (status_has_body(status))
    frame.content_length = body.size();
  append_head(output_, status, headers, frame);
  if (!answer_.body_wanted || !status_has_body(status))
    return;
  if (body.size() <= copied_body_bytes_max)
    output_.append(body);
  else
    output_body_ = std::move(body);
}

void session::post_flush(lock& l) {
  if (dead_ || std::exchange(flush_due_, true))
    return;
  l.unlock();
  asio::post(strand_, [self = shared_from_this()] { self->flush(); });
}

void session::respond(std::uint64_t serial, int status,
                      const header_list& headers, std::string body) {
  std::function<void()> unused; // is destroyed after the lock is let go
  lock l{mutex_};
  if (!is_at(serial, phase::awaited))
    return;
  unused = end_answer();
  encode_whole(status, headers, std::move(body));
  post_flush(l);
}

void session::start_stream(std::uint64_t serial, int status,
                           const header_list& headers) {
  lock l{mutex_};
  if (!is_at(serial, phase::awaited))
    return;
  answer_.at = phase::streaming;
  answer_.body_wanted = answer_.body_wanted && status_has_body(status);
  answer_.close = answer_.close || answer_.minor_version == 0;
  response_frame frame;
  frame.minor_version = answer_.minor_version;
  frame.close = closes_behind_answer();
  frame.chunked = answer_.minor_version == 1 && status_has_body(status);
  append_head(output_, status, headers, frame);
  post_flush(l);
}

bool session::write(std::uint64_t serial, std::string_view bytes) {
  lock l{mutex_};
  if (!is_at(serial, phase::streaming) || gone_)
    return false;
  if (output_.size() + sending_bytes_ > bounds_.stream_buffer_bytes) {
    kill(l);
    return false;
  }
  if (!answer_.body_wanted)
    return true;
  if (answer_.minor_version == 0)
    output_.append(bytes);
  else
    append_chunk(output_, bytes);
  post_flush(l);
  return true;
}

void session::finish(std::uint64_t serial) {
  std::function<void()> unused;
  lock l{mutex_};
  if (!is_at(serial, phase::streaming))
    return;
  unused = end_answer();
  if (answer_.body_wanted && answer_.minor_version == 1)
    output_.append(last_chunk);
  post_flush(l);
}

void session::abort(std::uint64_t serial) {
  std::function<void()> unused;
  lock l{mutex_};
  if (!is_at(serial, phase::streaming) && !is_at(serial, phase::awaited))
    return;
  answer_.truncated = answer_.at == phase::streaming;
  answer_.close = true;
  unused = end_answer();
  post_flush(l);
}

void session::on_client_gone(std::uint64_t serial,
                             std::function<void()> callback) {
  std::function<void()> replaced;
  lock l{mutex_};
  if (answer_.serial != serial || answer_.at == phase::ended)
    return;
  if (!gone_ && !dead_) {
    replaced = std::exchange(answer_.on_gone, std::move(callback));
    return;
  }
  l.unlock();
  asio::post(strand_, [callback = std::move(callback)] { call(callback); });
}

void session::dropped(std::uint64_t serial) {
  bool answerable = false;
  {
    lock l{mutex_};
    answerable = is_at(serial, phase::awaited) && !gone_;
  }
  if (!answerable)
    return abort(serial);
  auto [headers, body] =
      make_error(context_->options, 500, "The server failed to answer.");
  respond(serial, 500, headers, std::move(body));
}

} // namespace troupe::http
