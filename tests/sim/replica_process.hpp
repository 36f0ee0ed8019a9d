#pragma once

#include "actors/protocol/launch_record.hpp"
#include "actors/replica/session_table.hpp"
#include "tests/sim/ledger.hpp"
#include "tests/sim/network.hpp"
#include "tests/sim/null_engine.hpp"
#include "tests/sim/process.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

namespace troupe::sim {

/// How a replica's engine behaves; by the run.
struct engine_habits {
  null_engine_options engine;
  nanoseconds load_time = milliseconds{200};
  bool loads = true; ///< false: it cannot be loaded
  std::uint32_t version = protocol::protocol_version; ///< that it speaks
  std::string arithmetic_class;
};

/// A replica's process: the counterpart of replica.cpp and replica_process.cpp
/// around a session_table and the null engine.
class replica_process : public process {
public:
  replica_process(surroundings, host_id, const host_clock&, process_id parent,
                  ledger&, const codec::bytes& launch, engine_habits);
  /// Once it has its place in the table.
  void start();

  void on_message(link_id, message&) override;
  void on_down(link_id) override;

  // Faults.
  void hang() {
    if (engine_)
      engine_->hang();
  }
  /// Its own fault, with nobody in particular to blame.
  void crash(int signal);

  /// What the step journal says: it outlives the process.
  const std::vector<engine::owner>& journal() const {
    return journal_;
  }

  // For the checks.
  const std::string& replica() const {
    return report_.replica;
  }
  std::uint64_t incarnation() const {
    return report_.incarnation;
  }
  const protocol::replica_spec& spec() const {
    return spec_;
  }
  bool ready() const {
    return report_.phase == protocol::replica_phase::ready;
  }
  bool leaving() const {
    return report_.phase == protocol::replica_phase::draining;
  }
  const replica::session_table& sessions() const {
    return table_;
  }
  std::optional<engine::stats> engine_now() const;

private:
  // Routers.
  void attach(link_id, const message&);
  void generate(link_id, const message&);
  void drain(nanoseconds);
  void end_if_drained();
  void leave();
  void tune(const codec::bytes&);

  // What the session table says.
  void run(replica::session_commands);
  void obey(replica::submit_choice&);
  void obey(const replica::cancel_choice&);
  void obey(const replica::send_tokens&);

  // The engine.
  void loaded();
  void look();
  void crashed(engine::owner, std::size_t at);

  // The node agent.
  void reach_agent();
  void introduce();
  void send_report();
  void read_load();
  void tick();
  void finish(int status);

  ledger& ledger_;
  engine_habits habits_;
  protocol::replica_spec spec_;
  protocol::endpoint agent_endpoint_;
  replica::session_table table_;
  std::unique_ptr<null_engine> engine_;
  std::vector<engine::step_result> steps_; // not yet looked at
  std::vector<engine::owner> journal_;
  std::map<std::uint64_t, link_id> sinks_; // by router
  std::optional<link_id> agent_;
  protocol::replica_report report_;
  protocol::replica_report last_sent_;
  local_time report_at_{};
  local_time retry_at_ = local_time::max();
  local_time drain_until_ = local_time::max();
  local_time fail_at_ = local_time::max();
  bool is_leaving_ = false;
};

} // namespace troupe::sim
