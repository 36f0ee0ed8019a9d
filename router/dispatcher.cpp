#include "router/dispatcher.hpp"

namespace troupe::router {

void dispatcher::submit(submission what, std::shared_ptr<reply_sink> sink) {
  auto refused = sink;
  if (!put(submitted{std::move(what), std::move(sink)}))
    refused->on_failed({0, why_}); // written once, before `closed_`
}

void dispatcher::cancel_request(std::uint64_t request) {
  put(request_cancelled{request});
}

void dispatcher::cancel_choice(std::uint64_t request, std::uint32_t choice) {
  put(choice_cancelled{request, choice});
}

bool dispatcher::closed() const {
  std::lock_guard lock{mutex_};
  return closed_;
}

void dispatcher::close(error why) {
  std::function<void()> ring;
  {
    std::lock_guard lock{mutex_};
    if (closed_)
      return;
    closed_ = true;
    why_ = std::move(why);
    rung_ = true;
    ring = ring_;
  }
  if (ring)
    ring();
}

void dispatcher::on_ring(std::function<void()> ring) {
  std::function<void()> now;
  {
    std::lock_guard lock{mutex_};
    ring_ = std::move(ring);
    if (rung_)
      now = ring_;
  }
  if (now)
    now();
}

dispatcher::delivery dispatcher::take() {
  std::lock_guard lock{mutex_};
  rung_ = false;
  delivery out;
  out.events.swap(inbox_);
  out.closed = closed_;
  out.why = why_;
  return out;
}

bool dispatcher::put(event what) {
  std::function<void()> ring;
  {
    std::lock_guard lock{mutex_};
    if (closed_)
      return false;
    inbox_.push_back(std::move(what));
    if (!rung_)
      ring = ring_;
    rung_ = true;
  }
  if (ring)
    ring();
  return true;
}

} // namespace troupe::router
