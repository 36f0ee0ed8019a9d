#include "actors/protocol/gpu_room.hpp"

#include <algorithm>
#include <cmath>

namespace troupe::protocol {

namespace {

/// What an amount takes of each of its GPUs.
std::int32_t parts_of(double amount) {
  if (!(amount > 0))
    return 0;
  if (amount >= 1)
    return gpu_room::parts;
  // Rounded down, so that as many as are one by their sum are one here too.
  constexpr double noise = 1e-6;
  return static_cast<std::int32_t>(
      std::max(std::floor(amount * gpu_room::parts + noise), 1.0));
}

/// GPUs in an amount. What is far more than there are must not overflow.
std::size_t gpus_in(double amount) {
  constexpr double most = 1e6;
  return amount > 0 ? static_cast<std::size_t>(
                          std::min(std::ceil(amount - 1e-9), most))
                    : 0;
}

} // namespace

gpu_room::gpu_room(std::size_t count) : left_(count, parts) {
  // nop
}

gpu_room::gpu_room(const std::vector<std::uint32_t>& left) {
  for (auto some : left)
    left_.push_back(static_cast<std::int32_t>(
        std::min<std::uint32_t>(some, static_cast<std::uint32_t>(parts))));
}

gpu_room gpu_room::of(double offered) {
  constexpr std::size_t most = 1'024;
  return gpu_room{std::min(gpus_in(offered), most)};
}

double gpu_room::room_for(double amount) const {
  if (parts_of(amount) == parts)
    return static_cast<double>(std::count(left_.begin(), left_.end(), parts));
  auto best = std::max_element(left_.begin(), left_.end());
  return best == left_.end() ? 0 : std::max(*best, 0) / double{parts};
}

std::optional<gpu_numbers> gpu_room::choose(double amount) const {
  const auto each = parts_of(amount);
  if (each < parts && each > 0) {
    auto best = left_.end();
    for (auto i = left_.begin(); i != left_.end(); ++i)
      if (*i >= each && (best == left_.end() || *i < *best))
        best = i;
    if (best == left_.end())
      return std::nullopt;
    return gpu_numbers{static_cast<std::uint32_t>(best - left_.begin())};
  }
  const auto wanted = gpus_in(amount);
  gpu_numbers out;
  for (std::uint32_t i = 0; i < left_.size() && out.size() < wanted; ++i)
    if (left_[i] == parts)
      out.push_back(i);
  if (out.size() < wanted)
    return std::nullopt;
  return out;
}

bool gpu_room::has(const gpu_numbers& which, double amount) const {
  const auto each = parts_of(amount);
  return std::all_of(which.begin(), which.end(), [&](auto i) {
    return i < left_.size() && left_[i] >= each;
  });
}

void gpu_room::take(const gpu_numbers& which, double amount) {
  for (auto i : which)
    if (i < left_.size())
      left_[i] -= parts_of(amount);
}

void gpu_room::give_back(const gpu_numbers& which, double amount) {
  for (auto i : which)
    if (i < left_.size())
      left_[i] += parts_of(amount);
}

std::vector<std::uint32_t> gpu_room::left() const {
  std::vector<std::uint32_t> out;
  for (auto some : left_)
    out.push_back(static_cast<std::uint32_t>(std::max(some, 0)));
  return out;
}

} // namespace troupe::protocol
