#pragma once

#include "engine/model/model_config.hpp"
#include "engine/model/weight_loader.hpp"
#include "engine/ops/backend.hpp"
#include "engine/ops/communicator.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

namespace troupe::model {

/// The layers of a model: interprets the steps of its family's row
/// (architecture.hpp), layer after layer, over the slots of activations.
class layers {
public:
  /// All outlive it. `config` is the model as this rank sees it; without
  /// `ranks`, all of it.
  layers(const model_config& config, ops::backend& backend,
         ops::communicator* ranks = nullptr)
      : config_(config), backend_(backend), ranks_(ranks) {
    // nop
  }

  result<void> load(weight_loader& source);

  /// Makes the slots, for so many rows at most.
  void allocate(std::int32_t rows_max);

  /// Of all slots.
  std::int64_t floats() const;

  /// A slot's rows.
  float* at(slot which) {
    return slots_[static_cast<std::size_t>(which)]->data();
  }

  /// Runs all layers over the rows of slot::residual, in place. Keys and values
  /// go through `pool`; if that has one layer, all use it, one after the other:
  /// then they are the step's own. The first `prompts` rows are prompt
  /// positions.
  void run(const ops::batch_view& batch, std::int64_t prompts,
           ops::kv_pool& pool);

  /// Rows of a product; the first `prompts` are prompt positions.
  struct product_rows {
    std::int64_t prompts = 0;
    std::int64_t all = 0;
  };

  /// y = weight(x) with the steps that are joined; counts what is read.
  void multiply(const ops::weight& weight, const float* x, product_rows rows,
                const ops::joined_steps& with, float* y);

  std::uint64_t weight_bytes_read() const {
    return weight_bytes_read_;
  }

  /// Counts what was read without a call of `run`.
  void count_read(std::uint64_t bytes) {
    weight_bytes_read_ += bytes;
  }

private:
  /// A step of one layer with its weights in the backend's memory.
  struct loaded_step {
    const block_step* what = nullptr;
    std::int32_t layer = 0;
    std::unique_ptr<ops::weight> weight; ///< of a linear step
    /// Of a linear step whose rows are normed by the step before, which is done
    /// with it.
    const block_step* norm = nullptr;
    /// Of a linear step that has one; of a layer norm (zeros if it has none).
    std::unique_ptr<ops::buffer> bias;
    /// Of a linear step whose products are gated by the step that follows,
    /// which is done with it.
    const block_step* activation = nullptr;
    /// Of norms of heads that are followed by attention, which is done with
    /// them.
    const block_step* attention = nullptr;
    /// Of a norm, own or joined; one per part, in the order of its weights.
    std::vector<std::unique_ptr<ops::buffer>> norms;
    std::unique_ptr<ops::expert_weights> experts; ///< of such a step
  };

  result<void> load_step(weight_loader& source, std::int32_t layer,
                         const std::vector<block_step>& block, std::size_t at);
  result<void> load_weights(weight_loader& source,
                            const std::vector<weight_loader::part>& parts,
                            loaded_step& out);
  /// Whether the last step's products are all that this one reads.
  bool can_join_last(const block_step& step, std::int32_t layer) const;
  bool is_added_up(const block_step& step) const;
  /// Whether it attends with heads of q and k that the last step norms.
  bool attends_with_last(const block_step& step, std::int32_t layer) const;
  void multiply(const loaded_step& step);
  void add_up(const loaded_step& step);
  void execute(const loaded_step& step, const ops::batch_view& batch,
               ops::kv_pool& pool);
  void attend(const loaded_step& step, const ops::batch_view& batch,
              ops::kv_pool& pool);
  void norm_parts(const loaded_step& step);
  void mix_experts(const loaded_step& step, float* to);

  const model_config& config_;
  ops::backend& backend_;
  ops::communicator* ranks_;
  std::vector<loaded_step> steps_; ///< of all layers, in order
  std::array<std::unique_ptr<ops::buffer>, slot_count> slots_;
  /// Of several ranks: what this one adds to the residual stream.
  std::unique_ptr<ops::buffer> share_;
  std::int64_t rows_ = 0;    ///< of the step under way
  std::int64_t prompts_ = 0; ///< of these, at its beginning
  std::uint64_t weight_bytes_read_ = 0;
};

} // namespace troupe::model
