#pragma once

#include "engine/model/expert_plan.hpp"
#include "engine/model/model_config.hpp"
#include "engine/model/weight_loader.hpp"
#include "engine/ops/backend.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

namespace troupe::model {

/// The layers of a model: interprets the steps of its family's row
/// (architecture.hpp), layer after layer, over the slots of activations.
class layers {
public:
  /// Both outlive it.
  layers(const model_config& config, ops::backend& backend)
      : config_(config), backend_(backend) {
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
  /// then they are the step's own.
  void run(const ops::batch_view& batch, ops::kv_pool& pool);

  /// y = weight(x), or y += it; counts what is read.
  void multiply(const ops::weight& weight, const float* x, std::int64_t count,
                float* y, bool add);

  std::uint64_t weight_bytes_read() const {
    return weight_bytes_read_;
  }

private:
  /// A step of one layer with its weights in the backend's memory.
  struct loaded_step {
    const block_step* what = nullptr;
    std::int32_t layer = 0;
    std::unique_ptr<ops::weight> weight; ///< of a linear step
    /// Of a linear step that has one; of a layer norm (zeros if it has none).
    std::unique_ptr<ops::buffer> bias;
    /// Of a norm; one per part, in the order of the step's weights.
    std::vector<std::unique_ptr<ops::buffer>> norms;
    std::vector<expert> experts;
  };

  result<void> load_step(weight_loader& source, std::int32_t layer,
                         const block_step& step);
  result<void> load_weights(weight_loader& source,
                            const std::vector<std::string>& names,
                            loaded_step& out);
  void execute(const loaded_step& step, const ops::batch_view& batch,
               ops::kv_pool& pool);
  void attend(const loaded_step& step, const ops::batch_view& batch,
              ops::kv_pool& pool);
  void norm_parts(const loaded_step& step);
  void mix_experts(const loaded_step& step);
  void run_expert(const loaded_step& step, const expert& weights,
                  const expert_rows& chosen);

  const model_config& config_;
  ops::backend& backend_;
  std::vector<loaded_step> steps_; ///< of all layers, in order
  expert_plan experts_;            ///< of the step under way
  std::array<std::unique_ptr<ops::buffer>, slot_count> slots_;
  std::int64_t rows_ = 0; ///< of the step under way
  std::uint64_t weight_bytes_read_ = 0;
};

} // namespace troupe::model
