#include "tests/cluster/replica/talking_engine.hpp"

#include <chrono>
#include <utility>

namespace troupe::test {

namespace {

/// Between two steps.
constexpr std::chrono::milliseconds pause{5};

/// Some word of any vocabulary.
token_id token_at(std::uint32_t place) {
  return static_cast<token_id>(1000 + place * 7919 % 20'000);
}

} // namespace

talking_engine::talking_engine(std::unique_ptr<api::engine> real)
    : real_(std::move(real)), now_(real_->now()) {
  // nop
}

talking_engine::~talking_engine() {
  {
    std::lock_guard guard{mutex_};
    stopping_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable())
    thread_.join();
}

const text::model_card& talking_engine::card() const {
  return real_->card();
}

const api::description& talking_engine::about() const {
  return real_->about();
}

void talking_engine::start(std::function<void(api::step_result&&)> on_step,
                           api::step_watch*) {
  on_step_ = std::move(on_step);
  thread_ = std::thread{[this] { run(); }};
}

void talking_engine::submit(api::request x) {
  std::lock_guard guard{mutex_};
  choices_[x.id] = {static_cast<std::uint32_t>(x.resume.size()),
                    x.params.max_tokens};
  now_.running = static_cast<std::uint32_t>(choices_.size());
  changed_.notify_one();
}

void talking_engine::cancel(std::uint64_t id) {
  std::lock_guard guard{mutex_};
  choices_.erase(id);
  now_.running = static_cast<std::uint32_t>(choices_.size());
}

api::stats talking_engine::now() const {
  std::lock_guard guard{mutex_};
  return now_;
}

void talking_engine::run() {
  std::unique_lock lock{mutex_};
  while (!stopping_) {
    if (changed_.wait_for(lock, pause, [this] { return stopping_; }))
      return;
    if (choices_.empty())
      changed_.wait(lock, [this] { return stopping_ || !choices_.empty(); });
    auto result = step();
    lock.unlock();
    on_step_(std::move(result));
    lock.lock();
  }
}

api::step_result talking_engine::step() {
  api::step_result out;
  for (auto i = choices_.begin(); i != choices_.end();) {
    auto& [id, x] = *i;
    auto& news = out.outputs.emplace_back();
    news.id = id;
    news.tokens = {token_at(x.drawn++)};
    if (x.drawn < x.wanted) {
      ++i;
    } else {
      news.finish = api::finish_reason::length;
      i = choices_.erase(i);
    }
  }
  ++now_.steps;
  now_.output_tokens += out.outputs.size();
  now_.running = static_cast<std::uint32_t>(choices_.size());
  out.now = now_;
  return out;
}

} // namespace troupe::test
