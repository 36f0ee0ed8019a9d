#pragma once

#include "router/request_table.hpp"
#include "router/wake_queue.hpp"
#include "tests/sim/ledger.hpp"
#include "tests/sim/network.hpp"
#include "tests/sim/process.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace troupe::sim {

/// Takes the news of one client request, as a router gives them.
class answer_sink {
public:
  virtual ~answer_sink() = default;
  virtual void on_tokens(std::uint32_t choice,
                         const protocol::choice_tokens&) = 0;
  virtual void on_failed(const error&) = 0;
  virtual void on_released() = 0;
};

/// Where a node finds the replicas that connect to it by themselves
/// (runtime::peer_directory).
class known_peers {
public:
  virtual ~known_peers() = default;
  virtual bool expects(std::uint64_t incarnation) const = 0;
  virtual std::optional<link_id> find(std::uint64_t incarnation) const = 0;
};

/// The simulated counterpart of router_actor.cpp around a request_table, and of
/// what edge.cpp does for models that sleep.
class router_shell {
public:
  router_shell(process& self, surroundings, ledger&, const known_peers&,
               std::uint64_t incarnation);

  // From clients.
  bool knows(const std::string& model) const {
    return table_version_ != 0 && models_.contains(model);
  }
  void submit(router::submission, answer_sink*);
  void cancel_request(std::uint64_t request);
  void cancel_choice(std::uint64_t request, std::uint32_t choice);

  // From and to the node agent.
  using load_sink = std::function<void(const codec::bytes&)>;
  void tell_load(load_sink); ///< from now on, encoded router_reports
  void take_table(const codec::bytes&);
  void take_death(const codec::bytes&);
  void take_others(const codec::bytes&);

  // From replicas.
  void take_tokens(const codec::bytes&);
  void on_down(link_id);

  // For the checks.
  const router::request_table& table() const {
    return table_;
  }
  std::uint64_t incarnation() const {
    return incarnation_;
  }
  std::uint64_t table_version() const {
    return table_version_;
  }
  /// Replicas with an open session, by incarnation.
  std::vector<std::uint64_t> attached_to() const;
  /// Requests that wait for a model to wake.
  std::size_t sleeping() const {
    return sleeping_.size();
  }

private:
  using model_key = router::wake_queue::model_key;

  struct sleeper {
    router::submission what;
    std::set<std::uint32_t> cancelled; ///< choices
  };

  struct session {
    std::optional<link_id> peer; ///< empty while connecting
    std::uint64_t number = 0;    ///< answers to older ones are dropped
    bool attached = false;
  };

  void find(router::submission);
  void wait_to_wake(router::submission);
  void go_on(std::uint64_t request);
  void fail_sleeper(std::uint64_t request, const error&);
  void release(std::uint64_t request);
  void wake(const protocol::routing_table&);
  void say_load();

  bool current(std::uint64_t incarnation, std::uint64_t number) const;
  void connect(const protocol::endpoint&, local_time deadline,
               std::function<void(std::optional<link_id>)>);
  void connected(const protocol::endpoint&, std::uint64_t number,
                 std::optional<link_id>);
  void attach_failed(std::uint64_t incarnation);
  void run(router::command_list);
  void arm();

  void carry_out(const router::command::attach&);
  void carry_out(const router::command::detach&);
  void carry_out(const router::command::generate&);
  void carry_out(const router::command::cancel&);
  void carry_out(const router::command::deliver&);
  void carry_out(const router::command::fail&);
  void carry_out(const router::command::release&);
  void carry_out(const router::command::moved&);
  void carry_out(const router::command::suspected&);
  void carry_out(const router::command::convicted&);
  void carry_out(const router::command::follow_blocks&);
  void carry_out(const router::command::measured_hits&);

  process& self_;
  surroundings around_;
  ledger& ledger_;
  const known_peers& peers_;
  std::uint64_t incarnation_;
  router::request_table table_;
  std::map<std::uint64_t, session> sessions_; // by incarnation
  std::map<std::uint64_t, answer_sink*> sinks_;
  std::map<std::uint64_t, std::string> request_ids_;
  std::set<std::string> models_;
  router::wake_queue sleepers_;
  std::map<std::uint64_t, sleeper> sleeping_; // by request
  std::set<model_key> asleep_;                // by the newest table
  load_sink load_sink_;
  protocol::router_report told_;
  std::optional<local_time> told_at_;
  std::uint64_t last_session_ = 0;
  std::uint64_t table_version_ = 0;
  std::optional<local_time> armed_;
};

} // namespace troupe::sim
