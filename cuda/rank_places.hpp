#pragma once

#include "engine/ops/cuda_module.hpp"

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace troupe::cuda {

/// What a rank's host talks to the others' through.
inline std::unique_ptr<ops::communicator> hosts_of(ops::cuda_options& how) {
  return how.hosts ? std::move(how.hosts)
                   : ops::make_thread_communicator(how.group, how.rank_here);
}

/// Where the GPU of each rank is, in their order: equal ones share one. A
/// process is a node's, so that numbers of GPUs of two are two. All ranks call
/// it; each hears of the first that has no GPU, and why.
inline result<std::vector<std::string>>
tell_places(ops::communicator& hosts, const ops::cuda_options& how,
            const result<std::string>& own) {
  const auto process = std::to_string(hosts.rank() - how.rank_here);
  auto said = hosts.tell_all(own ? "+" + process + "/" + *own
                                 : "-" + own.error().message);
  for (std::size_t rank = 0; rank < said.size(); ++rank)
    if (said[rank].front() == '-')
      return error{errc::unavailable, "rank " + std::to_string(rank) + ": " +
                                          said[rank].substr(1)};
  return said;
}

} // namespace troupe::cuda
