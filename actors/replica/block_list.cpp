#include "actors/replica/block_list.hpp"

namespace troupe::replica {

void block_list::take(const engine::block_changes& changes) {
  block_size_ = changes.block_size;
  for (auto name : changes.dropped)
    names_.erase(name);
  names_.insert(changes.stored.begin(), changes.stored.end());
}

protocol::kv_events block_list::follow(std::uint64_t router) {
  auto sequence = ++followers_[router];
  return {sequence, true, block_size_, {names_.begin(), names_.end()}, {}};
}

std::vector<std::uint64_t> block_list::followers() const {
  std::vector<std::uint64_t> out;
  for (auto& [router, sequence] : followers_)
    out.push_back(router);
  return out;
}

protocol::kv_events
block_list::changes_for(std::uint64_t router,
                        const engine::block_changes& changes) {
  return {++followers_.at(router), false, block_size_, changes.stored,
          changes.dropped};
}

} // namespace troupe::replica
