#include "engine/model/rank_runner.hpp"

#include "engine/model/plan_record.hpp"

#include <utility>

namespace troupe::model {

rank_runner::rank_runner(std::unique_ptr<decoder> own, ops::communicator& ranks)
    : own_(std::move(own)), ranks_(ranks) {
  // nop
}

// No bytes are no plan: they end the others.
rank_runner::~rank_runner() {
  plan_.clear();
  try {
    ranks_.broadcast(plan_);
  } catch (const ops::rank_lost&) {
    // Then there is nobody to end.
  }
}

void rank_runner::submit(const engine::step_plan& plan) {
  encode(plan, nullptr, plan_);
  ranks_.broadcast(plan_);
  own_->submit(plan);
}

std::span<const float> rank_runner::collect() {
  const auto logits = own_->collect();
  ranks_.check();
  return logits;
}

bool rank_runner::draws() const {
  return own_->draws();
}

bool rank_runner::runs_ahead() const {
  return own_->runs_ahead();
}

void rank_runner::submit_drawn(const engine::step_plan& plan,
                               const ops::draw_plan& draws) {
  encode(plan, &draws, plan_);
  ranks_.broadcast(plan_);
  own_->submit_drawn(plan, draws);
}

std::span<const ops::drawn_row> rank_runner::collect_drawn() {
  const auto drawn = own_->collect_drawn();
  ranks_.check();
  return drawn;
}

std::span<const float> rank_runner::logits_of(std::size_t logit_row) {
  return own_->logits_of(logit_row);
}

bool rank_runner::has_roles() const {
  return own_->has_roles();
}

std::int32_t rank_runner::vocabulary() const {
  return own_->vocabulary();
}

std::uint64_t rank_runner::weight_bytes_read() const {
  return own_->weight_bytes_read() * static_cast<std::uint64_t>(ranks_.size());
}

ops::step_gaps rank_runner::gaps() const {
  return own_->gaps();
}

namespace {

/// Steps as rank 0 makes them, at most two under way.
class following {
public:
  following(decoder& own, ops::communicator& ranks) : own_(own), ranks_(ranks) {
    // nop
  }

  void run(const step_record& step) {
    if (!step.draws) {
      own_.submit(step.plan);
      own_.collect();
      return;
    }
    own_.submit_drawn(step.plan, *step.draws);
    if (++under_way_ < 2)
      return;
    --under_way_;
    own_.collect_drawn();
    ranks_.check();
  }

private:
  decoder& own_;
  ops::communicator& ranks_;
  int under_way_ = 0; ///< of steps that draw
};

} // namespace

result<void> follow(decoder& own, ops::communicator& ranks) {
  following steps{own, ranks};
  std::vector<std::byte> bytes;
  for (;;) {
    ranks.broadcast(bytes);
    if (bytes.empty())
      return {};
    auto step = decode_step(bytes);
    if (!step)
      return step.error();
    steps.run(*step);
  }
}

} // namespace troupe::model
