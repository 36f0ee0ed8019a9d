#include "actors/replica/work_by_router.hpp"

#include <algorithm>

namespace troupe::replica {

namespace {

constexpr std::uint64_t change_min = 128; // tokens
constexpr std::uint64_t parts = 4;

} // namespace

void work_by_router::enter(std::uint64_t router) {
  leave(router);
  shares_[router];
}

void work_by_router::leave(std::uint64_t router) {
  auto known = shares_.find(router);
  if (known == shares_.end())
    return;
  all_ -= known->second.own;
  shares_.erase(known);
}

void work_by_router::add(std::uint64_t router, std::uint64_t tokens) {
  auto known = shares_.find(router);
  if (known == shares_.end())
    return;
  known->second.own += tokens;
  all_ += tokens;
}

void work_by_router::take(std::uint64_t router, std::uint64_t tokens) {
  auto known = shares_.find(router);
  if (known == shares_.end())
    return;
  tokens = std::min(tokens, known->second.own);
  known->second.own -= tokens;
  all_ -= tokens;
}

std::uint64_t work_by_router::beside(std::uint64_t router) const {
  auto known = shares_.find(router);
  return known == shares_.end() ? all_ : all_ - known->second.own;
}

void work_by_router::told(std::uint64_t router) {
  if (auto known = shares_.find(router); known != shares_.end())
    known->second.told = all_ - known->second.own;
}

std::vector<std::uint64_t> work_by_router::misled() const {
  std::vector<std::uint64_t> out;
  for (const auto& [router, share] : shares_) {
    auto now = all_ - share.own;
    auto change = std::max(now, share.told) - std::min(now, share.told);
    if (change >= std::max(change_min, share.told / parts))
      out.push_back(router);
  }
  return out;
}

} // namespace troupe::replica
