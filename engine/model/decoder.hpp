#pragma once

#include "engine/model/model_config.hpp"
#include "engine/model/runner.hpp"
#include "engine/model/weight_loader.hpp"
#include "engine/ops/backend.hpp"
#include "engine/ops/communicator.hpp"
#include "engine/weights/checkpoint.hpp"

#include <cstdint>
#include <memory>

namespace troupe::model {

/// The bounds of one step and of the store of keys and values.
struct decoder_limits {
  std::int32_t rows_max = 0;       ///< rows of one step
  std::int32_t logit_rows_max = 0; ///< of them, rows whose logits are wanted
  std::int32_t kv_block_tokens = 0;
  std::int32_t kv_blocks = 0;
  /// Sequences of one step; 0: as many as rows.
  std::int32_t sequences_max = 0;
  /// Of a sequence; 0: as many as the store has room for.
  std::int32_t positions_max = 0;
};

/// Bytes of one KV block of this model in this backend, to turn a budget of
/// memory into a number of blocks; of one of `ranks`, as for `decoder::make`.
result<std::uint64_t> kv_block_bytes(const model_config& config,
                                     ops::backend& backend,
                                     std::int32_t block_tokens,
                                     ops::communicator* ranks = nullptr);

/// What a decoder keeps.
struct decoder_bytes {
  std::uint64_t weights = 0;
  std::uint64_t kv_cache = 0;
  /// In the backend's memory, of one step; a spare block among it.
  std::uint64_t workspace = 0;
  std::uint64_t host = 0; ///< logits, in the host's memory
};

/// The sizes of a decoder that `decoder::make` would make, when `backend` and
/// `ranks` are ones that size (ops/cpu/sizing_backend.hpp,
/// ops/communicator.hpp): the weights are not read.
result<decoder_bytes> decoder_size(const weights::checkpoint& file,
                                   const model_config& config,
                                   ops::backend& backend,
                                   const decoder_limits& limits,
                                   ops::communicator* ranks = nullptr);

/// How many rows a step gets that a backend keeps (ops::backend::keeps_steps),
/// for `rows` of `most`: few numbers do for all.
std::int64_t padded_rows(std::int64_t rows, std::int64_t most);

/// Runs any family of the table (architecture.hpp) on any backend. Everything
/// that a step needs is allocated when it is made; a step allocates nothing
/// that grows. Each weight is read once per step.
///
/// Plans must keep within the limits and hold ids below `vocabulary()`,
/// positions from 0 and tables long enough for them: who plans checks; here it
/// is asserted.
class decoder final : public engine::model_runner {
public:
  /// Loads the weights of `file` (which may go away afterwards) into `backend`
  /// (which must outlive the decoder). Fails if the file changed meanwhile.
  /// With `ranks`, which outlive it too, it is one of several that hold the
  /// model together and are given the same plans (shard.hpp). The first of them
  /// gives the logits, `collect` of the others nothing.
  static result<std::unique_ptr<decoder>>
  make(const weights::checkpoint& file, const model_config& config,
       ops::backend& backend, const decoder_limits& limits,
       const load_progress& progress, ops::communicator* ranks = nullptr);

  ~decoder() override;

  void submit(const engine::step_plan& plan) override;
  std::span<const float> collect() override;
  bool has_roles() const override;
  bool draws() const override;
  bool runs_ahead() const override;
  void submit_drawn(const engine::step_plan& plan,
                    const ops::draw_plan& draws) override;
  std::span<const ops::drawn_row> collect_drawn() override;
  std::span<const float> logits_of(std::size_t logit_row) override;
  std::int32_t vocabulary() const override;
  std::uint64_t weight_bytes_read() const override;
  ops::step_gaps gaps() const override;

  /// Bytes of all weights as the backend keeps them, and of the KV pool.
  std::uint64_t weight_bytes() const;
  std::uint64_t kv_cache_bytes() const;

private:
  friend result<decoder_bytes> decoder_size(const weights::checkpoint&,
                                            const model_config&, ops::backend&,
                                            const decoder_limits&,
                                            ops::communicator*);

  decoder();
  struct state;
  std::unique_ptr<state> state_;
};

} // namespace troupe::model
