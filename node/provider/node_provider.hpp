#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

namespace troupe::node {

/// A node of an earlier life that is not gone.
struct living_node {
  std::string node;
  bool ending = false; ///< it was told to end

  bool operator==(const living_node&) const = default;
};

/// Brings nodes and ends them: the one way from the autoscaler to machines.
/// Nodes are known by the name that they bear in the cluster. No call but
/// `living` and `end_all` waits for anything.
///
/// A node lives on when the provider is destroyed, or its process dies: a later
/// provider of the same place finds it again.
class node_provider {
public:
  /// Called on a thread of the provider, once for every node that was asked for
  /// or was living: it is gone, or could not be brought. `why` is empty if
  /// `end` was called for it.
  using gone =
      std::function<void(const std::string& node, const std::string& why)>;

  virtual ~node_provider() = default;

  /// The nodes of earlier lives that are not gone. What is left of others is
  /// cleared away. Once, before all else.
  virtual std::vector<living_node> living() = 0;

  /// Where to tell. What happened before is told then.
  virtual void listen(gone) = 0;

  /// Brings a node of this type, called `node`; it joins by itself.
  virtual void ask(const std::string& node, const std::string& type) = 0;

  /// Ends it: in order, and if it does not end, by force.
  virtual void end(const std::string& node) = 0;

  /// Ends all, and waits until they are gone: in order for so long, then by
  /// force. Nothing can be asked for afterwards.
  virtual void end_all(std::chrono::milliseconds in_order_max) = 0;
};

} // namespace troupe::node
