#pragma once

#include "actors/protocol/cluster_messages.hpp"
#include "engine/engine.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace troupe::replica {

/// An engine ready to start, with the encoding of its model card.
struct engine_with_card {
  std::unique_ptr<engine::engine> engine;
  std::string card;
};

using engine_loader = std::function<result<engine_with_card>(
    const engine::options&, const engine::load_progress&)>;

/// What a replica of this kind asks of its engine.
engine::options engine_options(const protocol::replica_spec&);

/// What a test may want otherwise in a replica.
struct replica_overrides {
  /// The protocol version that it speaks: it writes and reads records as one of
  /// that version does.
  std::uint32_t version = protocol::protocol_version;
};

/// The life of a replica process: reads its launch record from `lifeline`,
/// loads its engine, serves, and returns the process's exit status
/// (replica.hpp) when drained or refused. If the lifeline ends first, because
/// the node agent's process is gone, the process ends then and there.
/// To be called once, by the main thread, before there are others.
int run_replica(int lifeline, const engine_loader&,
                replica_overrides overrides = {});

} // namespace troupe::replica
