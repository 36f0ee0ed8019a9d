#include "actors/node_agent/gpu_allotment.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <utility>

namespace troupe::node_agent {

gpu_allotment::gpu_allotment(std::vector<std::string> names)
    : names_(std::move(names)), room_(names_.size()) {
  // nop
}

result<std::string> gpu_allotment::take(std::uint64_t incarnation,
                                        double amount,
                                        const protocol::gpu_numbers& which) {
  if (!(amount > 0))
    return std::string{};
  if (which.empty())
    return error{errc::invalid_argument,
                 "the head has not said which GPUs it gets"};
  for (auto number : which)
    if (!room_.has({number}, amount))
      return error{errc::limit,
                   fmt::format("GPU {} of this node's {} is not free for it",
                               number, names_.size())};
  give_back(incarnation);
  room_.take(which, amount);
  taken_[incarnation] = {amount, which};
  return fmt::format("{}", fmt::join(names_of(incarnation), ","));
}

std::vector<std::string>
gpu_allotment::names_of(std::uint64_t incarnation) const {
  std::vector<std::string> out;
  if (auto own = taken_.find(incarnation); own != taken_.end())
    for (auto number : own->second.which)
      out.push_back(names_[number]);
  return out;
}

void gpu_allotment::give_back(std::uint64_t incarnation) {
  if (auto known = taken_.extract(incarnation))
    room_.give_back(known.mapped().which, known.mapped().amount);
}

} // namespace troupe::node_agent
