#include "tests/sim/world.hpp"

#include <algorithm>
#include <utility>

namespace troupe::sim {

void world::after(nanoseconds pause, action what) {
  queue_.push_back(
      {now_ + std::max(pause, nanoseconds{0}), ++sequence_, std::move(what)});
  std::push_heap(queue_.begin(), queue_.end(), later);
}

bool world::step(instant end) {
  if (queue_.empty() || queue_.front().when > end) {
    now_ = std::max(now_, end);
    return false;
  }
  std::pop_heap(queue_.begin(), queue_.end(), later);
  auto next = std::move(queue_.back());
  queue_.pop_back();
  now_ = next.when;
  ++events_;
  next.what();
  return true;
}

nanoseconds world::between(nanoseconds low, nanoseconds high) {
  auto span = static_cast<std::uint64_t>((high - low).count());
  return low + nanoseconds{static_cast<std::int64_t>(below(span + 1))};
}

void world::fail(std::string invariant, std::string what) {
  trace("VIOLATION", invariant, what);
  throw violation{std::move(invariant), std::move(what)};
}

void world::mix(std::uint64_t x) {
  hash_ = scramble(hash_ ^ x);
}

void world::mix_text(std::string_view text) {
  std::uint64_t x = text.size();
  for (unsigned char c : text)
    x = x * 0x100000001b3 ^ c;
  mix(x);
}

std::uint64_t scramble(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

} // namespace troupe::sim
