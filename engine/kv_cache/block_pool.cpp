#include "engine/kv_cache/block_pool.hpp"

#include <cassert>

namespace troupe::kv_cache {

block_pool::block_pool(std::uint32_t blocks) : blocks_(blocks) {
  unused_.reserve(blocks);
  for (std::uint32_t id = blocks; id > 0; --id)
    unused_.push_back(static_cast<block_id>(id - 1));
  by_key_.reserve(blocks);
}

block_id block_pool::take() {
  assert(free() > 0);
  block_id id = oldest_idle_;
  if (!unused_.empty()) {
    id = unused_.back();
    unused_.pop_back();
  } else {
    remove_idle(id);
    by_key_.erase(blocks_[id].key);
    blocks_[id].has_key = false;
    note(blocks_[id].name, false);
  }
  blocks_[id].holders = 1;
  return id;
}

void block_pool::release(block_id id) {
  block& b = blocks_[id];
  assert(b.holders > 0);
  if (--b.holders > 0)
    return;
  if (b.has_key)
    append_idle(id);
  else
    unused_.push_back(id);
}

void block_pool::publish(block_id id, const block_key& key,
                         codec::block_name name) {
  block& b = blocks_[id];
  assert(b.holders > 0 && !b.has_key);
  if (!by_key_.try_emplace(key, id).second)
    return;
  b.has_key = true;
  b.key = key;
  b.name = name;
  note(name, true);
}

void block_pool::note(codec::block_name name, bool known) {
  if (name != codec::root_name)
    changed_.try_emplace(name, change{!known, !known}).first->second.now =
        known;
}

name_changes block_pool::take_changes() {
  name_changes out;
  for (auto& [name, what] : changed_)
    if (what.now != what.before)
      (what.now ? out.stored : out.dropped).push_back(name);
  changed_.clear();
  return out;
}

prefix_match block_pool::find(std::span<const block_key> chain) const {
  prefix_match match;
  for (const block_key& key : chain) {
    auto known = by_key_.find(key);
    if (known == by_key_.end())
      break;
    ++match.blocks;
    if (blocks_[known->second].holders == 0)
      ++match.idle;
  }
  return match;
}

void block_pool::hold(std::span<const block_key> chain, std::uint32_t count,
                      std::vector<block_id>& out) {
  for (const block_key& key : chain.first(count)) {
    const block_id id = by_key_.at(key);
    if (blocks_[id].holders++ == 0)
      remove_idle(id);
    out.push_back(id);
  }
}

void block_pool::append_idle(block_id id) {
  block& b = blocks_[id];
  b.older = newest_idle_;
  b.newer = -1;
  (newest_idle_ < 0 ? oldest_idle_ : blocks_[newest_idle_].newer) = id;
  newest_idle_ = id;
  ++idle_count_;
}

void block_pool::remove_idle(block_id id) {
  block& b = blocks_[id];
  (b.older < 0 ? oldest_idle_ : blocks_[b.older].newer) = b.newer;
  (b.newer < 0 ? newest_idle_ : blocks_[b.newer].older) = b.older;
  --idle_count_;
}

} // namespace troupe::kv_cache
