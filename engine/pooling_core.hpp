#pragma once

#include "engine/core.hpp"
#include "engine/model/runner.hpp"

#include <cstdint>
#include <deque>
#include <span>
#include <unordered_set>
#include <vector>

namespace troupe::engine {

/// The core of models that give a vector for a prompt and draw no tokens. Every
/// step takes as many whole prompts as fit, in the order in which they came; a
/// vector depends on its own prompt alone. Sampling parameters and what a
/// request resumes mean nothing here.
///
/// Choices that are to be alone stand in a line of their own, each has a step
/// to itself, and the steps of the two lines take turns.
class pooling_core final : public core {
public:
  struct config {
    std::uint32_t max_num_seqs = 1; ///< prompts of a step
    /// Tokens of a step. A longer prompt has a step to itself.
    std::uint32_t max_num_batched_tokens = 1;
    std::uint32_t max_model_len = 1; ///< tokens of a prompt
    std::uint32_t max_waiting = 0;   ///< beside max_num_seqs
  };

  /// `runner` outlives the core and takes max_num_seqs prompts in
  /// max(max_num_batched_tokens, max_model_len) rows.
  pooling_core(config, pooling_runner& runner);

  void submit(request) override;
  void cancel(std::uint64_t id) override;
  std::optional<error> find_fault(const request&) const override;
  void refuse(std::uint64_t id, error why) override;
  error queue_is_full() const override;

  std::uint32_t living() const override {
    return static_cast<std::uint32_t>(ids_.size());
  }

  std::uint32_t most_living() const override {
    return config_.max_waiting + config_.max_num_seqs;
  }

  step_result step(step_watch* watch) override;

  /// What the next step will take runs, the others wait.
  stats now() const override;

private:
  std::size_t count_next() const;
  void plan();
  void tell(step_watch&);
  void give(const request&, std::span<const float> vector);
  output& finish(const request&, finish_reason);

  config config_;
  pooling_runner& runner_;
  std::deque<request> line_;        ///< by arrival
  std::deque<request> alone_;       ///< those that are to be alone, by arrival
  bool alone_had_its_turn_ = false; ///< the last step was of `alone_`
  std::unordered_set<std::uint64_t> ids_; ///< of both lines
  std::uint64_t waiting_tokens_ = 0;      ///< of both lines

  std::vector<output> outputs_; ///< since the last step
  stats stats_;                 ///< counters; `now` adds the gauges

  // Reused from step to step.
  std::vector<request> step_;
  std::vector<whole_sequence> sequences_;
  std::vector<owner> owners_;
};

} // namespace troupe::engine
