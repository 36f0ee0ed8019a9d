#include "router/reply_stream.hpp"

#include "actors/runtime/log.hpp"

#include <boost/asio/post.hpp>

#include <algorithm>
#include <utility>

namespace troupe::router {

api::api_error client_error(const error& why, const std::string& incident) {
  constexpr auto server_error = "server_error";
  if (!incident.empty())
    return {500, why.message, server_error, "", "request_ends_replicas"};
  switch (why.code) {
  case errc::invalid_argument:
  case errc::unsupported:
    return {400, why.message, "invalid_request_error", "", ""};
  case errc::not_found:
    return {404, why.message, "invalid_request_error", "", ""};
  case errc::limit:
  case errc::unavailable:
  case errc::cancelled:
    return {503, why.message, server_error, "", "service_unavailable"};
  case errc::corrupt:
  case errc::io:
  case errc::internal:
    break;
  }
  // The sentence may name files or addresses of the cluster.
  spdlog::error("router: {}", why.message);
  return {500, "The server failed to answer this request.", server_error, "",
          "internal_error"};
}

reply_stream::reply_stream(boost::asio::io_context& io, parts from)
    : strand_(boost::asio::make_strand(io)), timer_(strand_),
      client_(std::move(from.client)), answer_(std::move(from.content)),
      replicas_(std::move(from.replicas)), counters_(std::move(from.counters)),
      time_limit_(from.time_limit) {
  // nop
}

void reply_stream::start(submission what) {
  request_ = what.request = replicas_->next_request();
  replicas_->submit(std::move(what), shared_from_this());
  run([this] {
    if (time_limit_.count() > 0)
      watch_time(time_limit_);
    watch_client();
  });
}

void reply_stream::on_tokens(
    std::uint32_t choice, protocol::choice_tokens news,
    std::shared_ptr<const protocol::replica_route> from) {
  run([this, choice, news = std::move(news), from = std::move(from)]() mutable {
    take(choice, std::move(news), std::move(from));
  });
}

void reply_stream::on_failed(command::fail end) {
  run([this, end = std::move(end)] {
    failed_ = client_error(end.what, end.incident);
    failed_->retry_after_s = end.retry_after_s;
    stream_on();
  });
}

// Everything happens on the strand, as long as the answer has not ended.
void reply_stream::run(std::function<void()> what) {
  boost::asio::post(strand_,
                    [self = shared_from_this(), what = std::move(what)] {
                      if (!self->ended_)
                        what();
                    });
}

void reply_stream::watch_client() {
  client_->on_client_gone([weak = weak_from_this()] {
    if (auto self = weak.lock())
      self->run([self = self.get()] { self->client_gone(); });
  });
}

void reply_stream::watch_time(std::chrono::milliseconds limit) {
  timer_.expires_at(client_->arrived() + limit);
  timer_.async_wait([weak = weak_from_this()](boost::system::error_code ec) {
    auto self = weak.lock();
    if (ec || !self || self->ended_)
      return;
    self->replicas_->cancel_request(self->request_);
    self->fail(time_limit_passed());
  });
}

void reply_stream::take(std::uint32_t choice, protocol::choice_tokens news,
                        held_tokens::route from) {
  if (!first_token_s_)
    first_news(*from);
  held_.add(choice, std::move(news), std::move(from));
  stream_on();
}

// Shows what is held; of a stream, as much as there is room for.
void reply_stream::stream_on() {
  while (!ended_ && !held_.empty()) {
    if (client_->streaming() && !client_->has_room())
      return wait_for_room();
    if (opened())
      show(held_.take());
  }
  if (!ended_ && failed_)
    fail(*failed_);
}

// All choices may have ended: the callback is what keeps this alive.
void reply_stream::wait_for_room() {
  if (std::exchange(room_awaited_, true))
    return;
  client_->on_room([self = shared_from_this()] {
    self->run([self = self.get()] {
      self->room_awaited_ = false;
      self->stream_on();
    });
  });
}

// Sends the next part of the opening; true if there was none.
bool reply_stream::opened() {
  if (opened_ == answer_->openings())
    return true;
  std::string frames;
  answer_->open(opened_++, frames);
  if (!client_->write(std::move(frames)))
    client_gone();
  return false;
}

void reply_stream::show(const held_tokens::entry& next) {
  auto choice = next.choice;
  // A moved stream may have changed its class. Frames bear that of the replica
  // that they come from, a whole answer that of the last one.
  answer_->head().system_fingerprint = next.from->arithmetic_class;
  std::string frames;
  auto unwanted = answer_->take(choice, next.news, frames);
  if (!unwanted) {
    replicas_->cancel_request(request_);
    fail(client_error(unwanted.error()));
    return;
  }
  if (*unwanted)
    replicas_->cancel_choice(request_, choice);
  if (answer_->complete() && answer_->streams())
    frames += answer_->closing_frames();
  if (!frames.empty() && !client_->write(std::move(frames))) {
    client_gone();
    return;
  }
  if (answer_->complete())
    complete();
}

void reply_stream::first_news(const protocol::replica_route& from) {
  answer_->head().system_fingerprint = from.arithmetic_class;
  first_token_s_ = client_->seconds();
  counters_->first_token.observe(*first_token_s_);
  if (answer_->streams())
    client_->begin_stream();
}

void reply_stream::complete() {
  count_answer();
  if (answer_->streams())
    client_->finish();
  else
    client_->respond(200, "application/json", answer_->body());
  end();
}

// Before the first byte an error is a plain answer, after it a frame and a cut.
void reply_stream::fail(const api::api_error& why) {
  ++counters_->finished_error;
  if (client_->streaming()) {
    client_->write(api::error_frame(why));
    client_->abort(why.status);
  } else {
    client_->fail(why);
  }
  end();
}

void reply_stream::client_gone() {
  replicas_->cancel_request(request_);
  ++counters_->finished_abort;
  client_->abandon();
  end();
}

void reply_stream::end() {
  ended_ = true;
  timer_.cancel();
  // What was drawn for nobody counts too.
  if (const auto& account = client_->account())
    account->charge(answer_->usage().completion_tokens,
                    std::chrono::steady_clock::now());
  client_.reset();
}

void reply_stream::count_answer() {
  auto usage = answer_->usage();
  auto whole = client_->seconds();
  counters_->prompt_tokens += usage.prompt_tokens;
  counters_->generation_tokens += usage.completion_tokens;
  counters_->cached_tokens += usage.cached_tokens;
  counters_->whole.observe(whole);
  auto choices = answer_->choices();
  auto per_choice = static_cast<double>(usage.completion_tokens) /
                    static_cast<double>(choices);
  if (per_choice > 1)
    counters_->per_token.observe((whole - *first_token_s_) / (per_choice - 1));
  for (std::uint32_t i = 0; i < choices; ++i)
    ++(answer_->finish_reason(i) == "stop" ? counters_->finished_stop
                                           : counters_->finished_length);
}

} // namespace troupe::router
