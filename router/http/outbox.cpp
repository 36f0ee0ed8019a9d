#include "router/http/outbox.hpp"

#include "router/http/response.hpp"
#include "router/http/session.hpp"

#include <tuple>
#include <utility>

namespace troupe::http {

namespace {

/// A longer body is sent from where it is instead of being copied.
constexpr std::size_t copied_body_bytes_max = 4 * 1024;

/// A buffer that has grown beyond this is given back between answers.
constexpr std::size_t kept_buffer_bytes_max = 4 * 1024;

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

outbox::outbox(std::shared_ptr<session_context> context,
               std::weak_ptr<session> s)
    : context_(std::move(context)), session_(std::move(s)) {
}

// -- the connection's calls ---------------------------------------------------

std::uint64_t outbox::begin(const request_traits& traits) {
  std::lock_guard guard{mutex_};
  if (!context_)
    return 0;
  new_answer(traits);
  flush_due_ = true;
  return answer_.serial;
}

void outbox::refuse(const request_traits& traits, int status,
                    std::string_view sentence) {
  std::shared_ptr<session_context> context;
  {
    std::lock_guard guard{mutex_};
    context = context_;
  }
  if (!context)
    return;
  auto [headers, body] = make_error(context->options, status, sentence);
  std::lock_guard guard{mutex_};
  if (!context_)
    return;
  new_answer(traits);
  encode_whole(status, headers, std::move(body));
}

void outbox::invite_body() {
  std::lock_guard guard{mutex_};
  bytes_.append("HTTP/1.1 100 Continue\r\n\r\n");
}

bool outbox::say_next_byte() {
  std::lock_guard guard{mutex_};
  if (!context_ || answer_.at != phase::awaited ||
      answer_.said == head_start.size())
    return false;
  bytes_.push_back(head_start[answer_.said++]);
  return true;
}

bool outbox::take(std::string& bytes, std::string& body) {
  std::lock_guard guard{mutex_};
  flush_due_ = false;
  bytes.swap(bytes_);
  body.swap(body_);
  sending_bytes_ = bytes.size() + body.size();
  return answer_.at == phase::ended;
}

void outbox::blocked(std::size_t unsent_bytes) {
  std::lock_guard guard{mutex_};
  flush_due_ = true;
  sending_bytes_ = unsent_bytes;
}

outbox::ending outbox::end() {
  std::lock_guard guard{mutex_};
  if (bytes_.capacity() > kept_buffer_bytes_max)
    bytes_ = {};
  return {closes_behind_answer(),
          answer_.truncated && answer_.minor_version == 0};
}

std::function<void()> outbox::room_found() {
  std::lock_guard guard{mutex_};
  if (!room_left())
    return {};
  return std::exchange(answer_.heard_by.room, nullptr);
}

outbox::listeners outbox::connection_closed() {
  std::shared_ptr<session_context> released; // is let go without the lock
  std::lock_guard guard{mutex_};
  released = context_;
  return die();
}

void outbox::kill() {
  std::shared_ptr<session_context> released;
  listeners heard_by;
  std::lock_guard guard{mutex_};
  if (!context_)
    return;
  released = context_;
  heard_by = die();
  if (auto s = session_.lock())
    s->post_close(std::move(heard_by));
}

// -- the reply's calls --------------------------------------------------------

void outbox::respond(std::uint64_t serial, int status,
                     const header_list& headers, std::string body) {
  listeners unused; // are destroyed without the lock
  std::lock_guard guard{mutex_};
  if (!is_at(serial, phase::awaited))
    return;
  unused = end_answer();
  encode_whole(status, headers, std::move(body));
  want_flush();
}

void outbox::start_stream(std::uint64_t serial, int status,
                          const header_list& headers) {
  std::lock_guard guard{mutex_};
  if (!is_at(serial, phase::awaited))
    return;
  bool has_body = status_has_body(status);
  answer_.at = phase::streaming;
  answer_.body_wanted = answer_.body_wanted && has_body;
  answer_.close = answer_.close || answer_.minor_version == 0;
  response_frame frame;
  frame.minor_version = answer_.minor_version;
  frame.close = closes_behind_answer();
  frame.chunked = answer_.minor_version == 1 && has_body;
  encode_head(status, headers, frame);
  want_flush();
}

bool outbox::write(std::uint64_t serial, std::string_view bytes) {
  std::lock_guard guard{mutex_};
  if (!is_at(serial, phase::streaming))
    return false;
  if (!answer_.body_wanted)
    return true;
  if (answer_.minor_version == 0)
    bytes_.append(bytes);
  else
    append_chunk(bytes_, bytes);
  want_flush();
  return true;
}

bool outbox::has_room() {
  std::lock_guard guard{mutex_};
  return room_left();
}

void outbox::on_room(std::uint64_t serial, std::function<void()> callback) {
  {
    std::lock_guard guard{mutex_};
    if (answer_.serial != serial || answer_.at == phase::ended)
      return;
    if (!room_left()) {
      callback.swap(answer_.heard_by.room);
      return; // an earlier callback is destroyed, behind the lock
    }
  }
  if (callback)
    callback();
}

void outbox::finish(std::uint64_t serial) {
  listeners unused;
  std::lock_guard guard{mutex_};
  if (!is_at(serial, phase::streaming))
    return;
  unused = end_answer();
  if (answer_.body_wanted && answer_.minor_version == 1)
    bytes_.append(last_chunk);
  want_flush();
}

void outbox::abort(std::uint64_t serial) {
  listeners unused;
  std::lock_guard guard{mutex_};
  if (!is_at(serial, phase::streaming) && !is_at(serial, phase::awaited))
    return;
  answer_.truncated = answer_.at == phase::streaming;
  answer_.close = true;
  unused = end_answer();
  want_flush();
}

void outbox::on_client_gone(std::uint64_t serial,
                            std::function<void()> callback) {
  {
    std::lock_guard guard{mutex_};
    if (answer_.serial != serial || answer_.at == phase::ended)
      return;
    if (context_) {
      callback.swap(answer_.heard_by.gone);
      return; // an earlier callback is destroyed, behind the lock
    }
  }
  if (callback)
    callback();
}

void outbox::dropped(std::uint64_t serial) {
  std::shared_ptr<session_context> context;
  {
    std::lock_guard guard{mutex_};
    if (is_at(serial, phase::awaited))
      context = context_;
  }
  if (!context)
    return abort(serial);
  auto [headers, body] =
      make_error(context->options, 500, "The server failed to answer.");
  respond(serial, 500, headers, std::move(body));
}

// -- under the mutex ----------------------------------------------------------

bool outbox::is_at(std::uint64_t serial, phase at) const {
  return context_ && answer_.serial == serial && answer_.at == at;
}

void outbox::new_answer(const request_traits& traits) {
  auto serial = answer_.serial + 1;
  answer_ = answer_state{};
  answer_.serial = serial;
  answer_.at = phase::awaited;
  answer_.minor_version = traits.minor_version;
  answer_.body_wanted = !traits.head_only;
  answer_.close = traits.close;
}

bool outbox::closes_behind_answer() {
  answer_.close = answer_.close || !context_ || context_->draining;
  return answer_.close;
}

/// Without what has been said of it.
void outbox::encode_head(int status, const header_list& headers,
                         const response_frame& frame) {
  auto begin = bytes_.size();
  append_head(bytes_, status, headers, frame);
  bytes_.erase(begin, answer_.said);
}

void outbox::encode_whole(int status, const header_list& headers,
                          std::string body) {
  answer_.at = phase::ended;
  response_frame frame;
  frame.minor_version = answer_.minor_version;
  frame.close = closes_behind_answer();
  if (status_has_body(status))
    frame.content_length = body.size();
  encode_head(status, headers, frame);
  if (!answer_.body_wanted || !status_has_body(status))
    return;
  if (body.size() <= copied_body_bytes_max)
    bytes_.append(body);
  else
    body_ = std::move(body);
}

bool outbox::room_left() const {
  return !context_ || bytes_.size() + sending_bytes_ <
                          context_->options.bounds.stream_buffer_bytes;
}

outbox::listeners outbox::end_answer() {
  answer_.at = phase::ended;
  return std::exchange(answer_.heard_by, {});
}

/// Posting is done under the mutex, so that nothing is posted to an io_context
/// that may be gone once the outbox is dead.
void outbox::want_flush() {
  if (std::exchange(flush_due_, true))
    return;
  if (auto s = session_.lock())
    s->post_flush();
}

outbox::listeners outbox::die() {
  context_.reset();
  bytes_ = {};
  body_ = {};
  return std::exchange(answer_.heard_by, {});
}

} // namespace troupe::http
