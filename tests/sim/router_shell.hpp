#pragma once

#include "router/request_table.hpp"
#include "tests/sim/ledger.hpp"
#include "tests/sim/network.hpp"
#include "tests/sim/process.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>

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

/// The simulated counterpart of router_actor.cpp around a request_table.
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

  // From the node agent.
  void take_table(const codec::bytes&);
  void take_death(const codec::bytes&);

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

private:
  struct session {
    std::optional<link_id> peer; ///< empty while connecting
    std::uint64_t number = 0;    ///< answers to older ones are dropped
    bool attached = false;
  };

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
  std::uint64_t last_session_ = 0;
  std::uint64_t table_version_ = 0;
  std::optional<local_time> armed_;
};

} // namespace troupe::sim
