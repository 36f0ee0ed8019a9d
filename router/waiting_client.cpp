#include "router/waiting_client.hpp"

namespace troupe::router {

waiting_client::waiting_client(boost::asio::io_context& io,
                               std::unique_ptr<exchange> client,
                               std::chrono::milliseconds time_limit)
    : client_(std::move(client)), timer_(io), time_limit_(time_limit) {
  // nop
}

// The callback may run at once: not under the mutex.
void waiting_client::watch() {
  auto weak = weak_from_this();
  client_->on_client_gone([weak] {
    if (auto self = weak.lock())
      if (auto client = self->take())
        client->abandon();
  });
  std::lock_guard lock{mutex_};
  set_timer();
}

void waiting_client::set_timer() {
  if (!client_ || time_limit_.count() == 0)
    return;
  timer_.expires_at(client_->arrived() + time_limit_);
  timer_.async_wait(
      [weak = weak_from_this()](boost::system::error_code stopped) {
        auto self = weak.lock();
        if (!stopped && self)
          self->fail(time_limit_passed());
      });
}

void waiting_client::shorten(std::chrono::milliseconds time_limit) {
  std::lock_guard lock{mutex_};
  if (time_limit_.count() != 0 && time_limit_ <= time_limit)
    return;
  time_limit_ = time_limit;
  set_timer();
}

bool waiting_client::join(const std::string& group) {
  std::lock_guard lock{mutex_};
  return client_ && client_->join(group);
}

bool waiting_client::waits() const {
  std::lock_guard lock{mutex_};
  return client_ != nullptr;
}

void waiting_client::fail(const api::api_error& why) {
  if (auto client = take())
    client->fail(why);
}

void waiting_client::set_user(std::string user) {
  std::lock_guard lock{mutex_};
  if (client_)
    client_->set_user(std::move(user));
}

std::unique_ptr<exchange> waiting_client::take() {
  std::lock_guard lock{mutex_};
  timer_.cancel();
  return std::move(client_);
}

} // namespace troupe::router
