#include "router/answer.hpp"

#include <algorithm>

namespace troupe::router {

namespace {

using protocol::choice_tokens;
using protocol::finish;

// Characters begun in these bytes: what the tokens of a text count adds up to
// the text's characters, also where one is spread over several tokens.
std::size_t characters(std::string_view bytes) {
  return static_cast<std::size_t>(
      std::count_if(bytes.begin(), bytes.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
      }));
}

bool contains(const std::vector<token_id>& ids, token_id id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

} // namespace

answer::answer(answer_plan plan) : plan_(std::move(plan)) {
  open_ = plan_.prompts.size() * plan_.n;
  text::stop_strings stops{plan_.stop, plan_.include_stop_in_output};
  choices_.reserve(open_);
  for (std::size_t i = 0; i < open_; ++i) {
    choices_.push_back({
        .detokenizer = {plan_.tokenizer, plan_.skip_special_tokens},
        .stops = stops,
        .piece = {},
    });
    choices_.back().piece.index = static_cast<std::uint32_t>(i);
    choices_.back().piece.with_logprobs = plan_.with_logprobs;
  }
}

// All choices of a chat get their role before any token.
std::uint32_t answer::openings() const {
  return plan_.chat && plan_.stream
             ? static_cast<std::uint32_t>(choices_.size())
             : 0;
}

void answer::open(std::uint32_t part, std::string& frames) const {
  auto ids = plan_.head.return_token_ids;
  frames += api::chat_role_frame(
      plan_.head, part, ids ? prompt_of(part) : std::vector<token_id>{},
      running_usage(part));
}

result<bool> answer::take(std::uint32_t index, const choice_tokens& news,
                          std::string& frames) {
  if (index >= choices_.size() || !choices_[index].open)
    return false;
  auto& choice = choices_[index];
  if (auto wrong = check(choice, news))
    return *wrong;
  if (!choice.started)
    begin(index, news);
  bool stopped = false;
  if (!plan_.echo_only)
    for (std::size_t i = 0; i < news.tokens.size() && !stopped; ++i)
      stopped = take_token(choice, news, i);
  bool ended_there = news.reason != finish::none;
  if (!stopped && (ended_there || plan_.echo_only))
    end(choice, news);
  flush(index, frames);
  return !choice.open && !ended_there;
}

std::string answer::closing_frames() const {
  std::string out;
  if (plan_.include_usage)
    out += api::usage_frame(plan_.head, plan_.chat, usage());
  out += api::done_frame;
  return out;
}

std::string answer::body() const {
  std::vector<api::choice_piece> pieces;
  pieces.reserve(choices_.size());
  for (auto& choice : choices_)
    pieces.push_back(choice.piece);
  return plan_.chat ? api::chat_body(plan_.head, pieces, usage())
                    : api::completion_body(plan_.head, pieces, usage());
}

// The choices of one prompt share it: it counts once, and what the cache held
// of it is what its first choice found.
api::usage answer::usage() const {
  api::usage out;
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    out.completion_tokens += choices_[i].completion_tokens;
    if (i % plan_.n != 0)
      continue;
    out.prompt_tokens += plan_.prompts[i / plan_.n].size();
    out.cached_tokens += choices_[i].cached_tokens;
  }
  return out;
}

std::optional<error> answer::check(const choice_state& choice,
                                   const choice_tokens& news) const {
  auto broken = error{errc::internal, "The replica's answer was not valid."};
  auto known = [size = std::int64_t{plan_.vocabulary_size}](token_id id) {
    return id >= 0 && id < size;
  };
  if (!std::all_of(news.tokens.begin(), news.tokens.end(), known))
    return broken;
  if (choice.completion_tokens + news.tokens.size() >
      std::max<std::uint64_t>(plan_.max_tokens, 1))
    return broken;
  if (!plan_.with_logprobs)
    return std::nullopt;
  if (news.logprobs.size() != news.tokens.size())
    return broken;
  for (auto* lists : {&news.logprobs, &news.prompt_logprobs})
    for (auto& candidates : *lists)
      for (auto& candidate : candidates)
        if (!known(candidate.id))
          return broken;
  return std::nullopt;
}

