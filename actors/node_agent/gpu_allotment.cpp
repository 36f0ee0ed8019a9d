#include "actors/node_agent/gpu_allotment.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <utility>

namespace troupe::node_agent {

gpu_allotment::gpu_allotment(std::vector<std::string> names) {
  for (auto& name : names)
    gpus_.push_back({std::move(name)});
}

result<std::string> gpu_allotment::take(std::uint64_t incarnation,
                                        double amount) {
  if (!(amount > 0))
    return std::string{};
  if (amount < 1)
    return take_part(incarnation, static_cast<std::uint32_t>(std::max(
                                      std::lround(amount * parts), 1L)));
  // More than there are is refused; what is far more must not overflow.
  auto count = std::min(std::ceil(amount), 1e6);
  return take_whole(incarnation, static_cast<std::size_t>(count));
}

result<std::string> gpu_allotment::take_part(std::uint64_t incarnation,
                                             std::uint32_t part) {
  auto best = gpus_.end();
  for (auto i = gpus_.begin(); i != gpus_.end(); ++i)
    if (i->left >= part && (best == gpus_.end() || i->left < best->left))
      best = i;
  if (best == gpus_.end())
    return error{errc::limit,
                 fmt::format("no GPU of this node has {} of it left",
                             static_cast<double>(part) / parts)};
  best->left -= part;
  taken_[incarnation].push_back(
      {static_cast<std::size_t>(best - gpus_.begin()), part});
  return best->name;
}

result<std::string> gpu_allotment::take_whole(std::uint64_t incarnation,
                                              std::size_t count) {
  std::vector<std::size_t> free;
  for (std::size_t i = 0; i < gpus_.size() && free.size() < count; ++i)
    if (gpus_[i].left == parts)
      free.push_back(i);
  if (free.size() < count)
    return error{errc::limit, fmt::format("{} of this node's {} GPUs are free, "
                                          "{} are asked for",
                                          free.size(), gpus_.size(), count)};
  for (auto i : free) {
    gpus_[i].left = 0;
    taken_[incarnation].push_back({i, parts});
  }
  return fmt::format("{}", fmt::join(names_of(incarnation), ","));
}

std::vector<std::string>
gpu_allotment::names_of(std::uint64_t incarnation) const {
  std::vector<std::string> out;
  if (auto own = taken_.find(incarnation); own != taken_.end())
    for (const auto& one : own->second)
      out.push_back(gpus_[one.gpu].name);
  return out;
}

void gpu_allotment::give_back(std::uint64_t incarnation) {
  auto known = taken_.extract(incarnation);
  if (!known)
    return;
  for (const auto& one : known.mapped())
    gpus_[one.gpu].left += one.parts;
}

} // namespace troupe::node_agent
