#include "router/http/session.hpp"

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <climits>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <utility>

namespace troupe::http {

namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using std::chrono::milliseconds;

constexpr std::size_t read_bytes = 64 * 1024;

/// Input kept behind a request that is being answered; then reading pauses.
constexpr std::size_t waiting_input_bytes_max = 16 * 1024;

/// Buffers that have grown beyond this are given back between answers.
constexpr std::size_t kept_buffer_bytes_max = 4 * 1024;

constexpr std::size_t body_bytes_per_second_min = 1024;

/// How long the input of a closing connection is read and thrown away, so that
/// the answer is not lost to a reset.
constexpr milliseconds linger_time{3000};

/// Between the first two looks for a client that has ended its sending; each
/// pause is twice the one before.
constexpr milliseconds first_look_pause{250};

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

/// What the handler gets: a name for one answer of a session.
class session_reply final : public reply {
public:
  session_reply(std::shared_ptr<outbox> o, std::uint64_t serial)
      : outbox_(std::move(o)), serial_(serial) {
  }

  ~session_reply() override {
    outbox_->dropped(serial_);
  }

  void respond(int status, header_list headers, std::string body) override {
    outbox_->respond(serial_, status, headers, std::move(body));
  }

  void start_stream(int status, header_list headers) override {
    outbox_->start_stream(serial_, status, headers);
  }

  bool write(std::string bytes) override {
    return outbox_->write(serial_, bytes);
  }

  bool has_room() const override {
    return outbox_->has_room();
  }

  void on_room(std::function<void()> callback) override {
    outbox_->on_room(serial_, std::move(callback));
  }

  void finish() override {
    outbox_->finish(serial_);
  }

  void abort() override {
    outbox_->abort(serial_);
  }

  void on_client_gone(std::function<void()> callback) override {
    outbox_->on_client_gone(serial_, std::move(callback));
  }

private:
  std::shared_ptr<outbox> outbox_;
  std::uint64_t serial_;
};

} // namespace

// -- session_registry ---------------------------------------------------------

session_registry::session_registry(std::size_t connections_max,
                                   std::function<void()> on_room)
    : connections_max_(connections_max), on_room_(std::move(on_room)) {
}

bool session_registry::has_room() {
  std::lock_guard guard{mutex_};
  room_awaited_ = count_ >= connections_max_;
  return !room_awaited_;
}

bool session_registry::add(const std::shared_ptr<session>& s) {
  std::lock_guard guard{mutex_};
  ++count_;
  if (!released_)
    owned_.emplace(s.get(), s);
  return !released_;
}

void session_registry::ended(session* s) {
  std::shared_ptr<session> released; // is let go without the lock
  std::lock_guard guard{mutex_};
  if (auto node = owned_.extract(s))
    released = std::move(node.mapped());
  --count_;
  if (std::exchange(room_awaited_, false) && on_room_)
    on_room_();
}

std::size_t session_registry::size() const {
  std::lock_guard guard{mutex_};
  return count_;
}

std::vector<std::shared_ptr<session>> session_registry::all() const {
  std::vector<std::shared_ptr<session>> sessions;
  std::lock_guard guard{mutex_};
  sessions.reserve(owned_.size());
  for (auto& [key, s] : owned_)
    sessions.push_back(s);
  return sessions;
}

std::vector<std::shared_ptr<session>> session_registry::release() {
  std::vector<std::shared_ptr<session>> sessions;
  std::lock_guard guard{mutex_};
  released_ = true;
  on_room_ = nullptr;
  for (auto& [key, s] : owned_)
    sessions.push_back(std::move(s));
  owned_.clear();
  return sessions;
}

// -- session: life ------------------------------------------------------------

std::shared_ptr<session> session::make(std::shared_ptr<session_context> context,
                                       socket s) {
  auto made = std::make_shared<session>(std::move(context), std::move(s));
  made->outbox_ = std::make_shared<outbox>(made->context_, made);
  return made;
}

session::session(std::shared_ptr<session_context> context, socket s)
    : context_(std::move(context)), bounds_(context_->options.bounds),
      strand_(s.get_executor()), socket_(std::move(s)), parser_(bounds_),
      timer_(strand_) {
}

session::~session() {
  if (mode_ == mode::closed)
    return;
  release_request();
  outbox_->connection_closed();
  context_->registry->ended(this);
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
  outbox_->kill();
}

