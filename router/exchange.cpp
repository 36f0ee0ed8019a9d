#include "router/exchange.hpp"

#include "actors/runtime/log.hpp"
#include "router/policy/dynamic_threshold.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace troupe::router {

namespace {

constexpr int client_closed_request = 499; // for the books only

} // namespace

void admission::ticket::release() {
  auto from = std::move(from_);
  if (!from)
    return;
  std::lock_guard lock{from->mutex_};
  for (const auto& group : groups_)
    if (--from->groups_[group] == 0)
      from->groups_.erase(group);
  groups_.clear();
  if (--from->inside_ == 0)
    from->empty_.notify_all();
}

bool admission::ticket::join(const std::string& group) {
  if (!from_)
    return false;
  std::lock_guard lock{from_->mutex_};
  auto free = from_->max_ - std::min(from_->max_, from_->inside_);
  auto known = from_->groups_.find(group);
  auto has = known == from_->groups_.end() ? 0 : known->second;
  if (has_enough(has, free))
    return false;
  ++from_->groups_[group];
  groups_.push_back(group);
  return true;
}

admission::ticket admission::enter(const std::shared_ptr<admission>& place) {
  std::lock_guard lock{place->mutex_};
  if (place->inside_ >= place->max_)
    return {};
  ++place->inside_;
  return ticket{place};
}

void admission::set_max(std::size_t max) {
  std::lock_guard lock{mutex_};
  max_ = max;
}

std::size_t admission::inside() const {
  std::lock_guard lock{mutex_};
  return inside_;
}

bool admission::wait_empty(std::chrono::milliseconds at_most) {
  std::unique_lock lock{mutex_};
  return empty_.wait_for(lock, at_most, [this] { return inside_ == 0; });
}

api::api_error time_limit_passed() {
  return {408, "The answer took longer than its time limit.", "server_error",
          "", "request_timeout"};
}

exchange::exchange(std::shared_ptr<http::reply> reply, context about)
    : reply_(std::move(reply)), context_(std::move(about)),
      arrived_(std::chrono::steady_clock::now()) {
  // nop
}

exchange::~exchange() {
  if (!ended_)
    ended(500);
}

double exchange::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() -
                                       arrived_)
      .count();
}

void exchange::respond(int status, std::string_view content_type,
                       std::string body, http::header_list more) {
  if (ended_)
    return;
  more.emplace_back("content-type", content_type);
  more.emplace_back("x-request-id", context_.request_id);
  add_limits(more);
  settle(status);
  reply_->respond(status, std::move(more), std::move(body));
  log(status);
}

void exchange::fail(const api::api_error& why, http::header_list more) {
  auto retry_after_s = why.retry_after_s;
  if (retry_after_s == 0 && why.status == 503)
    retry_after_s = 1;
  if (retry_after_s != 0)
    more.emplace_back("retry-after", fmt::format("{}", retry_after_s));
  if (why.status == 401)
    more.emplace_back("www-authenticate", "Bearer");
  respond(why.status, "application/json", api::error_body(why),
          std::move(more));
}

void exchange::begin_stream() {
  if (ended_ || streaming_)
    return;
  streaming_ = true;
  http::header_list headers{
      {"content-type", "text/event-stream; charset=utf-8"},
      {"cache-control", "no-cache"},
      {"x-request-id", context_.request_id}};
  add_limits(headers);
  reply_->start_stream(200, std::move(headers));
}

void exchange::add_limits(http::header_list& to) const {
  if (!context_.account)
    return;
  for (auto& header :
       context_.account->headers(std::chrono::steady_clock::now()))
    to.push_back(std::move(header));
}

void exchange::finish() {
  if (ended_)
    return;
  settle(200);
  reply_->finish();
  log(200);
}

void exchange::abort(int status) {
  if (ended_)
    return;
  settle(status);
  reply_->abort();
  log(status);
}

void exchange::abandon() {
  if (!ended_)
    ended(client_closed_request);
}

void exchange::ended(int status) {
  settle(status);
  log(status);
}

// Who has the answer may ask again at once, or for the metrics.
void exchange::settle(int status) {
  ended_ = true;
  context_.counters->count(context_.route, context_.method, status, seconds());
  ticket_.release();
}

void exchange::log(int status) const {
  if (!context_.access_log)
    return;
  auto level =
      is_poll_ && status < 400 ? spdlog::level::debug : spdlog::level::info;
  spdlog::log(level, "{} {} {} {:.1f} ms {}{}", context_.method,
              context_.target, status, seconds() * 1e3, context_.request_id,
              context_.user.empty() ? ""
                                    : fmt::format(" user={:?}", context_.user));
}

} // namespace troupe::router
