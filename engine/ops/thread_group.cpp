#include "engine/ops/thread_group.hpp"

#include <algorithm>
#include <utility>

namespace troupe::ops {

thread_group::thread_group(std::int32_t size, std::chrono::milliseconds timeout)
    : shown(static_cast<std::size_t>(size)),
      said(static_cast<std::size_t>(size)),
      rooms(static_cast<std::size_t>(size)), size_(size), timeout_(timeout) {
  // nop
}

void thread_group::meet(patience how) {
  std::unique_lock lock{mutex_};
  throw_if_ended();
  if (++here_ == size_) {
    here_ = 0;
    ++meetings_;
    changed_.notify_all();
    return;
  }
  const auto this_one = meetings_;
  const auto over = [&] { return meetings_ != this_one || has_ended_; };
  if (how == patience::endless)
    changed_.wait(lock, over);
  else if (!changed_.wait_for(lock, timeout_, over)) {
    lock.unlock();
    end("another rank of the model was not heard in time");
    lock.lock();
  }
  // What was whole before the end is good.
  if (meetings_ == this_one)
    throw_if_ended();
}

void thread_group::end(const std::string& why) noexcept {
  {
    std::lock_guard lock{mutex_};
    if (has_ended_)
      return;
    has_ended_ = true;
    why_ = why;
    changed_.notify_all();
  }
  std::lock_guard lock{listeners_mutex_};
  for (auto& [id, then] : listeners_)
    then();
  listeners_.clear();
}

void thread_group::check() const {
  std::lock_guard lock{mutex_};
  throw_if_ended();
}

void thread_group::wait_for_end() {
  std::unique_lock lock{mutex_};
  changed_.wait(lock, [&] { return has_ended_; });
}

void thread_group::throw_if_ended() const {
  if (has_ended_)
    throw rank_lost{why_};
}

// Who is told while it ends is told here, since the end may have passed by.
std::uint64_t thread_group::at_end(std::function<void()> then) {
  std::lock_guard lock{listeners_mutex_};
  std::unique_lock state{mutex_};
  const bool is_over = has_ended_;
  state.unlock();
  if (is_over) {
    then();
    return 0; // nobody's
  }
  listeners_.emplace(++listeners_so_far_, std::move(then));
  return listeners_so_far_;
}

void thread_group::forget(std::uint64_t listener) {
  std::lock_guard lock{listeners_mutex_};
  listeners_.erase(listener);
}

namespace {

using patience = thread_group::patience;

class thread_communicator final : public communicator {
public:
  thread_communicator(std::shared_ptr<thread_group> group, std::int32_t rank)
      : group_(std::move(group)), rank_(rank) {
    // nop
  }

  ~thread_communicator() override {
    group_->end("rank " + std::to_string(rank_) + " of the model is gone");
  }

  std::int32_t rank() const override {
    return rank_;
  }

  std::int32_t size() const override {
    return group_->size();
  }

  // Each rank adds up a part of the numbers; the order is that of the ranks.
  void all_reduce(float* x, std::int64_t n) override {
    auto& all = *group_;
    if (rank_ == 0)
      all.sums.resize(std::max(all.sums.size(), static_cast<std::size_t>(n)));
    show(x);
    const auto [first, last] = part_of(n);
    for (auto i = first; i < last; ++i) {
      float sum = shown_by(0)[i];
      for (std::int32_t r = 1; r < size(); ++r)
        sum += shown_by(r)[i];
      all.sums[static_cast<std::size_t>(i)] = sum;
    }
    all.meet();
    std::copy_n(all.sums.data(), n, x);
    all.meet(); // the sums are read
  }

  void all_gather(const float* x, std::int64_t rows, std::int64_t cols,
                  float* out) override {
    show(x);
    for (std::int32_t r = 0; r < size(); ++r)
      for (std::int64_t row = 0; row < rows; ++row)
        std::copy_n(shown_by(r) + row * cols, cols,
                    out + (row * size() + r) * cols);
    group_->meet(); // x may change
  }

  void broadcast(std::vector<std::byte>& bytes) override {
    auto& all = *group_;
    if (rank_ == 0)
      all.bytes = bytes;
    all.meet(rank_ == 0 ? patience::timed : patience::endless);
    bytes = all.bytes;
    all.meet(); // all have them
  }

  std::vector<std::string> tell_all(const std::string& own) override {
    auto& all = *group_;
    all.said[static_cast<std::size_t>(rank_)] = own;
    all.meet(patience::endless);
    auto out = all.said;
    all.meet(); // all have it
    return out;
  }

  void check() override {
    group_->check();
  }

private:
  void show(const float* x) {
    group_->shown[static_cast<std::size_t>(rank_)] = x;
    group_->meet();
  }

  const float* shown_by(std::int32_t rank) const {
    return static_cast<const float*>(
        group_->shown[static_cast<std::size_t>(rank)]);
  }

  std::pair<std::int64_t, std::int64_t> part_of(std::int64_t n) const {
    return {n * rank_ / size(), n * (rank_ + 1) / size()};
  }

  std::shared_ptr<thread_group> group_;
  std::int32_t rank_;
};

} // namespace

std::unique_ptr<communicator>
make_thread_communicator(std::shared_ptr<thread_group> group,
                         std::int32_t rank) {
  return std::make_unique<thread_communicator>(std::move(group), rank);
}

std::vector<std::unique_ptr<communicator>>
make_thread_communicators(std::int32_t size) {
  auto group = std::make_shared<thread_group>(size);
  std::vector<std::unique_ptr<communicator>> out;
  for (std::int32_t rank = 0; rank < size; ++rank)
    out.push_back(make_thread_communicator(group, rank));
  return out;
}

} // namespace troupe::ops
