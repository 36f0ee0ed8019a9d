#include "engine/engine_core.hpp"

#include <algorithm>
#include <cassert>
#include <utility>

namespace troupe::engine {

namespace {

bool contains(std::span<const token_id> ids, token_id id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

/// First the token's, then the best.
std::vector<candidate> candidates_of(const ops::drawn_row& row) {
  std::vector<candidate> out{{row.id, row.logprob}};
  for (auto [id, logprob] : row.best)
    out.push_back({id, logprob});
  return out;
}

/// For a sequence that has all the blocks that it needs.
class no_more_blocks final : public scheduler::kv_view {
public:
  std::uint32_t free_blocks(std::size_t) const override {
    return 0;
  }

  kv_cache::prefix_match find_prefix(std::size_t) const override {
    return {};
  }
};

} // namespace

engine_core::engine_core(config c, model_runner& runner)
    : config_(std::move(c)), runner_(runner), has_roles_(runner.has_roles()),
      request_bounds_{runner.vocabulary(), config_.max_model_len,
                      config_.kv_blocks * config_.bounds.block_size},
      sampler_(runner.vocabulary()), pool_(config_.kv_blocks),
      draw_planner_(runner.vocabulary()) {
  stats_.kv_blocks_total = config_.kv_blocks;
}

engine_core::~engine_core() {
  if (!ahead_.is_under_way)
    return;
  try {
    runner_.collect_drawn();
  } catch (const std::exception&) {
    // Then nothing is under way any more.
  }
}

// -- submit and cancel --------------------------------------------------------

std::optional<error> engine_core::find_fault(const request& r) const {
  return troupe::engine::find_fault(r, request_bounds_);
}

void engine_core::refuse(std::uint64_t id, error why) {
  outputs_.push_back(refusal_of(id, std::move(why)));
}

void engine_core::submit(request r) {
  if (auto fault = find_fault(r))
    return refuse(r.id, std::move(*fault));
  if (by_id_.contains(r.id))
    return refuse(r.id, {errc::invalid_argument, "this id is in use"});
  if (living() >= most_living())
    return refuse(r.id, queue_is_full());

  auto s = std::make_unique<sequence>();
  s->id = r.id;
  s->whose = r.whose;
  s->params = std::move(r.params);
  s->prompt_size = static_cast<std::uint32_t>(r.prompt.size());
  s->tokens = std::move(r.prompt);
  s->tokens.insert(s->tokens.end(), r.resume.begin(), r.resume.end());
  s->resumed_end = s->size();
  s->alone = r.alone;
  s->wants_prompt_logprobs = s->params.prompt_logprobs >= 0 && r.resume.empty();
  if (s->wants_prompt_logprobs)
    s->prompt_logprobs.emplace_back(); // the first position has none
  waiting_tokens_ += s->prompt_size;
  answer_tokens_ += answer_left(*s);
  by_id_.emplace(s->id, s.get());
  sequence& taken = *s;
  (r.alone > 0 ? alone_ : order_).push_back(std::move(s));

  const finish_reason end = end_before_first_step(taken);
  if (end == finish_reason::none)
    return;
  finish(taken, start_news(taken), end);
  remove(taken);
}

error engine_core::queue_is_full() const {
  return full_queue(config_.max_waiting);
}

void engine_core::cancel(std::uint64_t id) {
  auto found = by_id_.find(id);
  if (found == by_id_.end())
    return;
  sequence& s = *found->second;
  finish(s, start_news(s), finish_reason::cancelled);
  remove(s);
}

// -- one step -----------------------------------------------------------------

step_result engine_core::step(step_watch* watch) {
  drop_empty_ahead();
  if (living() > 0) {
    const bool is_submitted = ahead_.is_under_way;
    if (is_submitted) {
      take_ahead();
    } else {
      left_.clear();
      plan();
      fill_step();
    }
    if (watch)
      tell(*watch);
    if (!is_submitted)
      begin_step();
    if (plan_ahead())
      submit_ahead();
    collect_step();
    apply();
    if (watch)
      watch->end();
    ++stats_.steps;
    remove_finished();
  }
  step_result result;
  result.outputs = std::exchange(outputs_, {});
  result.now = now();
  auto changes = pool_.take_changes();
  result.blocks = {config_.bounds.block_size, std::move(changes.stored),
                   std::move(changes.dropped)};
  return result;
}

void engine_core::begin_step() {
  if (!runner_.draws())
    return runner_.submit(step_);
  plan_draws();
  runner_.submit_drawn(step_, draw_planner_.plan());
}

void engine_core::collect_step() {
  if (runner_.draws())
    drawn_ = runner_.collect_drawn();
  else
    logits_ = runner_.collect();
}

stats engine_core::now() const {
  stats s = stats_;
  s.weight_bytes_read = runner_.weight_bytes_read();
  const auto gaps = runner_.gaps();
  s.device_gaps = gaps.count;
  s.device_gap_seconds = gaps.seconds;
  s.running = static_cast<std::uint32_t>(running_) + (alone_is_seated_ ? 1 : 0);
  s.waiting = living() - s.running;
  s.waiting_tokens = waiting_tokens_;
  s.answer_tokens = answer_tokens_;
  s.seats = seats();
  s.kv_blocks_free = pool_.free();
  return s;
}

// -- plan ---------------------------------------------------------------------

void engine_core::plan() {
  seat_alone();
  shares_.clear();
  if (!alone_is_seated_ || alone_had_its_turn_)
    plan_others();
  // The others have nothing to do, or their oldest lacks a block.
  alone_had_its_turn_ = shares_.empty();
  if (shares_.empty())
    plan_alone();
}

void engine_core::seat_alone() {
  if (alone_.empty() || alone_is_seated_ ||
      running_ >= config_.bounds.max_num_seqs)
    return;
  sequence& s = *alone_.front();
  const kv_cache::prefix_match found = find_prefix(s);
  const std::uint32_t size = config_.bounds.block_size;
  // Nor has it more positions than it may have tokens; the last token drawn
  // here is not computed here any more.
  const std::uint64_t tokens_max = std::min<std::uint64_t>(
      std::uint64_t{s.prompt_size} + s.params.max_tokens,
      config_.max_model_len);
  const auto positions = static_cast<std::uint32_t>(std::max<std::uint64_t>(
      s.size(), std::min<std::uint64_t>(s.size() + s.alone - 1, tokens_max)));
  const std::uint32_t blocks = (positions + size - 1) / size;
  if (blocks - found.blocks + found.idle > pool_.free())
    return;
  admit(s, found);
  take_blocks(s, positions);
  alone_is_seated_ = true;
}

scheduler::sequence_state engine_core::state_of(const sequence& s) const {
  return {s.size(), s.computed, static_cast<std::uint32_t>(s.blocks.size()),
          s.wants_prompt_logprobs};
}

void engine_core::plan_alone() {
  const sequence& s = *alone_.front();
  states_.assign(1, state_of(s));
  scheduler::plan_step(states_, 1, config_.bounds, no_more_blocks{}, decision_);
  shares_.push_back({alone_.front().get(), decision_.rows[0]});
}

void engine_core::plan_others() {
  // Whoever stands behind max_num_seqs cannot run in this step.
  const std::size_t seats =
      config_.bounds.max_num_seqs - (alone_is_seated_ ? 1 : 0);
  const bool may_admit = alone_.empty() || alone_is_seated_;
  const std::size_t considered =
      may_admit ? std::min(order_.size(), seats) : running_;
  states_.clear();
  for (std::size_t i = 0; i < considered; ++i)
    states_.push_back(state_of(*order_[i]));
  scheduler::plan_step(states_, running_, config_.bounds, *this, decision_);
  while (running_ > decision_.rows.size())
    preempt_youngest();
  // All prefixes are held before any block is taken, which may cost the cache
  // a prefix.
  for (const kv_cache::prefix_match& found : decision_.admitted)
    admit(*order_[running_++], found);
  for (std::size_t i = 0; i < running_; ++i)
    if (decision_.rows[i] > 0)
      shares_.push_back({order_[i].get(), decision_.rows[i]});
}

std::uint32_t engine_core::free_blocks(std::size_t running) const {
  if (running == running_)
    return pool_.free();
  std::vector<bool> is_held(pool_.total());
  std::uint32_t held = 0;
  auto count = [&](const sequence& s) {
    for (kv_cache::block_id block : s.blocks) {
      held += !is_held[block];
      is_held[block] = true;
    }
  };
  for (std::size_t i = 0; i < running; ++i)
    count(*order_[i]);
  if (alone_is_seated_)
    count(*alone_.front());
  return pool_.total() - held;
}

kv_cache::prefix_match engine_core::find_prefix(std::size_t index) const {
  return find_prefix(*order_[index]);
}

kv_cache::prefix_match engine_core::find_prefix(sequence& s) const {
  if (!config_.enable_prefix_caching || s.wants_prompt_logprobs)
    return {};
  const std::size_t full = (s.size() - 1) / config_.bounds.block_size;
  extend_keys(s, full);
  return pool_.find(std::span{s.keys}.first(full));
}

void engine_core::extend_keys(sequence& s, std::size_t blocks) const {
  const std::size_t size = config_.bounds.block_size;
  while (s.keys.size() < blocks) {
    const auto before = s.keys.empty() ? kv_cache::root_key : s.keys.back();
    const auto tokens = std::span{s.tokens}.subspan(s.keys.size() * size, size);
    const std::size_t end = (s.keys.size() + 1) * size;
    const std::size_t outputs =
        has_roles_
            ? std::min(end - std::min<std::size_t>(end, s.prompt_size), size)
            : 0;
    s.keys.push_back(kv_cache::chain(config_.secret, before, tokens, outputs));
    const auto named = s.names.empty() ? codec::root_name : s.names.back();
    s.names.push_back(codec::chain_name(named, tokens));
  }
}

void engine_core::preempt_youngest() {
  sequence& s = *order_[--running_];
  s.resumed_end = std::max(s.resumed_end, s.computed);
  release_blocks(s);
  set_computed(s, 0);
  ++stats_.preemptions;
}

void engine_core::admit(sequence& s, const kv_cache::prefix_match& found) {
  pool_.hold(s.keys, found.blocks, s.blocks);
  s.published = found.blocks;
  set_computed(s, found.blocks * config_.bounds.block_size);
  if (std::exchange(s.was_admitted, true))
    return;
  if (!config_.enable_prefix_caching || s.wants_prompt_logprobs)
    return;
  s.cached_tokens = std::min(s.computed, s.prompt_size);
  stats_.prefix_queries += s.prompt_size;
  stats_.prefix_hits += s.cached_tokens;
}

// -- execute ------------------------------------------------------------------

void engine_core::tell(step_watch& watch) {
  owners_.clear();
  for (const step_share& share : shares_)
    if (share.of != nullptr)
      owners_.push_back(share.of->whose);
  owners_.insert(owners_.end(), left_.begin(), left_.end());
  watch.begin(owners_);
}

void engine_core::fill_step() {
  step_.tokens.clear();
  step_.positions.clear();
  step_.sequences.clear();
  step_.logit_rows.clear();
  logit_uses_.clear();
  std::size_t tables = 0;
  for (const auto& [s, rows] : shares_) {
    take_blocks(*s, s->computed + rows);
    const auto end = s->computed + rows;
    add_rows(*s, s->computed, has_roles_ ? std::min(end, s->prompt_size) : end,
             tables);
  }
  step_.prompt_rows = static_cast<std::int32_t>(step_.tokens.size());
  if (has_roles_)
    for (const auto& [s, rows] : shares_)
      add_rows(*s, std::max(s->computed, s->prompt_size), s->computed + rows,
               tables);
  step_.tables.resize(tables);
}

void engine_core::take_blocks(sequence& s, std::uint32_t positions) {
  while (s.blocks.size() * config_.bounds.block_size < positions)
    s.blocks.push_back(pool_.take());
}

void engine_core::add_rows(sequence& s, std::uint32_t begin, std::uint32_t end,
                           std::size_t& tables) {
  if (begin >= end)
    return;
  const auto table = static_cast<std::int32_t>(tables++);
  if (step_.tables.size() < tables)
    step_.tables.emplace_back();
  step_.tables[tables - 1].assign(s.blocks.begin(), s.blocks.end());
  for (std::uint32_t p = begin; p < end; ++p) {
    if (wants_logits(s, p)) {
      step_.logit_rows.push_back(
          static_cast<std::int32_t>(step_.tokens.size()));
      logit_uses_.push_back({&s, p});
    }
    step_.tokens.push_back(s.tokens[p]);
    step_.positions.push_back(static_cast<std::int32_t>(p));
    step_.sequences.push_back(table);
  }
}

bool engine_core::wants_logits(const sequence& s,
                               std::uint32_t position) const {
  const std::uint32_t next = position + 1;
  if (next == s.size())
    return s.params.max_tokens > 0;
  return next < s.prompt_size && s.wants_prompt_logprobs &&
         next >= s.prompt_logprobs.size();
}

// -- ahead --------------------------------------------------------------------

/// Whether the step after the one that was submitted can be submitted already;
/// then `step_` is it, with what is drawn of it. Nothing else changes but that
/// its blocks are taken.
bool engine_core::plan_ahead() {
  if (!runner_.runs_ahead() || !alone_.empty() || !can_go_ahead())
    return false;
  ahead_.shares.clear();
  ahead_.left.clear();
  draw_planner_.clear();
  for (std::size_t i = 0; i < running_; ++i)
    if (decision_.rows[i] > 0) {
      sequence& s = *order_[i];
      ahead_.shares.push_back({&s, 1});
      draw_planner_.add_draw(
          {{}, s.prompt(), s.output(), config_.eos_ids, s.params}, s.draw_row);
    }
  if (ahead_.shares.empty() || !draw_planner_.has_all())
    return false;
  step_.tokens.clear();
  step_.positions.clear();
  step_.sequences.clear();
  step_.logit_rows.clear();
  step_.tables.resize(ahead_.shares.size());
  ahead_.logit_uses.clear();
  for (const auto& [s, rows] : ahead_.shares) {
    take_blocks(*s, s->size() + 1);
    const auto row = static_cast<std::int32_t>(step_.tokens.size());
    step_.tables[step_.tokens.size()].assign(s->blocks.begin(),
                                             s->blocks.end());
    step_.tokens.push_back(drawn_by(static_cast<std::size_t>(s->draw_row)));
    step_.positions.push_back(static_cast<std::int32_t>(s->size()));
    step_.sequences.push_back(row);
    step_.logit_rows.push_back(row);
    ahead_.logit_uses.push_back({s, s->size()});
  }
  step_.prompt_rows =
      has_roles_ ? 0 : static_cast<std::int32_t>(step_.tokens.size());
  return true;
}

/// Whether all that run draw in the step that was submitted, without need of
/// the host, and would be planned one row each in the next, or none if they are
/// sure to end, with nobody admitted or preempted.
bool engine_core::can_go_ahead() {
  for (std::size_t i = 0; i < running_; ++i)
    order_[i]->draw_row = -1;
  for (std::size_t row = 0; row < logit_uses_.size(); ++row) {
    const auto& use = logit_uses_[row];
    if (use.is_of_host)
      return false;
    if (use.of != nullptr && use.position + 1 == use.of->size())
      use.of->draw_row = static_cast<std::int32_t>(row);
  }
  const bool somebody_waits = order_.size() > running_;
  states_.clear();
  for (std::size_t i = 0; i < running_; ++i) {
    const sequence& s = *order_[i];
    const bool ends = is_last_draw(s);
    if (s.draw_row < 0 || (ends && somebody_waits))
      return false;
    states_.push_back({s.size() + (ends ? 0 : 1), s.size(),
                       static_cast<std::uint32_t>(s.blocks.size()), false});
  }
  const std::size_t considered =
      std::min<std::size_t>(order_.size(), config_.bounds.max_num_seqs);
  for (std::size_t i = running_; i < considered; ++i)
    states_.push_back(state_of(*order_[i]));
  scheduler::plan_step(states_, running_, config_.bounds, *this, decision_);
  if (decision_.rows.size() != running_)
    return false;
  for (std::size_t i = 0; i < running_; ++i)
    if (decision_.rows[i] != states_[i].tokens - states_[i].computed)
      return false;
  return true;
}

/// Whether it ends by length with the next token that it draws.
bool engine_core::is_last_draw(const sequence& s) const {
  return s.output_size() + 1 >= s.params.max_tokens ||
         s.size() + 1 >= config_.max_model_len;
}

void engine_core::submit_ahead() {
  runner_.submit_drawn(step_, draw_planner_.plan());
  ahead_.is_under_way = true;
}

/// The step ahead is the one under way now.
void engine_core::take_ahead() {
  std::swap(shares_, ahead_.shares);
  std::swap(logit_uses_, ahead_.logit_uses);
  std::swap(left_, ahead_.left);
  ahead_.is_under_way = false;
  ++stats_.steps_ahead;
}

/// Nobody is left whose rows it has: nobody waits for it.
void engine_core::drop_empty_ahead() {
  if (!ahead_.is_under_way)
    return;
  const auto& all = ahead_.shares;
  if (std::any_of(all.begin(), all.end(),
                  [](auto& share) { return share.of != nullptr; }))
    return;
  ahead_.is_under_way = false;
  runner_.collect_drawn();
}

void engine_core::forget_ahead(const sequence& s) {
  if (!ahead_.is_under_way)
    return;
  for (auto& share : ahead_.shares)
    if (share.of == &s) {
      share.of = nullptr;
      ahead_.left.push_back(s.whose);
    }
  for (auto& use : ahead_.logit_uses)
    if (use.of == &s)
      use.of = nullptr;
}

// -- apply --------------------------------------------------------------------

void engine_core::plan_draws() {
  draw_planner_.clear();
  for (const auto& [s, position, of_host] : logit_uses_)
    if (const auto next = position + 1; next < s->size())
      draw_planner_.add_score(s->tokens[next], s->params.prompt_logprobs);
    else
      draw_planner_.add_draw(
          {{}, s->prompt(), s->output(), config_.eos_ids, s->params});
  for (std::size_t row = 0; row < logit_uses_.size(); ++row)
    logit_uses_[row].is_of_host = draw_planner_.plan().rows[row].by_host != 0;
}

void engine_core::apply() {
  for (const auto& [s, rows] : shares_)
    if (s != nullptr)
      rows_done(*s, rows);
  for (std::size_t row = 0; row < logit_uses_.size(); ++row) {
    auto* s = logit_uses_[row].of;
    const auto position = logit_uses_[row].position;
    if (s == nullptr || s->is_finished)
      continue;
    if (position + 1 < s->size())
      record_prompt_logprobs(*s, row);
    else
      draw(*s, row);
  }
  for (const auto& [s, rows] : shares_)
    if (s != nullptr && s->params.max_tokens == 0 && s->computed == s->size() &&
        !s->is_finished)
      finish(*s, start_news(*s), finish_reason::length);
}

void engine_core::rows_done(sequence& s, std::uint32_t rows) {
  const std::uint32_t end = s.computed + rows;
  auto rows_within = [&](std::uint32_t from, std::uint32_t to) {
    from = std::max(from, s.computed);
    to = std::min(to, end);
    return to > from ? to - from : 0;
  };
  stats_.prompt_tokens += rows_within(0, s.prompt_size);
  stats_.resumed_tokens += rows_within(s.prompt_size, s.resumed_end);
  set_computed(s, end);
  publish_blocks(s);
}

void engine_core::publish_blocks(sequence& s) {
  if (!config_.enable_prefix_caching)
    return;
  const std::uint32_t full = s.computed / config_.bounds.block_size;
  extend_keys(s, full);
  for (; s.published < full; ++s.published)
    pool_.publish(s.blocks[s.published], s.keys[s.published],
                  s.names[s.published]);
}

bool engine_core::is_drawn(std::size_t logit_row) const {
  return runner_.draws() && drawn_[logit_row].id >= 0;
}

/// Of a row that the runner has not drawn. Whether it could not: the logits
/// may be gone, and the error is the one that there is.
result<std::span<const float>> engine_core::logits_of(std::size_t logit_row) {
  if (runner_.draws()) {
    if (!logit_uses_[logit_row].is_of_host)
      return sampling::unusable_logits();
    assert(!ahead_.is_under_way);
    return runner_.logits_of(logit_row);
  }
  const auto vocabulary = static_cast<std::size_t>(runner_.vocabulary());
  assert(logits_.size() == logit_uses_.size() * vocabulary);
  return logits_.subspan(logit_row * vocabulary, vocabulary);
}

void engine_core::record_prompt_logprobs(sequence& s, std::size_t logit_row) {
  if (is_drawn(logit_row)) {
    s.prompt_logprobs.push_back(candidates_of(drawn_[logit_row]));
    return;
  }
  const token_id token = s.tokens[s.prompt_logprobs.size()];
  const auto logits = logits_of(logit_row);
  if (!logits)
    return fail(s, logits.error());
  auto found =
      sampler_.log_probabilities(*logits, token, s.params.prompt_logprobs);
  if (!found)
    return fail(s, found.error());
  s.prompt_logprobs.push_back(std::move(*found));
}

void engine_core::draw(sequence& s, std::size_t logit_row) {
  if (is_drawn(logit_row)) {
    const auto& drawn = drawn_[logit_row];
    return take_token(s, drawn.id,
                      s.params.logprobs >= 0 ? candidates_of(drawn)
                                             : std::vector<candidate>{});
  }
  const auto logits = logits_of(logit_row);
  if (!logits)
    return fail(s, logits.error());
  const auto drawn = sampler_.draw(
      {*logits, s.prompt(), s.output(), config_.eos_ids, s.params});
  if (!drawn)
    return fail(s, drawn.error());
  std::vector<candidate> logprobs;
  if (s.params.logprobs >= 0) {
    auto found = sampler_.log_probabilities(*logits, *drawn, s.params.logprobs);
    if (!found)
      return fail(s, found.error());
    logprobs = std::move(*found);
  }
  take_token(s, *drawn, std::move(logprobs));
}

void engine_core::take_token(sequence& s, token_id token,
                             std::vector<candidate> logprobs) {
  answer_tokens_ -= answer_left(s);
  s.tokens.push_back(token);
  answer_tokens_ += answer_left(s);
  ++stats_.output_tokens;
  output& news = start_news(s);
  news.tokens.push_back(token);
  if (s.params.logprobs >= 0)
    news.logprobs.push_back(std::move(logprobs));
  const finish_reason end = end_after_last(s);
  if (end != finish_reason::none)
    finish(s, news, end);
}

// -- ends ---------------------------------------------------------------------

finish_reason engine_core::end_before_first_step(const sequence& s) const {
  if (s.output_size() > 0)
    return end_after_last(s);
  return s.params.max_tokens == 0 && !s.wants_prompt_logprobs
             ? finish_reason::length
             : finish_reason::none;
}

finish_reason engine_core::end_after_last(const sequence& s) const {
  if (s.output_size() > s.params.min_tokens && is_end_token(s, s.tokens.back()))
    return finish_reason::stop;
  if (s.output_size() >= s.params.max_tokens ||
      s.size() >= config_.max_model_len)
    return finish_reason::length;
  return finish_reason::none;
}

bool engine_core::is_end_token(const sequence& s, token_id id) const {
  return contains(s.params.stop_token_ids, id) ||
         (!s.params.ignore_eos && contains(config_.eos_ids, id));
}

output& engine_core::start_news(sequence& s) {
  output& news = outputs_.emplace_back();
  news.id = s.id;
  if (!std::exchange(s.was_reported, true)) {
    news.cached_tokens = s.cached_tokens;
    news.prompt_logprobs = std::move(s.prompt_logprobs);
    s.wants_prompt_logprobs = false;
  }
  return news;
}

void engine_core::finish(sequence& s, output& news, finish_reason reason) {
  news.finish = reason;
  if (reason == finish_reason::stop)
    news.stop_token = s.tokens.back();
  release_blocks(s);
  waiting_tokens_ -= prompt_left(s);
  answer_tokens_ -= answer_left(s);
  s.is_finished = true;
  forget_ahead(s);
  by_id_.erase(s.id);
  ++stats_.finished;
}

void engine_core::fail(sequence& s, error why) {
  output& news = start_news(s);
  news.code = why.code;
  news.message = std::move(why.message);
  finish(s, news, finish_reason::error);
}

std::uint32_t engine_core::prompt_left(const sequence& s) const {
  return s.prompt_size - std::min(s.computed, s.prompt_size);
}

/// Tokens that it may still draw: an end token can come sooner.
std::uint32_t engine_core::answer_left(const sequence& s) const {
  const auto room =
      config_.max_model_len - std::min(s.size(), config_.max_model_len);
  const auto asked =
      s.params.max_tokens - std::min(s.output_size(), s.params.max_tokens);
  return std::min(room, asked);
}

std::uint32_t engine_core::seats() const {
  const std::uint64_t positions =
      std::uint64_t{pool_.total()} * config_.bounds.block_size;
  const std::uint32_t length = std::max(config_.max_model_len / 2, 1u);
  const auto held = std::max<std::uint64_t>(positions / length, 1);
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(held, config_.bounds.max_num_seqs));
}

void engine_core::set_computed(sequence& s, std::uint32_t positions) {
  waiting_tokens_ -= prompt_left(s);
  s.computed = positions;
  waiting_tokens_ += prompt_left(s);
}

void engine_core::release_blocks(sequence& s) {
  while (!s.blocks.empty()) {
    pool_.release(s.blocks.back());
    s.blocks.pop_back();
  }
  s.published = 0;
}

void engine_core::remove(const sequence& s) {
  auto is_it = [&](auto& other) { return other.get() == &s; };
  if (auto i = std::find_if(alone_.begin(), alone_.end(), is_it);
      i != alone_.end()) {
    if (i == alone_.begin())
      alone_is_seated_ = false;
    alone_.erase(i);
    return;
  }
  const auto found = std::find_if(order_.begin(), order_.end(), is_it);
  if (found < order_.begin() + running_)
    --running_;
  order_.erase(found);
}

void engine_core::remove_finished() {
  if (alone_had_its_turn_)
    return end_alone();
  // Only running sequences finish in a step.
  const auto end = order_.begin() + running_;
  const auto kept = std::remove_if(order_.begin(), end,
                                   [](auto& s) { return s->is_finished; });
  running_ = kept - order_.begin();
  order_.erase(kept, end);
}

/// Whoever has drawn its tokens goes on among the others, in the seat and with
/// the blocks that it has.
void engine_core::end_alone() {
  auto& first = alone_.front();
  const bool has_drawn = first->size() >= first->resumed_end + first->alone;
  if (!first->is_finished && !has_drawn)
    return;
  if (!first->is_finished)
    order_.insert(order_.begin() + running_++, std::move(first));
  alone_.erase(alone_.begin());
  alone_is_seated_ = false;
}

} // namespace troupe::engine