void session::post_flush() {
  asio::post(strand_, [self = shared_from_this()] { self->flush(); });
}

void session::post_close(outbox::listeners heard_by) {
  asio::post(strand_,
             [self = shared_from_this(), heard_by = std::move(heard_by)] {
               self->close_now(true);
               call(heard_by.gone);
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
  auto heard_by = outbox_->connection_closed();
  context_->registry->ended(this);
  call(heard_by.gone);
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

/// Who is owed an answer may only have ended its sending. That looks like a
/// close, until something is sent: then a reset comes back.
void session::on_end_of_input() {
  end_of_input_ = true;
  if (mode_ != mode::answering)
    return close_now();
  watch_for_reset();
  if (!write_awaited_)
    look_for_client();
}

void session::watch_for_reset() {
  socket_.async_wait(socket::wait_error,
                     [self = shared_from_this()](error_code failed) {
                       if (!failed)
                         self->close_now();
                     });
}

/// As often as there are bytes to be said; then only the answer itself tells.
void session::look_for_client() {
  if (!outbox_->say_next_byte())
    return;
  next_look_ = std::max(2 * next_look_, first_look_pause);
  flush();
}

outbox::request_traits session::traits(bool close) const {
  return {parser_.minor_version(), parser_.current().method == "HEAD", close};
}

void session::begin_answer() {
  mode_ = mode::answering;
  awaiting_ = awaiting::nothing;
  fresh_ = false;
  continue_sent_ = false;
  bool last = ++pipelined_ >= bounds_.pipelined_requests;
  auto serial = outbox_->begin(traits(last || !parser_.keep_alive()));
  if (serial == 0)
    return;
  in_flight_ = true;
  ++context_->requests_in_flight;
  auto r = std::make_shared<session_reply>(outbox_, serial);
  try {
    context_->on_request(parser_.take(), std::move(r));
  } catch (...) {
    outbox_->dropped(serial);
  }
  flush();
}

void session::fail(int status, std::string_view sentence) {
  mode_ = mode::answering;
  outbox_->refuse(traits(true), status, sentence);
  flush();
}

void session::send_continue() {
  if (!parser_.expects_continue() || std::exchange(continue_sent_, true))
    return;
  outbox_->invite_body();
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
  send_output();
  call(outbox_->room_found());
}

void session::send_output() {
  while (load_output())
    if (!send_some())
      return;
  if (answer_out_ && mode_ == mode::answering)
    answer_ended();
  else if (mode_ == mode::reading)
    set_deadline(reading_deadline());
  else if (mode_ == mode::answering)
    set_deadline(end_of_input_ ? clock::now() + next_look_
                               : clock::time_point::max());
}

/// True while there is something to send.
bool session::load_output() {
  if (!sending_.empty() || !sending_body_.empty())
    return true;
  answer_out_ = outbox_->take(sending_, sending_body_);
  // Before it is sent: who has the answer may send the next body at once, on
  // another connection too.
  if (answer_out_ && mode_ == mode::answering)
    release_body();
  return !sending_.empty() || !sending_body_.empty();
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
  outbox_->blocked(sending_.size() + sending_body_.size() - sent_);
  reader_moved();
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
  if (sending_.capacity() > kept_buffer_bytes_max)
    sending_ = {};
  auto ending = outbox_->end();
  if (ending.reset)
    return close_now(true);
  if (ending.close)
    return linger();
  mode_ = mode::reading;
  if (!consuming_)
    resume();
}

void session::release_request() {
  if (std::exchange(in_flight_, false))
    --context_->requests_in_flight;
  release_body();
}

void session::release_body() {
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
  if (write_awaited_ && reader_moved())
    set_deadline(clock::now() + bounds_.write_stall);
  else if (write_awaited_)
    close_now(true);
  else if (mode_ == mode::answering)
    look_for_client(); // nothing else has a deadline then
  else if (mode_ == mode::reading && parser_.started())
    fail(408, "The request did not arrive in time.");
  else
    close_now();
}

/// Whether the client has acknowledged anything since the last call. A socket
/// that is full may take a while to have room again for a slow reader.
bool session::reader_moved() {
  int untaken = 0;
  ::ioctl(socket_.native_handle(), SIOCOUTQ, &untaken);
  return untaken < std::exchange(untaken_bytes_, untaken);
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
           (fresh_ ? bounds_.header_time
                   : milliseconds(context_->keep_alive_ms.load()));
  }
}

} // namespace troupe::http
