#pragma once

#include "autoscaler/node_fleet.hpp"
#include "node/provider/node_provider.hpp"
#include "tests/sim/process.hpp"
#include "tests/sim/store.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace troupe::sim {

/// Brings nodes to a run. They come after a while, too late, twice or not at
/// all, and live on when the head dies, as those of `subprocess` do. It holds
/// those who ask to what they promise (I9): the store first, no name twice, no
/// more nodes than there may be.
class simulated_provider : public node::node_provider {
public:
  /// Starts a process of this node.
  using start_node =
      std::function<process_id(const std::string& node, std::uint32_t cpus)>;

  /// What it has beside what it is told to be is drawn.
  simulated_provider(world&, process_table&, const disk&, start_node);

  const autoscaler::fleet::options& options() const {
    return options_;
  }
  /// CPUs that it can bring at least.
  std::uint32_t cpus() const;

  /// A new life of the head: what it asks for from now on dies with it until
  /// it is begun.
  void serve(process& head);
  /// From now on all that is asked for comes.
  void heal() {
    fails_ = 0;
  }

  // node_provider, within the head's process.
  std::vector<node::living_node> living() override;
  void listen(gone) override;
  void ask(const std::string& node, const std::string& type) override;
  void end(const std::string& node) override;
  void end_all(milliseconds) override {
    // The head is never told to end.
  }

  // For the checks.
  /// A node that was begun and is not gone.
  struct machine {
    std::string type;
    std::vector<process_id> processes; ///< two, if it came twice
    int coming = 0;
    bool ending = false;
    instant kill_at = instant::max();
  };
  const std::map<std::string, machine>& machines() const {
    return machines_;
  }

private:
  void check_ask(const std::string& node, const std::string& type) const;
  void in_turn(world::action);
  void begin(const std::string& node, const std::string& type);
  void come(const std::string& node, nanoseconds when);
  void tell_to_end(const std::string& node);
  bool is_gone(const machine&) const;
  void look();
  void tell(const std::string& node, const std::string& why);

  world& world_;
  process_table& processes_;
  const disk& disk_;
  start_node start_;
  autoscaler::fleet::options options_;
  double fails_ = 0;                         ///< share of all asks
  std::map<std::string, machine> machines_;  // by node
  std::map<std::string, std::string> asked_; // not begun; its type
  std::set<std::string> to_end_;             // by this head
  local_time last_wish_{};      // by its clock; the next ones come later
  std::set<std::string> names_; // ever asked for
  process_id head_ = 0;
  gone tell_;
  bool looks_ = false;
};

} // namespace troupe::sim
