#pragma once

#include "actors/controller/deployment.hpp"
#include "tests/sim/cluster.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace troupe::sim {

/// The application that a model of this name belongs to.
std::string application_of(const std::string& model);

/// The operator: changes what is wanted, one change after the other, and
/// remembers which were acknowledged. Those are never lost, and none comes back
/// behind a later one (I5).
class deployer {
public:
  explicit deployer(cluster&);

  /// Asks for the next change, of a random kind, if the last one is settled
  /// and there is a head to ask.
  void change();
  /// Asks until the newest state, with all models, is acknowledged. False: not
  /// yet.
  bool finish();
  /// After every start of a head, and at the end.
  void check();

  const std::vector<std::string>& models() const {
    return models_;
  }
  /// Whether a router may have heard since then that the model is gone.
  bool was_deleted(const std::string& model, instant since) const;
  std::size_t acknowledged() const {
    return acknowledged_;
  }

private:
  struct asked {
    controller::deployment wanted;
    bool answered = false;
  };

  controller::model_deployment first_state(const std::string& model);
  void scale_or_fix(controller::model_deployment&);
  void alter(controller::deployment&);
  void ask(controller::deployment);
  std::uint32_t room_for(const controller::deployment&, std::size_t model);
  void check_targets();

  cluster& cluster_;
  std::vector<std::string> models_;
  controller::deployment next_; ///< what was asked for last
  std::vector<asked> history_;
  std::size_t acknowledged_ = 0; ///< place + 1 of the newest that was
  std::size_t seen_ = 0;         ///< place + 1 of the newest that was wanted
  process_id asked_head_ = 0;
  std::map<std::string, std::vector<std::pair<instant, instant>>> gone_;
  std::uint32_t changes_ = 0;
};

} // namespace troupe::sim
