#pragma once

#include "actors/protocol/cluster_messages.hpp"

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <variant>
#include <vector>

namespace troupe::node_agent {

using clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

struct supervision_limits {
  /// In which `replica_spec::restarts_max` restarts of a replica that had been
  /// ready are allowed; one more and it has failed. Starts that never got ready
  /// are bounded by `replica_spec::start_retries`.
  milliseconds restart_window{60'000};
  /// Pause before the first, second, ... restart within the window; the last
  /// one for all further ones. Never more than
  /// `replica_spec::restart_pause_max_ms`.
  std::vector<milliseconds> back_off{milliseconds{0}, milliseconds{500},
                                     milliseconds{1000}, milliseconds{2000},
                                     milliseconds{4000}};
  /// A replica that was ready for so long is started again without a pause.
  milliseconds settled{10'000};
  /// From the start of the process to its first word.
  milliseconds register_max{30'000};
  /// From SIGTERM to SIGKILL.
  milliseconds terminate_max{1000};
  /// Ticks and reports that are so far apart mean that this process, or the
  /// whole machine, stood still: the silence of replicas meanwhile says nothing
  /// of them.
  milliseconds standstill{1000};
};

// What the shell does for the supervisor, in order. Processes are known by the
// incarnation of their start.
struct spawn_process {
  std::uint64_t incarnation = 0;
  protocol::replica_spec spec;
};
struct signal_process {
  std::uint64_t incarnation = 0;
  int signal = 0;
};
/// To the replica's actor.
struct drain_replica {
  std::uint64_t incarnation = 0;
  milliseconds grace{};
};
/// To the replica's actor: `tune`. One that is not connected gets it when it
/// registers.
struct tune_replica {
  std::uint64_t incarnation = 0;
  protocol::replica_spec spec;
};
/// To the controller.
struct send_report {
  protocol::replica_report report;
};
/// No replica is left; whoever asked for `drain` gets an answer.
struct all_stopped {};
using command = std::variant<spawn_process, signal_process, drain_replica,
                             tune_replica, send_report, all_stopped>;
using commands = std::vector<command>;

/// How a process ended.
struct process_end {
  int exit_code = 0;       ///< if it ended by itself
  int signal = 0;          ///< that killed it; 0 = none
  std::string not_spawned; ///< why there never was one; empty = there was

  /// "killed by SIGKILL", "exited with status 1", ...
  std::string to_string() const;
};

/// Keeps the replica processes of a node running: the node agent without
/// processes, messages and a clock. A replica that ends, stalls or never
/// registers is started again under a new incarnation, within its budget
/// (`replica_spec`); but for one that says that another start would fail as
/// well, unless it was ready before: what it was ready with may come back. What
/// comes from older incarnations is ignored.
class supervisor {
public:
  /// `seed` makes the incarnations: random, so that they are never met again.
  supervisor(supervision_limits limits, std::uint64_t seed);

  /// All replicas that should run. What is not in the list is drained and ended
  /// (graceful_shutdown_timeout_ms); what is new is started; what changed is
  /// tuned in place where protocol::same_process holds, else replaced. One that
  /// has failed is tried again only if its spec changed. Of two specs of one
  /// replica the first counts.
  commands assign(std::vector<protocol::replica_spec>, clock::time_point now);

  /// Ends all replicas within `time_max` and refuses to start others.
  commands drain(milliseconds time_max, clock::time_point now);

  commands spawned(std::uint64_t incarnation, std::int64_t pid);
  commands ended(std::uint64_t incarnation, const process_end&,
                 clock::time_point now);

  /// True if the report comes from a process that should be there.
  bool knows(const protocol::replica_report&) const;

  /// A first or later report. Unknown ones are ignored.
  commands report(protocol::replica_report, clock::time_point now);

  /// Kills the process: it cannot go on, for this reason.
  commands end(std::uint64_t incarnation, const std::string& why);

  /// Does what is due.
  commands tick(clock::time_point now);

  /// All replicas, those too that stop, wait for their restart or have failed.
  std::vector<protocol::running_replica> replicas() const;

  /// The spec of the process of this incarnation; null if there is none.
  const protocol::replica_spec* spec_of(std::uint64_t incarnation) const;

  bool empty() const {
    return replicas_.empty();
  }

private:
  enum class phase { waiting, running, stopping, failed };

  struct replica {
    protocol::replica_spec spec;
    std::optional<protocol::replica_spec> next; ///< after this one stopped
    phase now = phase::waiting;
    std::uint64_t incarnation = 0;   ///< 0 = no process
    protocol::replica_report last;   ///< as told to the controller
    bool was_ready = false;          ///< this process
    bool has_served = false;         ///< this one or one before
    bool is_hopeless = false;        ///< this process says so of the next ones
    clock::time_point ready_at{};    ///< if so
    std::uint32_t failed_starts = 0; ///< in a row
    std::deque<clock::time_point> restarts; ///< within the window
    std::string killed_because;             ///< by the agent, if so

    clock::time_point start_at{}; ///< while waiting
    clock::time_point heard_at{}; ///< last word, or the start
    clock::time_point step_at{};  ///< last sign of progress
    std::uint64_t step = 0;       ///< at that time
    bool heard = false;           ///< registered
    clock::time_point terminate_at = clock::time_point::max(); ///< stopping
    clock::time_point kill_at = clock::time_point::max();
  };

  using replica_map = std::map<std::string, replica>;

  replica* find(std::uint64_t incarnation);
  void keep(protocol::replica_spec, clock::time_point now, commands&);
  void change(replica&, protocol::replica_spec, clock::time_point now,
              commands&);
  void stop(replica_map::iterator, clock::time_point now, commands&);
  void launch(replica&, clock::time_point now, commands&);
  void begin_stop(replica&, milliseconds grace, milliseconds until_kill,
                  clock::time_point now, commands&);
  milliseconds pause_before_restart(const replica&,
                                    clock::time_point now) const;
  void restart_or_fail(replica&, const std::string& reason,
                       clock::time_point now, commands&);
  void note_progress(replica&, const protocol::replica_load&,
                     clock::time_point now, commands&);
  void forgive_standstill(clock::time_point now);
  void watch(replica&, clock::time_point now, commands&);
  void kill(replica&, std::string why, commands&);
  void tell(replica&, commands&);
  void forget(replica_map::iterator, clock::time_point now, commands&);

  supervision_limits limits_;
  std::mt19937_64 random_;
  bool draining_ = false;
  std::optional<clock::time_point> awake_at_; ///< last tick or report
  replica_map replicas_;                      ///< by id
};

} // namespace troupe::node_agent
