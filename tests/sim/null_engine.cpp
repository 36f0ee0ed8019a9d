#include "tests/sim/null_engine.hpp"

#include <algorithm>
#include <utility>

namespace troupe::sim {

namespace {

using namespace std::chrono_literals;

constexpr token_id vocabulary = 30'000;
constexpr token_id poison_mark = -666;
constexpr token_id end_every = 61; ///< one token of so many ends the choice

} // namespace

token_id right_token(const std::vector<token_id>& prompt,
                     const sampling_params& params,
                     std::span<const token_id> before) {
  auto x = scramble(params.seed) ^ scramble(params.choice + 1);
  for (auto id : prompt)
    x = scramble(x ^ static_cast<std::uint32_t>(id));
  for (auto id : before)
    x = scramble(x ^ static_cast<std::uint32_t>(id) ^ 0x10000);
  return static_cast<token_id>(x % vocabulary);
}

bool ends_choice(token_id id) {
  return id % end_every == 0;
}

std::vector<token_id> right_answer(const std::vector<token_id>& prompt,
                                   const sampling_params& params) {
  std::vector<token_id> out;
  while (out.size() < params.max_tokens) {
    out.push_back(right_token(prompt, params, out));
    if (ends_choice(out.back()))
      break;
  }
  return out;
}

void make_poison(std::vector<token_id>& prompt, std::uint32_t at) {
  prompt.insert(prompt.begin(), {poison_mark, static_cast<token_id>(at)});
}

bool is_poison(const std::vector<token_id>& prompt, std::uint32_t at) {
  return prompt.size() >= 2 && prompt[0] == poison_mark &&
         prompt[1] == static_cast<token_id>(at);
}

null_engine::null_engine(process& self, world& w, null_engine_options options,
                         outside out)
    : self_(self), world_(w), options_(options), outside_(std::move(out)),
      free_(options.blocks) {
  // nop
}

void null_engine::submit(engine::request what) {
  waiting_.push_back(std::move(what));
  wake();
}

void null_engine::cancel(std::uint64_t id) {
  cancelled_.insert(id);
  wake();
}

engine::stats null_engine::now() const {
  auto out = counted_;
  out.running = static_cast<std::uint32_t>(running_.size());
  out.waiting = static_cast<std::uint32_t>(waiting_.size());
  for (const auto& one : waiting_) {
    out.waiting_tokens += one.prompt.size();
    out.answer_tokens += one.params.max_tokens - one.resume.size();
  }
  for (const auto& [id, x] : running_)
    out.answer_tokens += x.what.params.max_tokens - x.output.size();
  if (worked_ > 0ns)
    out.tokens_per_second =
        rows_ / std::chrono::duration<double>{worked_}.count();
  out.seats = options_.sequences_max;
  out.kv_blocks_total = options_.blocks;
  out.kv_blocks_free = free_;
  return out;
}

/// The engine's thread hears of its inbox a moment later.
void null_engine::wake() {
  if (std::exchange(busy_, true))
    return;
  self_.after(world_.between(1us, 50us), [this] { step(); });
}

void null_engine::step() {
  if (hung_)
    return;
  std::vector<engine::output> ended;
  end_cancelled(ended);
  admit();
  if (!ended.empty())
    report(std::move(ended));
  auto members = choose();
  if (members.empty()) {
    busy_ = false;
    return;
  }
  std::vector<engine::owner> owners;
  std::uint64_t rows = 0;
  const sequence* killer = nullptr;
  for (auto id : members) {
    auto& x = running_.at(id);
    owners.push_back(x.what.whose);
    rows += std::min<std::size_t>(x.rows_left() + 1, options_.rows_max);
    if (x.rows_left() <= options_.rows_max &&
        is_poison(x.what.prompt, static_cast<std::uint32_t>(x.output.size())))
      killer = &x;
  }
  outside_.step_begins(owners);
  auto time = options_.step_time + world_.between(0us, 500us) + rows * 10us;
  rows_ += static_cast<double>(rows);
  worked_ += time;
  if (killer != nullptr)
    self_.after(world_.between(0us, time),
                [this, owner = killer->what.whose, at = killer->output.size()] {
                  outside_.crash(owner, at);
                });
  self_.after(time,
              [this, members = std::move(members)] { end_step(members); });
}

void null_engine::end_cancelled(std::vector<engine::output>& out) {
  for (auto id : std::exchange(cancelled_, {})) {
    auto found = running_.find(id);
    auto before = waiting_.size();
    if (found != running_.end()) {
      free_ += found->second.blocks;
      running_.erase(found);
    } else {
      std::erase_if(waiting_, [id](const auto& x) { return x.id == id; });
      if (waiting_.size() == before)
        continue; // it has ended
    }
    engine::output news;
    news.id = id;
    news.finish = engine::finish_reason::cancelled;
    out.push_back(std::move(news));
  }
}

void null_engine::admit() {
  while (!waiting_.empty() && running_.size() < options_.sequences_max) {
    auto& next = waiting_.front();
    auto positions = next.prompt.size() + next.params.max_tokens;
    auto blocks = static_cast<std::uint32_t>(
        (positions + options_.block_size - 1) / options_.block_size);
    if (blocks > free_)
      return;
    free_ -= blocks;
    sequence made;
    made.output = next.resume;
    made.blocks = blocks;
    counted_.resumed_tokens += next.resume.size();
    counted_.prompt_tokens += next.prompt.size();
    auto id = next.id;
    made.what = std::move(next);
    waiting_.pop_front();
    running_.emplace(id, std::move(made));
  }
}

/// All that are not alone, or one that is: by turns.
std::vector<std::uint64_t> null_engine::choose() {
  std::vector<std::uint64_t> together;
  std::vector<std::uint64_t> alone;
  for (auto& [id, x] : running_)
    (x.what.alone ? alone : together).push_back(id);
  if (alone.empty() || (!alone_next_ && !together.empty())) {
    alone_next_ = true;
    return together;
  }
  alone_next_ = false;
  return {alone.front()};
}

void null_engine::end_step(const std::vector<std::uint64_t>& members) {
  if (hung_)
    return;
  ++counted_.steps;
  std::vector<engine::output> outputs;
  for (auto id : members) {
    auto& x = running_.at(id);
    if (x.rows_left() > options_.rows_max) {
      x.computed += options_.rows_max; // a chunk of its prompt
      continue;
    }
    draw(x, outputs);
  }
  outside_.step_ended();
  report(std::move(outputs));
  step();
}

void null_engine::draw(sequence& x, std::vector<engine::output>& out) {
  x.computed = x.what.prompt.size() + x.output.size();
  auto id = right_token(x.what.prompt, x.what.params, x.output);
  x.output.push_back(id);
  x.what.alone -= x.what.alone > 0;
  ++counted_.output_tokens;
  engine::output news;
  news.id = x.what.id;
  news.tokens = {id};
  if (ends_choice(id)) {
    news.finish = engine::finish_reason::stop;
    news.stop_token = id;
  } else if (x.output.size() >= x.what.params.max_tokens) {
    news.finish = engine::finish_reason::length;
  }
  if (news.finish != engine::finish_reason::none) {
    ++counted_.finished;
    free_ += x.blocks;
    running_.erase(news.id);
  }
  out.push_back(std::move(news));
}

void null_engine::report(std::vector<engine::output> outputs) {
  outside_.on_step({std::move(outputs), now()});
}

} // namespace troupe::sim
