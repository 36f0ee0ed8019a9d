#include "engine/text/byte_trie.hpp"

#include <algorithm>
#include <array>

namespace troupe::text {

/// The entries [begin, end) share their first `depth` bytes, which lead to
/// `at`.
struct byte_trie::range {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::size_t depth = 0;
  node at = root;
};

byte_trie byte_trie::make(std::vector<entry> entries) {
  std::stable_sort(
      entries.begin(), entries.end(),
      [](const entry& a, const entry& b) { return a.spelling < b.spelling; });
  byte_trie out;
  out.nodes_.emplace_back();
  std::vector<range> open{{0, entries.size(), 0, root}};
  std::size_t free_from = 0;
  while (!open.empty()) {
    auto one = open.back();
    open.pop_back();
    while (one.begin < one.end &&
           entries[one.begin].spelling.size() == one.depth)
      out.nodes_[one.at].id = entries[one.begin++].id;
    if (one.begin < one.end)
      out.place_children(entries, one, open, free_from);
  }
  return out;
}

// Finds a base at which the slots of all children are free. Slots before
// `free_from` are taken; after some tries in vain it gives up on the crowded
// part, so that the work is linear.
void byte_trie::place_children(const std::vector<entry>& entries,
                               const range& all, std::vector<range>& open,
                               std::size_t& free_from) {
  constexpr std::size_t tries_max = 64;
  std::vector<range> children;
  std::vector<std::uint8_t> labels;
  for (auto i = all.begin; i < all.end;) {
    auto label = entries[i].spelling[all.depth];
    auto first = i;
    while (i < all.end && entries[i].spelling[all.depth] == label)
      ++i;
    children.push_back({first, i, all.depth + 1, none});
    labels.push_back(static_cast<std::uint8_t>(label));
  }
  auto is_free = [&](std::size_t at) {
    return at >= slots_.size() || slots_[at].parent == none;
  };
  while (!is_free(free_from))
    ++free_from;
  std::size_t base = std::max<std::size_t>(free_from, labels[0]) - labels[0];
  std::size_t tries = 0;
  auto fits = [&] {
    return std::all_of(labels.begin(), labels.end(),
                       [&](auto label) { return is_free(base + label); });
  };
  while (!fits()) {
    ++base;
    if (++tries == tries_max)
      free_from = base = slots_.size();
  }
  if (slots_.size() < base + labels.back() + 1)
    slots_.resize(base + labels.back() + 1);
  nodes_[all.at].base = static_cast<std::uint32_t>(base);
  for (std::size_t i = 0; i < children.size(); ++i) {
    children[i].at = static_cast<node>(nodes_.size());
    nodes_.emplace_back();
    slots_[base + labels[i]] = {all.at, children[i].at};
    open.push_back(children[i]);
  }
}

byte_trie::node byte_trie::walk(node from, std::string_view text) const {
  for (auto byte : text) {
    if (from == none)
      break;
    from = next(from, byte);
  }
  return from;
}

} // namespace troupe::text
