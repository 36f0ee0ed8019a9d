#pragma once

#include "tests/sim/client.hpp"
#include "tests/sim/cluster.hpp"
#include "tests/sim/deployer.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace troupe::sim {

/// All clients of a run: requests at random times to random living routers,
/// some of which their clients cancel, few of which are poison. Now and then
/// nobody asks for a model for a while.
class traffic {
public:
  traffic(cluster&, const deployer&);

  /// One more client; none if no router knows a model yet.
  void submit();
  /// Poison, or the same poison once more.
  void submit_poison();
  /// One client of each model, at any router. Nothing goes wrong any more: all
  /// are to be answered.
  void ask_at_rest();

  /// A client that still waits for something, if there is one.
  const client* waiting() const;
  outcome_counts close() const;

private:
  client_request make_request(const std::string& model);
  bool is_quiet(const std::string& model);
  void send(client_request);
  client* send(client_request, node_process& router);

  cluster& cluster_;
  const deployer& deployer_;
  std::vector<std::unique_ptr<client>> clients_;
  std::optional<client_request> poison_;
  int poisonings_ = 0;
  std::map<std::string, instant> quiet_until_; ///< by model
  std::uint64_t last_number_ = 0;
};

} // namespace troupe::sim
