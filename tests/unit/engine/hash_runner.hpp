#pragma once

#include "engine/model/runner.hpp"

#include <cstdint>
#include <functional>
#include <vector>

namespace troupe::engine {

/// A model without weights: the logits of a row are a pure function of the
/// tokens that it reaches through its block table. The tokens lie in a fake KV
/// store by block and offset, so that a wrong table, a block written while it
/// is shared or one that was never computed shows as other logits; so does, if
/// it has roles, a position computed in the wrong one.
class hash_runner final : public model_runner {
public:
  hash_runner(std::int32_t vocabulary, std::uint32_t kv_blocks,
              std::uint32_t block_size, bool has_roles = false)
      : vocabulary_(vocabulary), block_size_(block_size), has_roles_(has_roles),
        store_(std::size_t{kv_blocks} * block_size) {
  }

  void submit(const step_plan& plan) override;
  std::span<const float> collect() override;

  bool has_roles() const override {
    return has_roles_;
  }

  std::int32_t vocabulary() const override {
    return vocabulary_;
  }

  std::uint64_t weight_bytes_read() const override {
    return 1000 * passes;
  }

  /// Changes logits before they are handed out; for broken models.
  std::function<void(std::span<float> row, std::int32_t token)> distort;

  /// The last plan, as it came.
  step_plan last_plan;
  std::uint64_t passes = 0;

private:
  struct slot {
    token_id token = -1;
    std::int32_t position = -1;
    bool is_prompt = false; ///< of a runner that has roles
  };

  slot& slot_of(const step_plan& plan, std::size_t row, std::int32_t position);
  std::uint64_t hash_of_row(const step_plan& plan, std::size_t row);

  std::int32_t vocabulary_;
  std::uint32_t block_size_;
  bool has_roles_;
  std::vector<slot> store_;
  std::vector<float> logits_;
};

} // namespace troupe::engine
