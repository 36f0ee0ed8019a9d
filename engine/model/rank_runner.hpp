#pragma once

#include "engine/codec/error.hpp"
#include "engine/model/decoder.hpp"
#include "engine/ops/communicator.hpp"

#include <memory>

namespace troupe::model {

/// Rank 0 of a model that several ranks hold together: hands each plan to the
/// others and computes its own part. Ends them when it is destroyed. Throws
/// ops::rank_lost when one of them is gone.
class rank_runner final : public engine::model_runner {
public:
  /// `own` was made with `ranks`, which outlives it.
  rank_runner(std::unique_ptr<decoder> own, ops::communicator& ranks);

  ~rank_runner() override;

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
  /// Of all ranks, which have equal parts.
  std::uint64_t weight_bytes_read() const override;
  ops::step_gaps gaps() const override;

private:
  std::unique_ptr<decoder> own_;
  ops::communicator& ranks_;
  std::vector<std::byte> plan_; ///< as it is sent
};

/// Another rank: computes its part of every plan until rank 0 is destroyed.
/// Throws ops::rank_lost. Errors: what comes is no plan.
result<void> follow(decoder& own, ops::communicator& ranks);

} // namespace troupe::model
