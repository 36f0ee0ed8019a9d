#pragma once

#include "engine/codec/error.hpp"
#include "engine/ops/communicator.hpp"
#include "engine/ops/rank_meeting.hpp"
#include "engine/ops/thread_group.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

namespace troupe::ops {

/// Ranks within one process, for tests.
std::unique_ptr<rank_meeting> make_local_meeting();

struct gloo_options {
  std::int32_t rank = 0;
  std::int32_t size = 1;
  std::string address = "127.0.0.1"; ///< numeric; where this rank listens
  /// A rank that is not heard for so long, where an answer is due, is lost.
  std::chrono::milliseconds timeout{60'000};
  /// The ranks that are threads of this process, if there are several of them,
  /// or if they wait for something else than each other (a GPU): it ends when
  /// one of them is gone, or a process of others, and their waits with it.
  std::shared_ptr<thread_group> group = nullptr;
  std::int32_t rank_here = 0; ///< of the group's
};

/// Ranks in processes of their own, over TCP (Gloo), without encryption: what
/// listens takes who knows the address. Returns when all are connected. A sum
/// is made by each rank from what all have, so its order is that of the ranks.
/// Several threads of a process may be ranks, each of which connects.
result<std::unique_ptr<communicator>>
connect_ranks(const gloo_options&, std::shared_ptr<rank_meeting>);

} // namespace troupe::ops
