#include "engine/pooling_core.hpp"

#include "engine/request_check.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

namespace troupe::engine {

pooling_core::pooling_core(config c, pooling_runner& runner)
    : config_(c), runner_(runner) {
}

// -- submit and cancel --------------------------------------------------------

std::optional<error> pooling_core::find_fault(const request& r) const {
  const auto invalid = [](std::string message) {
    return error{errc::invalid_argument, std::move(message)};
  };
  if (r.prompt.empty())
    return invalid("the prompt is empty");
  if (r.prompt.size() > config_.max_model_len)
    return invalid("the prompt has " + std::to_string(r.prompt.size()) +
                   " tokens; it may have " +
                   std::to_string(config_.max_model_len));
  if (r.second_text > r.prompt.size())
    return invalid("the second text begins behind the prompt");
  return find_foreign_id(r.prompt, "prompt", runner_.vocabulary());
}

void pooling_core::refuse(std::uint64_t id, error why) {
  outputs_.push_back(refusal_of(id, std::move(why)));
}

error pooling_core::queue_is_full() const {
  return full_queue(config_.max_waiting);
}

void pooling_core::submit(request r) {
  if (auto fault = find_fault(r))
    return refuse(r.id, std::move(*fault));
  if (ids_.contains(r.id))
    return refuse(r.id, {errc::invalid_argument, "this id is in use"});
  if (living() >= most_living())
    return refuse(r.id, queue_is_full());
  ids_.insert(r.id);
  waiting_tokens_ += r.prompt.size();
  (r.alone > 0 ? alone_ : line_).push_back(std::move(r));
}

void pooling_core::cancel(std::uint64_t id) {
  if (!ids_.contains(id))
    return;
  for (auto* line : {&line_, &alone_}) {
    const auto found = std::ranges::find(*line, id, &request::id);
    if (found == line->end())
      continue;
    finish(*found, finish_reason::cancelled);
    line->erase(found);
  }
}

output& pooling_core::finish(const request& r, finish_reason reason) {
  ids_.erase(r.id);
  waiting_tokens_ -= r.prompt.size();
  ++stats_.finished;
  output& news = outputs_.emplace_back();
  news.id = r.id;
  news.finish = reason;
  return news;
}

// -- one step -----------------------------------------------------------------

step_result pooling_core::step(step_watch* watch) {
  if (living() > 0) {
    plan();
    if (watch)
      tell(*watch);
    auto vectors = runner_.run(sequences_);
    const auto size = static_cast<std::size_t>(runner_.size());
    for (std::size_t i = 0; i < step_.size(); ++i)
      give(step_[i], vectors.subspan(i * size, size));
    if (watch)
      watch->end();
    ++stats_.steps;
  }
  step_result result;
  result.outputs = std::exchange(outputs_, {});
  result.now = now();
  return result;
}

stats pooling_core::now() const {
  stats s = stats_;
  s.weight_bytes_read = runner_.weight_bytes_read();
  const bool alone_is_next =
      line_.empty() || (!alone_.empty() && !alone_had_its_turn_);
  s.running = static_cast<std::uint32_t>(
      alone_is_next ? std::min<std::size_t>(alone_.size(), 1) : count_next());
  s.waiting = living() - s.running;
  s.waiting_tokens = waiting_tokens_;
  s.seats = config_.max_num_seqs;
  return s;
}

/// How many from the front of the line fit into a step.
std::size_t pooling_core::count_next() const {
  std::size_t count = 0, tokens = 0;
  for (const request& r : line_) {
    tokens += r.prompt.size();
    if (count == config_.max_num_seqs ||
        (count > 0 && tokens > config_.max_num_batched_tokens))
      break;
    ++count;
  }
  return count;
}

void pooling_core::plan() {
  alone_had_its_turn_ =
      line_.empty() || (!alone_.empty() && !alone_had_its_turn_);
  auto& line = alone_had_its_turn_ ? alone_ : line_;
  const auto count = alone_had_its_turn_ ? 1 : count_next();
  step_.clear();
  sequences_.clear();
  for (std::size_t i = 0; i < count; ++i) {
    step_.push_back(std::move(line.front()));
    line.pop_front();
  }
  for (const request& r : step_)
    sequences_.push_back({r.prompt, r.second_text});
}

void pooling_core::tell(step_watch& watch) {
  owners_.clear();
  for (const request& r : step_)
    owners_.push_back(r.whose);
  watch.begin(owners_);
}

void pooling_core::give(const request& r, std::span<const float> vector) {
  stats_.prompt_tokens += r.prompt.size();
  const bool is_finite =
      std::ranges::all_of(vector, [](float one) { return std::isfinite(one); });
  output& news =
      finish(r, is_finite ? finish_reason::stop : finish_reason::error);
  if (is_finite)
    news.vector.assign(vector.begin(), vector.end());
  else
    news.message = "the model gave a number that is not finite";
}

} // namespace troupe::engine
