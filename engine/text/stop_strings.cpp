#include "engine/text/stop_strings.hpp"

#include <cstdint>

namespace troupe::text {

// A trie of all stops with links (Aho and Corasick): a node stands for the
// longest end of the text that begins a stop.
class stop_strings::automaton {
public:
  static constexpr std::uint32_t none = UINT32_MAX;

  struct node {
    std::uint32_t first_child = none;
    std::uint32_t next_sibling = none;
    std::uint32_t fallback = 0; ///< the longest proper end that is a node
    std::uint32_t match = none; ///< longest stop that ends here
    std::uint32_t depth = 0;    ///< bytes from the root
    char byte = 0;              ///< on the way from the parent
  };

  explicit automaton(std::vector<std::string> stops)
      : stops_(std::move(stops)), nodes_(1) {
    for (std::uint32_t i = 0; i < stops_.size(); ++i)
      insert(i);
    link();
  }

  std::uint32_t step(std::uint32_t at, char byte) const {
    for (;;) {
      auto next = child(at, byte);
      if (next != none)
        return next;
      if (at == 0)
        return 0;
      at = nodes_[at].fallback;
    }
  }

  const node& operator[](std::size_t at) const {
    return nodes_[at];
  }

  const std::string& stop(std::size_t i) const {
    return stops_[i];
  }

private:
  std::uint32_t child(std::uint32_t at, char byte) const {
    auto next = nodes_[at].first_child;
    while (next != none && nodes_[next].byte != byte)
      next = nodes_[next].next_sibling;
    return next;
  }

  void insert(std::uint32_t index) {
    std::uint32_t at = 0;
    for (auto byte : stops_[index]) {
      auto next = child(at, byte);
      if (next == none) {
        next = static_cast<std::uint32_t>(nodes_.size());
        nodes_.push_back({.next_sibling = nodes_[at].first_child,
                          .depth = nodes_[at].depth + 1,
                          .byte = byte});
        nodes_[at].first_child = next;
      }
      at = next;
    }
    if (at != 0 && nodes_[at].match == none)
      nodes_[at].match = index;
  }

  // Breadth first, so that every link leads to a finished node.
  void link() {
    std::vector<std::uint32_t> queue{0};
    for (std::size_t i = 0; i < queue.size(); ++i) {
      auto parent = queue[i];
      for (auto at = nodes_[parent].first_child; at != none;
           at = nodes_[at].next_sibling) {
        auto& n = nodes_[at];
        n.fallback = parent == 0 ? 0 : step(nodes_[parent].fallback, n.byte);
        if (n.match == none)
          n.match = nodes_[n.fallback].match;
        queue.push_back(at);
      }
    }
  }

  std::vector<std::string> stops_;
  std::vector<node> nodes_;
};

stop_strings::stop_strings(std::vector<std::string> stops, bool include)
    : include_(include) {
  if (!stops.empty())
    automaton_ = std::make_shared<const automaton>(std::move(stops));
}

std::optional<std::size_t> stop_strings::push(std::string_view text,
                                              std::string& out) {
  if (!automaton_) {
    out += text;
    return std::nullopt;
  }
  auto at = static_cast<std::uint32_t>(state_);
  for (std::size_t i = 0; i < text.size(); ++i) {
    at = automaton_->step(at, text[i]);
    auto match = (*automaton_)[at].match;
    if (match == automaton::none)
      continue;
    held_ += text.substr(0, i + 1);
    auto cut = include_ ? 0 : automaton_->stop(match).size();
    out.append(held_, 0, held_.size() - cut);
    held_.clear();
    state_ = 0;
    return match;
  }
  state_ = at;
  held_ += text;
  auto safe = held_.size() - (*automaton_)[at].depth;
  out.append(held_, 0, safe);
  held_.erase(0, safe);
  return std::nullopt;
}

void stop_strings::finish(std::string& out) {
  out += held_;
  held_.clear();
  state_ = 0;
}

} // namespace troupe::text
