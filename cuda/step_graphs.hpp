#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <utility>

namespace troupe::cuda {

/// What decides on the calls of a step that repeats.
struct graph_key {
  std::int64_t rows = 0;
  std::int32_t parts = 0; ///< of attention, at most

  bool operator==(const graph_key&) const = default;
};

/// The calls of steps that repeat, as graphs of a device. The first step of a
/// kind runs as it is, which loads its kernels; the second is captured. A kind
/// that cannot be (there is no memory for its graph, say) goes on as it is. Of
/// the kinds, `kinds_max` are kept, those that were used last.
template <class Device>
class step_graphs {
public:
  static constexpr std::size_t kinds_max = 64;

  explicit step_graphs(Device& device) : device_(device) {
    // nop
  }

  /// Does what `calls` say; false: without making them.
  bool run(const graph_key& key, const std::function<void()>& calls) {
    auto& of = find(key);
    const bool is_known = std::exchange(of.has_run, true);
    const bool is_new = is_known && !of.graph && !of.has_failed;
    if (is_new) {
      of.graph = device_.capture(calls);
      of.has_failed = !of.graph;
    }
    if (!of.graph) {
      calls();
      return true;
    }
    device_.launch(*of.graph);
    return is_new;
  }

private:
  struct kind {
    graph_key key;
    bool has_run = false;
    bool has_failed = false; ///< to be captured
    std::optional<typename Device::graph> graph;
  };

  kind& find(const graph_key& key) {
    auto one = kinds_.begin();
    while (one != kinds_.end() && !(one->key == key))
      ++one;
    if (one != kinds_.end()) {
      kinds_.splice(kinds_.begin(), kinds_, one);
    } else {
      kinds_.push_front({key, false, false, std::nullopt});
      if (kinds_.size() > kinds_max)
        kinds_.pop_back();
    }
    return kinds_.front();
  }

  Device& device_;
  std::list<kind> kinds_; ///< the last used first
};

} // namespace troupe::cuda
