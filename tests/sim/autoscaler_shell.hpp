#pragma once

#include "autoscaler/node_fleet.hpp"
#include "autoscaler/scaler.hpp"
#include "tests/sim/controller_shell.hpp"
#include "tests/sim/process.hpp"
#include "tests/sim/provider.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace troupe::sim {

/// Which reports are the newest of their source: what a machine that drops late
/// and doubled ones may go by, found out in another way than it does.
class newest_reports {
public:
  /// False: a newer one, or one of a later life, was heard.
  bool take(const std::string& source, std::uint64_t incarnation,
            std::uint64_t sequence);

private:
  struct life {
    std::uint64_t incarnation = 0;
    std::uint64_t sequence = 0;
    std::set<std::uint64_t> before; ///< incarnations
  };

  std::map<std::string, life> sources_;
};

/// The simulated counterpart of autoscaler.cpp, in the head's process. Beside
/// its scaler there is a second one, which hears no report that is late or
/// doubled: both must order the same (I8). What its machine for nodes tells to
/// end must be empty, or not be there (I9).
class autoscaler_shell : public autoscaler_sink {
public:
  /// `provider`: null = nobody brings nodes.
  autoscaler_shell(process& self, surroundings, controller_shell&,
                   simulated_provider* provider);

  // autoscaler_sink
  void know(const codec::bytes& models) override;
  void hear_router(const codec::bytes& report) override;
  void hear_replica(const codec::bytes& news) override;
  void know_nodes(const codec::bytes& view) override;

  /// Null until the store has been read.
  const autoscaler::fleet::machine* fleet() const {
    return nodes_ ? &*nodes_ : nullptr;
  }

private:
  struct serving {
    std::uint64_t incarnation = 0;
    std::uint64_t revision = 0; ///< of its model's scaling
  };

  void hear(const protocol::replica_load_news&);
  void tick();
  void set_timer();

  void begin_nodes();
  void met(const codec::bytes& record);
  void check_begin(const std::vector<protocol::asked_node>& stored,
                   const autoscaler::fleet::commands&);
  void check_end(const std::string& node);
  void node_ended(const std::string& node, const std::string& why);
  void look_at_nodes();
  void execute(const autoscaler::fleet::commands&);
  void carry_out(const autoscaler::fleet::store_nodes&);
  void carry_out(const autoscaler::fleet::ask_for&);
  void carry_out(const autoscaler::fleet::close_node&);
  void carry_out(const autoscaler::fleet::end_node&);
  void close(const std::string& node, bool closed, std::function<void(bool)>);
  void set_nodes_timer();

  process& self_;
  surroundings around_;
  controller_shell& controller_;
  autoscaler::scaler scaler_;
  autoscaler::scaler undisturbed_;
  newest_reports newest_;
  std::map<std::string, serving> serving_; // by replica
  bool is_ticking_ = false;

  simulated_provider* provider_;
  std::vector<node::living_node> living_; ///< what it found at its start
  std::uint64_t epoch_ = 0;
  std::optional<autoscaler::fleet::machine> nodes_;
  codec::bytes early_view_;
  std::vector<std::pair<std::string, std::string>> early_ends_;
  std::multiset<local_time> timers_; ///< looks at nodes on the way
  std::map<std::string, bool> seen_; ///< nodes; whether they are alive
  std::set<std::string> drained_;    ///< the controller has closed them
};

} // namespace troupe::sim