void answer::begin(std::uint32_t index, const choice_tokens& news) {
  auto& choice = choices_[index];
  choice.started = true;
  choice.cached_tokens =
      std::min<std::uint64_t>(news.cached_tokens, prompt_of(index).size());
  if (plan_.head.return_token_ids && openings() == 0)
    choice.piece.prompt_token_ids = prompt_of(index);
  if (plan_.echo)
    show_prompt(index, news);
}

void answer::show_prompt(std::uint32_t index, const choice_tokens& news) {
  auto& choice = choices_[index];
  choice.piece.text += plan_.prompt_texts[index / plan_.n];
  if (!plan_.with_logprobs)
    return;
  auto& prompt = prompt_of(index);
  auto& known = news.prompt_logprobs;
  // The first position has no candidates, whether or not the list begins there.
  auto skipped = prompt.size() - std::min(prompt.size(), known.size());
  for (std::size_t i = 0; i < prompt.size(); ++i)
    show(choice, prompt[i], i < skipped ? nullptr : &known[i - skipped]);
}

// One token of an open choice. True once a stop string completed.
bool answer::take_token(choice_state& choice, const choice_tokens& news,
                        std::size_t i) {
  auto id = news.tokens[i];
  ++choice.completion_tokens;
  if (plan_.head.return_token_ids)
    choice.piece.token_ids.push_back(id);
  if (plan_.with_logprobs)
    show(choice, id, &news.logprobs[i]);
  bool ends = news.reason == finish::stop && i + 1 == news.tokens.size() &&
              news.stop_token == id;
  if (ends && !plan_.include_stop_in_output)
    return false;
  return add_text(choice, id);
}

bool answer::add_text(choice_state& choice, token_id id) {
  std::string text;
  choice.detokenizer.push(id, text);
  if (choice.completion_tokens <= plan_.min_tokens) {
    choice.piece.text += text;
    return false;
  }
  return matched(choice, choice.stops.push(text, choice.piece.text));
}

bool answer::matched(choice_state& choice, std::optional<std::size_t> stop) {
  if (!stop)
    return false;
  choice.piece.finish_reason = "stop";
  choice.piece.stop_reason = plan_.stop[*stop];
  close(choice);
  return true;
}

void answer::end(choice_state& choice, const choice_tokens& news) {
  std::string text;
  choice.detokenizer.finish(text);
  if (matched(choice, choice.stops.push(text, choice.piece.text)))
    return;
  choice.stops.finish(choice.piece.text);
  if (news.reason == finish::stop && !plan_.echo_only) {
    choice.piece.finish_reason = "stop";
    if (contains(plan_.stop_token_ids, news.stop_token))
      choice.piece.stop_reason = news.stop_token;
  } else {
    choice.piece.finish_reason = "length";
  }
  close(choice);
}

void answer::close(choice_state& choice) {
  choice.open = false;
  --open_;
}

void answer::show(choice_state& choice, token_id id,
                  const std::vector<protocol::token_logprob>* candidates) {
  auto& tokenizer = *plan_.tokenizer;
  api::shown_token token;
  token.id = id;
  token.bytes = tokenizer.bytes_of(id);
  token.text_offset = choice.text_offset;
  choice.text_offset += characters(token.bytes);
  if (candidates != nullptr && !candidates->empty()) {
    token.logprob = candidates->front().logprob;
    for (std::size_t i = 1; i < candidates->size(); ++i)
      token.top.push_back({std::string{tokenizer.bytes_of((*candidates)[i].id)},
                           (*candidates)[i].logprob});
  }
  choice.piece.tokens.push_back(std::move(token));
}

// Ids and log-probabilities of tokens that show no text yet go with the text
// that they begin.
void answer::flush(std::uint32_t index, std::string& frames) {
  auto& choice = choices_[index];
  if (!plan_.stream || (choice.open && choice.piece.text.empty()))
    return;
  frames += plan_.chat ? api::chat_frame(plan_.head, choice.piece,
                                         running_usage(index))
                       : api::completion_frame(plan_.head, choice.piece,
                                               running_usage(index));
  auto& piece = choice.piece;
  piece.text.clear();
  piece.token_ids.clear();
  piece.prompt_token_ids.clear();
  piece.tokens.clear();
}

std::optional<api::usage> answer::running_usage(std::uint32_t index) const {
  if (!plan_.continuous_usage)
    return std::nullopt;
  auto& choice = choices_[index];
  return api::usage{prompt_of(index).size(), choice.completion_tokens,
                    choice.cached_tokens};
}

} // namespace troupe::router
