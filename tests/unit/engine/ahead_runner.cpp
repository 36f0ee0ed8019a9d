#include "ahead_runner.hpp"

#include "engine/sampling/draw_math.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace troupe::engine {

namespace {

void change(std::vector<float>& logits, const ops::draw_row& how,
            const ops::draw_plan& plan) {
  using ops::logit_change;
  for (auto i = how.first_change; i < how.first_change + how.changes; ++i) {
    const auto& by = plan.changes.at(static_cast<std::size_t>(i));
    if (by.id < 0)
      continue; // another one has it
    auto& logit = logits.at(static_cast<std::size_t>(by.id));
    if (by.what & logit_change::is_biased)
      logit = sampling::biased(logit, by.bias);
    if (by.what & logit_change::is_repeated)
      logit = sampling::repeated(logit, how.repetition_penalty);
    if (by.what & logit_change::is_penalised)
      logit = sampling::penalised(logit, how.frequency_penalty,
                                  static_cast<float>(by.times),
                                  how.presence_penalty);
    if (by.what & logit_change::is_masked)
      logit = -INFINITY;
  }
}

/// What waits for a token that was drawn gets it.
void name_drawn(ops::draw_plan& plan,
                const std::vector<ops::drawn_row>& drawn) {
  for (const auto& how : plan.rows) {
    const auto all = std::span{plan.changes}.subspan(
        static_cast<std::size_t>(how.first_change),
        static_cast<std::size_t>(how.changes));
    if (all.empty() || all.back().id >= 0)
      continue;
    auto& waits = all.back();
    const auto id = drawn.at(static_cast<std::size_t>(-1 - waits.id)).id;
    const auto known = std::find_if(all.begin(), all.end() - 1,
                                    [&](auto& one) { return one.id == id; });
    if (known == all.end() - 1) {
      waits.id = id;
      continue;
    }
    known->what |= waits.what;
    known->times += waits.times;
  }
}

token_id pick(const std::vector<float>& logits, const ops::draw_row& how) {
  if (how.inverse == 0)
    return static_cast<token_id>(
        std::max_element(logits.begin(), logits.end()) - logits.begin());
  double all = 0, until = 0;
  for (auto logit : logits)
    all += std::exp(logit * how.inverse);
  std::size_t id = 0;
  for (; id + 1 < logits.size(); ++id) {
    until += std::exp(logits[id] * how.inverse);
    if (until > how.fraction * all)
      break;
  }
  return static_cast<token_id>(id);
}

ops::drawn_row draw(std::span<const float> raw, const ops::draw_row& how,
                    const ops::draw_plan& plan) {
  ops::drawn_row out;
  if (how.by_host != 0 || std::any_of(raw.begin(), raw.end(),
                                      [](float x) { return !(x < INFINITY); }))
    return out;
  std::vector<float> logits(raw.begin(), raw.end());
  change(logits, how, plan);
  out.id = how.scored >= 0 ? how.scored : pick(logits, how);
  out.logprob = raw[static_cast<std::size_t>(out.id)];
  for (std::int32_t k = 0; k < how.best; ++k)
    out.best.emplace_back(k, raw[static_cast<std::size_t>(k)]);
  return out;
}

} // namespace

void ahead_runner::submit(const step_plan&) {
  throw std::logic_error{"it draws itself"};
}

std::span<const float> ahead_runner::collect() {
  throw std::logic_error{"it draws itself"};
}

void ahead_runner::submit_drawn(const step_plan& plan,
                                const ops::draw_plan& draws) {
  if (steps_.size() >= (goes_ahead_ ? 2 : 1))
    throw std::logic_error{"too many steps are under way"};
  steps_.push_back({plan, draws});
}

std::span<const ops::drawn_row> ahead_runner::collect_drawn() {
  if (steps_.empty())
    throw std::logic_error{"no step is under way"};
  auto now = std::move(steps_.front());
  steps_.pop_front();
  for (auto& token : now.plan.tokens)
    if (token < 0)
      token = std::max(drawn_.at(static_cast<std::size_t>(-1 - token)).id, 0);
  name_drawn(now.draws, drawn_);
  of_.submit(now.plan);
  const auto logits = of_.collect();
  logits_.assign(logits.begin(), logits.end());
  const auto width = static_cast<std::size_t>(vocabulary());
  drawn_.clear();
  for (std::size_t row = 0; row < now.draws.rows.size(); ++row)
    drawn_.push_back(draw(std::span{logits_}.subspan(row * width, width),
                          now.draws.rows[row], now.draws));
  return drawn_;
}

std::span<const float> ahead_runner::logits_of(std::size_t logit_row) {
  if (!steps_.empty())
    throw std::logic_error{"the logits are another step's"};
  const auto width = static_cast<std::size_t>(vocabulary());
  return std::span{logits_}.subspan(logit_row * width, width);
}

} // namespace troupe::engine
