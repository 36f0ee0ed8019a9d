#include "tests/sim/store.hpp"

#include <algorithm>
#include <utility>

namespace troupe::sim {

namespace {

const error disk_full{errc::io, "the disk is full"};

} // namespace

bool disk::write(contents next) {
  if (full_)
    return false;
  std::erase_if(unfinished_,
                [this](const auto& x) { return x.done <= world_.now(); });
  busy_until_ = std::max(busy_until_, world_.now()) +
                world_.between(write_time_ / 2, write_time_);
  unfinished_.push_back({busy_until_, std::exchange(now_, std::move(next))});
  return true;
}

void disk::crash() {
  std::erase_if(unfinished_,
                [this](const auto& x) { return x.done <= world_.now(); });
  auto kept = world_.below(unfinished_.size() + 1);
  if (kept < unfinished_.size())
    now_ = std::move(unfinished_[kept].before);
  unfinished_.clear();
  busy_until_ = world_.now();
}

result<std::uint64_t> simulated_store::save(codec::bytes_view record) {
  auto next = disk_.now();
  codec::bytes bytes{record.begin(), record.end()};
  if (next.deployments.empty() || next.deployments.back() != bytes) {
    next.deployments.push_back(std::move(bytes));
    if (!disk_.write(std::move(next)))
      return disk_full;
  }
  return disk_.now().deployments.size();
}

result<std::optional<controller::stored_deployment>> simulated_store::latest() {
  const auto& all = disk_.now().deployments;
  if (all.empty())
    return std::optional<controller::stored_deployment>{};
  return std::optional{controller::stored_deployment{all.size(), all.back()}};
}

result<std::uint64_t> simulated_store::next_epoch() {
  auto next = disk_.now();
  auto epoch = ++next.epoch;
  if (!disk_.write(std::move(next)))
    return disk_full;
  return epoch;
}

result<void>
simulated_store::remember_nodes(const std::vector<std::string>& nodes) {
  auto next = disk_.now();
  next.nodes = nodes;
  if (!disk_.write(std::move(next)))
    return disk_full;
  return {};
}

result<std::vector<std::string>> simulated_store::remembered_nodes() {
  return disk_.now().nodes;
}

result<void> simulated_store::remember_targets(
    const std::vector<controller::scale_target>& targets) {
  auto next = disk_.now();
  next.targets = targets;
  if (!disk_.write(std::move(next)))
    return disk_full;
  return {};
}

result<std::vector<controller::scale_target>>
simulated_store::remembered_targets() {
  return disk_.now().targets;
}

result<void> simulated_store::remember_asked(
    const std::vector<protocol::asked_node>& nodes) {
  auto next = disk_.now();
  next.asked = nodes;
  if (!disk_.write(std::move(next)))
    return disk_full;
  return {};
}

result<std::vector<protocol::asked_node>> simulated_store::asked_nodes() {
  return disk_.now().asked;
}

} // namespace troupe::sim
