#pragma once

#include "engine/codec/error.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace troupe::node_agent {

/// Which replica has which of the node's GPUs: parts of one, or several whole
/// ones. Replicas are known by the incarnation of their start.
class gpu_allotment {
public:
  gpu_allotment() = default;

  /// `names` as CUDA_VISIBLE_DEVICES has them.
  explicit gpu_allotment(std::vector<std::string> names);

  /// So much of them, from 0 on: "2", "0,1", "" for nothing. A part is of the
  /// GPU that has the least room for it, so that whole ones stay whole; of a
  /// number above 1 the fraction is one more. Errors: none has so much left.
  result<std::string> take(std::uint64_t incarnation, double amount);

  void give_back(std::uint64_t incarnation);

  /// What `take` gave, one by one.
  std::vector<std::string> names_of(std::uint64_t incarnation) const;

private:
  /// GPUs are counted in so many parts, so that parts of one add up to it.
  static constexpr std::uint32_t parts = 10'000;

  struct gpu {
    std::string name;
    std::uint32_t left = parts;
  };

  struct share {
    std::size_t gpu = 0;
    std::uint32_t parts = 0;
  };

  result<std::string> take_part(std::uint64_t incarnation, std::uint32_t part);
  result<std::string> take_whole(std::uint64_t incarnation, std::size_t count);

  std::vector<gpu> gpus_;
  std::map<std::uint64_t, std::vector<share>> taken_;
};

} // namespace troupe::node_agent
