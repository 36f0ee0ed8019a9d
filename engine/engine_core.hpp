#pragma once

#include "engine/core.hpp"
#include "engine/draw_planner.hpp"
#include "engine/kv_cache/block_pool.hpp"
#include "engine/model/runner.hpp"
#include "engine/request_check.hpp"
#include "engine/sampling/sampler.hpp"
#include "engine/scheduler/scheduler.hpp"
#include "engine/sequence.hpp"

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

namespace troupe::engine {

/// The engine without its thread and its files: sequences in, steps out. Every
/// step is plan, execute, apply. With a runner that runs ahead the next step is
/// submitted before a step is applied, if nothing of it depends on what that
/// draws but the tokens themselves; whoever ends unforeseen has its row there
/// thrown away. Deterministic: what a choice gives depends on
/// its request and on the runner alone, never on what else is there.
///
/// Choices that are to be alone stand in a line of their own until they have
/// drawn their tokens there. The first of it takes a seat (of max_num_seqs) and
/// all the blocks that it needs at once, as soon as they are free; nobody else
/// is admitted before. From then on every other step is its.
class engine_core final : public core, private scheduler::kv_view {
public:
  struct config {
    scheduler::bounds bounds;
    std::uint32_t kv_blocks = 1;
    std::uint32_t max_model_len = 1; ///< tokens
    std::uint32_t max_waiting = 0;   ///< beside bounds.max_num_seqs
    bool enable_prefix_caching = true;
    std::vector<token_id> eos_ids; ///< inside the vocabulary
    kv_cache::hash_secret secret{};
  };

  /// `runner` outlives the core; its pool has `kv_blocks` blocks.
  engine_core(config, model_runner& runner);

  /// Waits for a step that was submitted ahead.
  ~engine_core() override;

  void submit(request) override;
  void cancel(std::uint64_t id) override;
  std::optional<error> find_fault(const request&) const override;
  void refuse(std::uint64_t id, error why) override;
  error queue_is_full() const override;

  std::uint32_t living() const override {
    return static_cast<std::uint32_t>(order_.size() + alone_.size());
  }

  std::uint32_t most_living() const override {
    return config_.max_waiting + config_.bounds.max_num_seqs;
  }

  step_result step(step_watch* watch = nullptr) override;

  stats now() const override;

private:
  /// The rows that a sequence has in the step.
  struct step_share {
    sequence* of = nullptr;
    std::uint32_t rows = 0;
  };

  /// A row of logits that the step asked for.
  struct logit_use {
    sequence* of = nullptr;
    std::uint32_t position = 0;
    bool is_of_host = false; ///< a runner that draws leaves it to the host
  };

  /// A step that was submitted ahead. Who has left meanwhile is null in it.
  struct step_ahead {
    std::vector<step_share> shares;
    std::vector<logit_use> logit_uses;
    std::vector<owner> left; ///< whose rows are computed still
    bool is_under_way = false;
  };

  std::uint32_t free_blocks(std::size_t running) const override;
  kv_cache::prefix_match find_prefix(std::size_t index) const override;
  kv_cache::prefix_match find_prefix(sequence&) const;

  void plan();
  scheduler::sequence_state state_of(const sequence&) const;
  void plan_alone();
  void plan_others();
  void seat_alone();
  void preempt_youngest();
  void admit(sequence&, const kv_cache::prefix_match& found);
  void tell(step_watch&);
  void fill_step();
  /// Positions of a sequence; takes one of the step's tables.
  void add_rows(sequence&, std::uint32_t begin, std::uint32_t end,
                std::size_t& tables);
  void take_blocks(sequence&, std::uint32_t positions);
  bool wants_logits(const sequence&, std::uint32_t position) const;

  void plan_draws();
  void begin_step();
  void collect_step();
  bool plan_ahead();
  bool can_go_ahead();
  bool is_last_draw(const sequence&) const;
  void submit_ahead();
  void take_ahead();
  void drop_empty_ahead();
  void forget_ahead(const sequence&);
  void apply();
  void rows_done(sequence&, std::uint32_t rows);
  void publish_blocks(sequence&);
  void record_prompt_logprobs(sequence&, std::size_t logit_row);
  void draw(sequence&, std::size_t logit_row);
  void take_token(sequence&, token_id, std::vector<candidate> logprobs);
  bool is_drawn(std::size_t logit_row) const;
  result<std::span<const float>> logits_of(std::size_t logit_row);

  output& start_news(sequence&);
  void finish(sequence&, output& news, finish_reason);
  void fail(sequence&, error);
  finish_reason end_before_first_step(const sequence&) const;
  finish_reason end_after_last(const sequence&) const;
  bool is_end_token(const sequence&, token_id) const;

  void extend_keys(sequence&, std::size_t blocks) const;
  std::uint32_t prompt_left(const sequence&) const;
  std::uint32_t answer_left(const sequence&) const;
  std::uint32_t seats() const;
  void set_computed(sequence&, std::uint32_t positions);
  void release_blocks(sequence&);
  void remove(const sequence&);
  void remove_finished();
  void end_alone();

  config config_;
  model_runner& runner_;
  const bool has_roles_; ///< the runner
  request_bounds request_bounds_;
  sampling::sampler sampler_;
  kv_cache::block_pool pool_;

  /// By arrival; the first `running_` run, the others wait.
  std::vector<std::unique_ptr<sequence>> order_;
  std::size_t running_ = 0;
  /// Those that are to be alone, by arrival; not in order_.
  std::vector<std::unique_ptr<sequence>> alone_;
  bool alone_is_seated_ = false;    ///< the first of them runs
  bool alone_had_its_turn_ = false; ///< the last step was its
  std::unordered_map<std::uint64_t, sequence*> by_id_;

  std::vector<output> outputs_; ///< since the last step
  stats stats_;                 ///< counters; `now` adds the gauges
  std::uint64_t waiting_tokens_ = 0;
  std::uint64_t answer_tokens_ = 0;

  // Reused from step to step.
  std::vector<scheduler::sequence_state> states_;
  scheduler::decision decision_;
  std::vector<step_share> shares_;
  step_plan step_;
  std::vector<logit_use> logit_uses_;
  std::vector<owner> left_; ///< step_ahead's, of the step under way
  step_ahead ahead_;
  draw_planner draw_planner_;             ///< of a runner that draws
  std::span<const ops::drawn_row> drawn_; ///< by it
  std::span<const float> logits_;         ///< of one that does not
  std::vector<owner> owners_;
};

} // namespace troupe::engine
