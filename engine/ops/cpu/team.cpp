#include "engine/ops/cpu/team.hpp"

#include <algorithm>
#include <chrono>
#include <immintrin.h>
#include <sched.h>
#include <system_error>

namespace troupe::ops::cpu {

namespace {

constexpr std::uint32_t open_bit = 1u << 31;
constexpr std::chrono::microseconds spin_time{50};
constexpr int pieces_per_thread = 8;

/// Spins until `done` or the time is over; whether it is done.
template <class Done>
bool spin_until(Done done) {
  const auto end = std::chrono::steady_clock::now() + spin_time;
  do {
    for (int i = 0; i < 16; ++i) {
      if (done())
        return true;
      _mm_pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

std::uint64_t pack(std::uint64_t first, std::uint64_t last) {
  return first << 32 | last;
}

} // namespace

result<std::unique_ptr<team>> team::make(int threads) {
  std::unique_ptr<team> made{new team{threads}};
  try {
    for (int self = 1; self < threads; ++self)
      made->threads_.emplace_back([t = made.get(), self] { t->work(self); });
  } catch (const std::system_error&) {
    return error{errc::unavailable, "cannot start " + std::to_string(threads) +
                                        " threads for the kernels"};
  }
  return made;
}

team::~team() {
  stop_.store(true);
  loop_.fetch_add(1);
  loop_.notify_all();
  for (auto& thread : threads_)
    thread.join();
}

void team::run_erased(std::int64_t count, job body) {
  if (count <= 0)
    return;
  if (threads_.empty() || count == 1) {
    body.call(body.body, 0, count, 0);
    return;
  }
  const auto members = static_cast<std::int64_t>(shares_.size());
  job_ = body;
  piece_ = std::max<std::int64_t>(1, count / (members * pieces_per_thread));
  for (std::int64_t i = 0; i < members; ++i)
    shares_[i].range.store(pack(count * i / members, count * (i + 1) / members),
                           std::memory_order_relaxed);
  gate_.store(open_bit, std::memory_order_release);
  loop_.fetch_add(1, std::memory_order_release);
  loop_.notify_all();
  take_pieces(0);
  gate_.fetch_and(~open_bit, std::memory_order_acq_rel);
  wait_until_left();
}

void team::wait_until_left() {
  const auto empty = [&] { return gate_.load(std::memory_order_acquire) == 0; };
  if (spin_until(empty))
    return;
  while (const auto inside = gate_.load(std::memory_order_acquire))
    gate_.wait(inside, std::memory_order_acquire);
}

void team::work(int self) {
  std::uint32_t seen = 0;
  while (wait_for_loop(seen)) {
    if (!enter())
      continue;
    take_pieces(self);
    leave();
  }
}

bool team::wait_for_loop(std::uint32_t& seen) {
  const auto changed = [&] {
    return loop_.load(std::memory_order_acquire) != seen;
  };
  if (!spin_until(changed))
    while (!changed())
      loop_.wait(seen, std::memory_order_acquire);
  seen = loop_.load(std::memory_order_acquire);
  return !stop_.load();
}

bool team::enter() {
  auto gate = gate_.load(std::memory_order_acquire);
  while ((gate & open_bit) != 0)
    if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel))
      return true;
  return false;
}

void team::leave() {
  if (gate_.fetch_sub(1, std::memory_order_acq_rel) == 1)
    gate_.notify_one();
}

void team::take_pieces(int self) {
  std::int64_t begin, end;
  while (take(self, true, begin, end))
    job_.call(job_.body, begin, end, self);
  for (int step = 1; step < size(); ++step)
    while (take((self + step) % size(), false, begin, end))
      job_.call(job_.body, begin, end, self);
}

bool team::take(int owner, bool front, std::int64_t& begin, std::int64_t& end) {
  auto& range = shares_[owner].range;
  auto value = range.load(std::memory_order_relaxed);
  for (;;) {
    const std::uint64_t first = value >> 32, last = value & 0xffffffffu;
    if (first >= last)
      return false;
    const auto n = std::min<std::uint64_t>(piece_, last - first);
    const auto left = front ? pack(first + n, last) : pack(first, last - n);
    if (!range.compare_exchange_weak(value, left, std::memory_order_relaxed))
      continue;
    begin = static_cast<std::int64_t>(front ? first : last - n);
    end = begin + static_cast<std::int64_t>(n);
    return true;
  }
}

int usable_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0)
    return std::max(1u, std::thread::hardware_concurrency());
  return std::max(1, CPU_COUNT(&set));
}

} // namespace troupe::ops::cpu
