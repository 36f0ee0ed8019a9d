#pragma once

#include "actors/node_agent/supervisor.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace troupe::node_agent {

/// What is used now of the GPUs that a start has.
using gpu_look =
    std::function<std::vector<protocol::gpu_use>(std::uint64_t incarnation)>;

/// What this node has of replicas of other nodes (`replica_spec::part`),
/// without processes and a clock. Each start of such a replica is followed by
/// one start here, whose processes end by themselves when the replica's do; the
/// controller names the next one. Starts are known by incarnations of their
/// own.
class rank_parts {
public:
  explicit rank_parts(std::uint64_t seed);

  /// All parts that the node should have. What is not in the list ends with the
  /// replica, or is killed once the replica has had its time to drain.
  commands assign(std::vector<protocol::replica_spec>, clock::time_point now);

  /// Ends all within `time_max`.
  commands drain(milliseconds time_max, clock::time_point now);

  /// The processes of a start are gone.
  commands ended(std::uint64_t incarnation, const process_end&,
                 clock::time_point now);

  /// What GPUs of each start are used for, by its incarnation; told where it
  /// has changed.
  commands see_gpus(const gpu_look&);

  /// Does what is due.
  commands tick(clock::time_point now);

  std::vector<protocol::running_replica> parts() const;

  /// What runs under this incarnation; null if it is none of them.
  const protocol::replica_spec* spec_of(std::uint64_t incarnation) const;

  bool empty() const {
    return parts_.empty();
  }

private:
  struct part {
    protocol::replica_spec spec;    ///< as wanted
    protocol::replica_spec running; ///< of the processes, if there are any
    std::uint64_t incarnation = 0;  ///< 0 = no process
    std::uint64_t followed = 0;     ///< the last leader
    bool wanted = true;
    std::optional<clock::time_point> kill_at;
    protocol::replica_report last;
  };

  void follow(part&, commands&);
  void give_up(part&, milliseconds time_max, clock::time_point now);
  std::uint64_t number();

  std::mt19937_64 random_;
  bool draining_ = false;
  std::map<std::string, part> parts_; ///< by id
};

} // namespace troupe::node_agent
