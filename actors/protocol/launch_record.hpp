#pragma once

#include "actors/protocol/cluster_messages.hpp"

#include <cstdint>
#include <string>

namespace troupe::protocol {

/// The file descriptor of a replica process from which it reads its launch
/// record. It stays open until the node agent's process ends, however that
/// happens: end of file there is the replica's order to die.
inline constexpr int lifeline_fd = 3;

/// What a node agent tells a replica process that it starts: one record behind
/// its length (u32, little-endian) on the lifeline.
struct launch_record {
  replica_spec spec;
  std::uint64_t incarnation = 0; ///< of this start; reports carry it
  endpoint agent;                ///< where to register
  std::string listen_address;    ///< where to listen; numeric
  std::string certificate;       ///< paths of its credentials
  std::string key;
  std::string authority;
  std::string log_level; ///< spdlog's name; empty = "info"
  bool log_json = false;
  /// File of the step journal (actors/runtime/step_journal.hpp); empty = none.
  std::string journal;
  /// The first of the replica's ranks that the process has; that of rank 0 is
  /// the replica to everybody else.
  std::uint32_t rank = 0;
  std::string gpus; ///< for CUDA_VISIBLE_DEVICES; empty = it gets none

  bool operator==(const launch_record&) const = default;
};

codec::bytes encode(const launch_record&);
result<launch_record> decode_launch_record(codec::bytes_view);

} // namespace troupe::protocol
