#pragma once

#include "tests/sim/cluster.hpp"
#include "tests/sim/traffic.hpp"

#include <functional>
#include <map>
#include <random>
#include <string_view>
#include <vector>

namespace troupe::sim {

/// Makes what can go wrong go wrong, at random. Each run draws which kinds of
/// faults it has: storms of one kind find what a bit of everything hides.
///
///   loss         lose_connection: what was sent never arrives, and the sender
///                sees no error. (TCP sends lost packets again: of less loss
///                than that, delay is all that is seen.) cut_*, lose_node
///   delay        slow_network, beside the random delay that each message has
///   reordering   between connections: those between different processes at
///                any time, an old one's late words behind a new one's first
///                by lose_connection (network_counts::overtaken)
///   partition    cut_pair, cut_one_way, cut_off, lose_node
///   death        kill_*, crash_replica, send_poison, lose_node
///   freeze       freeze_*, stop_host, hang_engine
///   slow disk    slow_disk, full_disk
///   clock jumps  jump_wall_clocks, in every run; steady clocks differ in rate
///                and start, and leap or stand still with their host: stop_host
class faults {
public:
  faults(cluster&, traffic&);

  /// One fault of a kind that this run has. Those that last end by themselves.
  void strike();
  /// Sets wall clocks wrong, by up to an hour each time, until `end`. Drawn by
  /// itself: nothing else may differ by it.
  void jump_wall_clocks(std::uint64_t seed, instant end);
  /// Everything that lasts ends now: ways are free, lost connections are
  /// noticed, the disk works, processes go on, nodes are started again. Engines
  /// that hang stay so.
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
  void stop_host();
  void send_poison();
  // The network.
  void cut_pair();
  void cut_one_way();
  void lose_node();
  void cut_off();
  void lose_connection();
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
  void jump_again(instant end);
  void freeze(process_id, nanoseconds time);
  nanoseconds short_or_long();

  cluster& cluster_;
  traffic& traffic_;
  std::vector<kind> kinds_;
  /// What undoes the lasting faults, by number.
  std::map<std::uint64_t, world::action> open_;
  std::uint64_t last_ = 0;
  std::mt19937_64 wall_random_;
};

} // namespace troupe::sim
