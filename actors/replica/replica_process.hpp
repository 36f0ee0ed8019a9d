#pragma once

#include "engine/engine.hpp"

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

/// The life of a replica process: reads its launch record from `lifeline`,
/// loads its engine, serves, and returns the process's exit status
/// (replica.hpp) when drained or refused. If the lifeline ends first, because
/// the node agent's process is gone, the process ends then and there.
/// To be called once, by the main thread, before there are others.
int run_replica(int lifeline, const engine_loader&);

} // namespace troupe::replica
