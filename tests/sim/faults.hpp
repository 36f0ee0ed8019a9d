#pragma once

#include "tests/sim/cluster.hpp"
#include "tests/sim/traffic.hpp"

#include <functional>
#include <string_view>
#include <vector>

namespace troupe::sim {

/// Makes what can go wrong go wrong, at random. Each run draws which kinds of
/// faults it has: storms of one kind find what a bit of everything hides.
class faults {
public:
  faults(cluster&, traffic&);

  /// One fault of a kind that this run has. Those that last end by themselves.
  void strike();
  /// Everything that lasts ends now: ways are free, the disk works, processes
  /// go on, nodes are started again. Engines that hang stay so.
  void heal();

private:
  struct kind {
    std::string_view name;
    void (faults::*strike)();
  };

  // Processes.
  void kill_replica();
  void crash_replica();
  void freeze_replica();
  void hang_engine();
  void kill_head();
  void kill_worker();
  void freeze_node();
  void send_poison();
  // The network.
  void cut_pair();
  void cut_one_way();
  void lose_node();
  void cut_off();
  void slow_network();
  void refuse_connections();
  // Disks and starts.
  void slow_disk();
  void full_disk();
  void break_starts();

  void kill_node(std::size_t node, nanoseconds restart_after);
  void cut(host_id from, host_id to, nanoseconds time);
  void cut_all(std::size_t node, nanoseconds time);
  std::size_t any_node();
  void later(nanoseconds, world::action);
  void freeze(process_id, nanoseconds time);
  nanoseconds short_or_long();

  cluster& cluster_;
  traffic& traffic_;
  std::vector<kind> kinds_;
  /// What undoes the lasting faults, by number.
  std::map<std::uint64_t, world::action> open_;
  std::uint64_t last_ = 0;
};

} // namespace troupe::sim
