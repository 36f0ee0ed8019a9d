#pragma once

#include "engine/engine.hpp"
#include "engine/engine_core.hpp"
#include "engine/ops/backend.hpp"
#include "engine/ops/communicator.hpp"
#include "engine/pooling_core.hpp"
#include "engine/rank_threads.hpp"

#include <memory>

namespace troupe::engine {

/// A model that is ready to run, and all that the engine has to know of it.
struct loaded_model {
  /// The other ranks, if they are threads; they end after the rest.
  std::unique_ptr<rank_threads> others;
  text::model_card card;
  description about;
  // Both outlive the runners, and may be null.
  std::unique_ptr<ops::backend> backend;
  std::unique_ptr<ops::communicator> ranks;
  // Of a model that draws tokens.
  engine_core::config config;
  std::unique_ptr<model_runner> runner;
  // Of one that does not.
  pooling_core::config pooling;
  std::unique_ptr<pooling_runner> pooler; ///< null: it draws tokens
};

/// The core with its thread and its inbox. The inbox holds checked requests
/// only: faults are found on the caller's thread, and what is beyond
/// max_num_seqs + max_waiting choices is refused there.
std::unique_ptr<engine> make_engine(loaded_model);

} // namespace troupe::engine
