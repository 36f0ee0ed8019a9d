#pragma once

#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/request_record.hpp"
#include "actors/protocol/token_batch.hpp"
#include "engine/engine.hpp"
#include "tests/sim/process.hpp"
#include "tests/sim/world.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace troupe::sim {

/// What truly happened, whatever the processes believe: which choice was where,
/// which computation ended a replica, which router was told. The checks compare
/// with it.
class ledger {
public:
  explicit ledger(world& w) : world_(w) {
    // nop
  }

  /// A router sends a choice to a replica: from now on only this sending's
  /// tokens are to be taken.
  void sent(std::uint64_t router, std::uint64_t replica,
            const protocol::request_record&);
  /// A router hands a choice's news on as what this replica said (I4).
  void delivered(std::uint64_t router, const std::string& request_id,
                 std::uint32_t choice, std::uint64_t replica,
                 const protocol::choice_tokens&);

  /// A computation has ended a replica: of token `at` of `killer`, if it is
  /// anyone's.
  void crashed(std::uint64_t replica, const engine::owner* killer,
               std::size_t at, const std::vector<engine::owner>& step);
  /// A router is told of a death; a router gives a session up. `at`: by its own
  /// clock.
  void told(std::uint64_t router, const protocol::death_notice&, local_time at);
  void lost(std::uint64_t router, std::uint64_t replica, local_time at);

  /// A host's clock has leapt: what waits there has waited longer than is
  /// true.
  void leapt(nanoseconds by) {
    leapt_ += by;
  }
  nanoseconds leapt() const {
    return leapt_;
  }

  /// Sendings of this choice.
  std::size_t sendings(const std::string& request_id,
                       std::uint32_t choice) const;
  /// Deaths by their own fault in whose step a choice of this request was.
  std::size_t crashes_beside(const std::string& request_id) const;
  /// Such deaths in a step of nothing but this request.
  std::size_t crashes_alone(const std::string& request_id) const;

  /// A router that was told that a prompt ended a replica sends it to be tried
  /// alone from then on, and loses no more than one replica of such a trial
  /// (F26); and one before, if the prompt does it later than the trial lasts.
  /// Not counted: what the router was not told of in time, and deaths that took
  /// more tokens with them than a trial covers.
  void check_poison() const;

private:
  struct sending {
    std::uint64_t replica = 0;
    std::uint64_t record = 0;
    std::size_t count = 0;
  };
  struct sent_record {
    std::string request_id;
    std::uint32_t choice = 0;
    std::string prompt;     ///< what tells poisons apart
    std::size_t tokens = 0; ///< that it had
    instant at{0};
  };
  struct crash {
    std::uint64_t replica = 0;
    sent_record by;
    std::size_t at = 0; ///< token
    /// The router has so many of its tokens when it sends it again.
    std::optional<std::size_t> received = {};
  };
  struct told_at {
    instant at{0};
    local_time local;
  };
  using sent_choice = std::pair<std::string, std::uint32_t>;
  using router_replica = std::pair<std::uint64_t, std::uint64_t>;

  bool told_in_time(std::uint64_t router, std::uint64_t replica) const;
  bool counts(std::uint64_t router, const crash&) const;

  world& world_;
  std::map<sent_choice, sending> last_;
  std::map<sent_choice, std::size_t> received_; ///< tokens
  std::map<std::pair<std::uint64_t, std::uint64_t>, sent_record> records_;
  std::map<std::uint64_t, std::vector<crash>> crashes_; ///< by router
  std::map<std::string, std::size_t> beside_;
  std::map<std::string, std::size_t> alone_;
  std::map<router_replica, told_at> told_;
  std::map<router_replica, local_time> lost_;
  nanoseconds leapt_{0};
};

} // namespace troupe::sim
