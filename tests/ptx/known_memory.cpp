#include "tests/ptx/known_memory.hpp"

#include <algorithm>
#include <mutex>

namespace troupe::ptx {

namespace {

/// The first that ends after it.
auto first_after(const std::vector<range>& ranges, std::uint64_t address) {
  return std::upper_bound(
      ranges.begin(), ranges.end(), address,
      [](std::uint64_t at, const range& one) { return at < one.end; });
}

range found_in(const std::vector<range>& ranges, std::uint64_t address) {
  const auto at = first_after(ranges, address);
  return at != ranges.end() && at->begin <= address ? *at : range{};
}

} // namespace

memory::memory() : all_(std::make_unique<contents>()) {
  // nop
}

memory::~memory() = default;

void memory::add(const void* at, std::size_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(at);
  const std::unique_lock hold{all_->lock};
  const auto next = first_after(all_->ranges, begin);
  if (bytes == 0 || (next != all_->ranges.end() && next->begin < begin + bytes))
    throw std::invalid_argument{"this memory was added already"};
  all_->ranges.insert(next, {begin, begin + bytes});
  ++all_->version;
}

void memory::remove(const void* at) {
  const auto begin = reinterpret_cast<std::uintptr_t>(at);
  const std::unique_lock hold{all_->lock};
  const auto there = first_after(all_->ranges, begin);
  if (there == all_->ranges.end() || there->begin != begin)
    throw std::invalid_argument{"this memory was not added"};
  all_->ranges.erase(there);
  ++all_->version;
}

void known_memory::copy() {
  const std::shared_lock hold{all_.lock};
  ranges_ = all_.ranges;
  version_ = all_.version.load(std::memory_order_acquire);
}

range known_memory::find(std::uint64_t address) const {
  const auto out = found_in(ranges_, address);
  return out.end != 0 ? out : found_in(variables_, address);
}

} // namespace troupe::ptx
