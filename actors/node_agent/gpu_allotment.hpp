#pragma once

#include "actors/protocol/gpu_room.hpp"
#include "engine/codec/error.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace troupe::node_agent {

/// Which replica has which of the node's GPUs: a part of one, or several whole
/// ones. The head says which; the node sees that nobody has what another one
/// still has. Replicas are known by the incarnation of their start.
class gpu_allotment {
public:
  gpu_allotment() = default;

  /// `names` as CUDA_VISIBLE_DEVICES has them.
  explicit gpu_allotment(std::vector<std::string> names);

  /// So much of them (`replica_spec::gpus`), of the GPUs with these numbers:
  /// "2", "0,1", "" for nothing. Errors: one of them has not so much left; none
  /// is named.
  result<std::string> take(std::uint64_t incarnation, double amount,
                           const protocol::gpu_numbers& which);

  void give_back(std::uint64_t incarnation);

  /// What `take` gave, one by one.
  std::vector<std::string> names_of(std::uint64_t incarnation) const;

private:
  struct share {
    double amount = 0;
    protocol::gpu_numbers which;
  };

  std::vector<std::string> names_; ///< by number
  protocol::gpu_room room_;
  std::map<std::uint64_t, share> taken_;
};

} // namespace troupe::node_agent
