#pragma once

#include "engine/model/model_config.hpp"
#include "engine/model/runner.hpp"
#include "engine/model/weight_loader.hpp"
#include "engine/ops/backend.hpp"
#include "engine/weights/checkpoint.hpp"

#include <cstdint>
#include <memory>

namespace troupe::model {

/// The bounds of one step.
struct encoder_limits {
  std::int32_t rows_max = 0;      ///< tokens of all sequences
  std::int32_t sequences_max = 0; ///< at most as many as rows
};

/// What an encoder keeps.
struct encoder_bytes {
  std::uint64_t weights = 0;
  /// Activations, keys and values of one step: nothing is kept from step to
  /// step.
  std::uint64_t workspace = 0;
};

/// The sizes of an encoder that `encoder::make` would make, when `backend` is
/// one that sizes (ops/cpu/sizing_backend.hpp): the weights are not read.
result<encoder_bytes> encoder_size(const weights::checkpoint& file,
                                   const model_config& config,
                                   ops::backend& backend,
                                   const encoder_limits& limits);

/// Runs any encoder of the table (architecture.hpp), and any decoder that is to
/// be pooled like one, on any backend: embeddings, layers, then pooling
/// (`model_config::pooling`). A sequence's vector depends
/// on that sequence alone, bit for bit. The sequences of a step stay within the
/// limits and hold ids below `vocabulary()`, no more of them than positions:
/// who calls checks; here it is asserted.
class encoder final : public engine::pooling_runner {
public:
  /// Loads the weights of `file` (which may go away afterwards) into `backend`
  /// (which must outlive the encoder). Fails if the file changed meanwhile.
  static result<std::unique_ptr<encoder>> make(const weights::checkpoint& file,
                                               const model_config& config,
                                               ops::backend& backend,
                                               const encoder_limits& limits,
                                               const load_progress& progress);

  ~encoder() override;

  std::span<const float>
  run(std::span<const engine::whole_sequence> sequences) override;
  std::int32_t vocabulary() const override;
  std::int32_t size() const override;
  std::uint64_t weight_bytes_read() const override;

  /// Bytes of all weights as the backend keeps them.
  std::uint64_t weight_bytes() const;

private:
  friend result<encoder_bytes> encoder_size(const weights::checkpoint&,
                                            const model_config&, ops::backend&,
                                            const encoder_limits&);

  encoder();
  struct state;
  std::unique_ptr<state> state_;
};

} // namespace troupe::model
