#pragma once

#include "engine/engine.hpp"

#include <cstdint>
#include <optional>

namespace troupe::engine {

/// An engine without its thread and its files: choices in, steps out. Called by
/// one thread, but for what says otherwise.
class core {
public:
  virtual ~core() = default;

  /// Takes a choice in, or refuses it with an output of the next step.
  virtual void submit(request) = 0;

  /// Ends a choice with an output of the next step; what it held is free at
  /// once.
  virtual void cancel(std::uint64_t id) = 0;

  /// What is wrong with a request, if anything. Any thread.
  virtual std::optional<error> find_fault(const request&) const = 0;

  /// Reports a choice that never got in.
  virtual void refuse(std::uint64_t id, error why) = 0;

  /// The refusal of a choice when `most_living` are there. Any thread.
  virtual error queue_is_full() const = 0;

  /// Choices that were taken in and have not ended.
  virtual std::uint32_t living() const = 0;

  /// Any thread.
  virtual std::uint32_t most_living() const = 0;

  /// One forward pass over what is to be done, if anything is, and all outputs
  /// since the last step. `watch` (none if null) hears of the pass.
  virtual step_result step(step_watch* watch) = 0;

  virtual stats now() const = 0;
};

} // namespace troupe::engine
