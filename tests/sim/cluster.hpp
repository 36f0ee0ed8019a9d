#pragma once

#include "tests/sim/ledger.hpp"
#include "tests/sim/network.hpp"
#include "tests/sim/node_process.hpp"
#include "tests/sim/process.hpp"
#include "tests/sim/provider.hpp"
#include "tests/sim/store.hpp"
#include "tests/sim/unsteady_reports.hpp"
#include "tests/sim/world.hpp"

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace troupe::sim {

/// What may go wrong with replicas that start.
struct start_faults {
  double cannot_spawn = 0; ///< shares of all starts
  double cannot_load = 0;
};

/// The nodes of a run with what lies between and below them. Node 0 is the
/// head; behind the first ones come those that were brought.
class cluster {
public:
  explicit cluster(sim::world&);

  sim::world& world() {
    return world_;
  }
  sim::network& network() {
    return network_;
  }
  sim::disk& disk() {
    return disk_;
  }
  const sim::disk& disk() const {
    return disk_;
  }
  sim::ledger& ledger() {
    return ledger_;
  }
  process_table& processes() {
    return processes_;
  }

  std::size_t size() const {
    return places_.size();
  }
  host_id host_of(std::size_t node) const {
    return places_[node].host;
  }
  std::uint32_t cpus() const; ///< that there are, or can be
  /// It was brought, and is not started again.
  bool is_brought(std::size_t node) const {
    return node >= own_;
  }
  /// All but those that were brought and are gone.
  std::vector<std::size_t> members() const;
  /// Null: nobody brings nodes.
  simulated_provider* provider() const {
    return provider_.get();
  }
  /// Starts the node's process anew, in a new incarnation.
  void start(std::size_t node);
  /// Its process if it lives; else null.
  node_process* node(std::size_t) const;
  /// The head's controller if it lives; else null.
  controller_shell* controller() const;
  std::vector<replica_process*> replicas() const; ///< that live

  /// The node's host stands still, with all its processes and those that are
  /// started there. False: it does already.
  bool stop_host(std::size_t node);
  /// It goes on. Its steady clock shows all the time that has passed and
  /// `leap` more; or, `unaware`, none.
  void resume_host(std::size_t node, nanoseconds leap, bool unaware);
  /// Sets the wall clock of the node's host wrong by so much more.
  void jump_wall_clock(std::size_t node, nanoseconds by) {
    places_[node].clock.wall_at_start += by;
  }

  start_faults starts;
  /// The protocol version that replicas speak.
  std::uint32_t replica_version =
      protocol::protocol_version; ///< set by the faults

private:
  struct place {
    protocol::node_joined self;
    host_id host = 0;
    host_clock clock;
    std::string arithmetic_class;
    process_id process = 0;
    std::optional<local_time> stopped_at; ///< its host stands still since then
  };

  place make_place(std::string name, std::uint32_t cpus);
  process_id bring(const std::string& name, std::uint32_t cpus);
  std::vector<process*> processes_on(host_id) const;
  std::optional<engine_habits> habits(const std::string& arithmetic_class);

  sim::world& world_;
  process_table processes_;
  sim::network network_;
  sim::disk disk_;
  sim::ledger ledger_;
  unsteady_reports reports_;
  std::deque<place> places_; // clocks stay where they are
  std::size_t own_ = 0;      // that were not brought
  std::unique_ptr<simulated_provider> provider_;
  null_engine_options engine_;
};

} // namespace troupe::sim
