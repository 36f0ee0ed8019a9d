#include "tests/cluster/replica/faulty_engine.hpp"

#include "tests/cluster/replica/shifted_random.hpp"

#include <algorithm>
#include <csignal>
#include <utility>

#include <unistd.h>

namespace troupe::test {

namespace {

/// Takes memory until none is given: then `new` throws, and nobody catches it.
/// A process without a limit gets it all and lives: nothing is written there.
void take_all_memory() {
  constexpr std::size_t piece = 16 << 20;
  constexpr std::size_t pieces_max = 4096;
  std::vector<std::unique_ptr<char[]>> taken;
  while (taken.size() < pieces_max)
    taken.emplace_back(new char[piece]);
}

} // namespace

faulty_engine::faulty_engine(std::unique_ptr<api::engine> inner,
                             fault_plan plan)
    : plan_(std::move(plan)), inner_(std::move(inner)) {
  // nop
}

const text::model_card& faulty_engine::card() const {
  return inner_->card();
}

const api::description& faulty_engine::about() const {
  return inner_->about();
}

void faulty_engine::start(std::function<void(api::step_result&&)> on_step,
                          api::step_watch* watch) {
  watch_ = watch;
  on_step_ = std::move(on_step);
  inner_->start(
      [this](api::step_result&& result) {
        count(result);
        on_step_(std::move(result));
      },
      this);
}

void faulty_engine::submit(api::request x) {
  choice made{.whose = x.whose,
              .seed = x.params.seed,
              .index = x.params.choice,
              .outputs = x.resume.size()};
  made.aborts = !plan_.abort_prompt.empty() &&
                !std::ranges::search(x.prompt, plan_.abort_prompt).empty();
  if (!x.resume.empty()) {
    made.repeats = plan_.resume == "repeat";
    resume_wrongly(x);
  }
  {
    std::lock_guard guard{mutex_};
    choices_.insert_or_assign(x.id, made);
  }
  inner_->submit(std::move(x));
}

void faulty_engine::cancel(std::uint64_t id) {
  inner_->cancel(id);
}

api::stats faulty_engine::now() const {
  return inner_->now();
}

void faulty_engine::begin(std::span<const api::owner> of) {
  if (watch_)
    watch_->begin(of);
  hang_if_asked();
  abort_if_asked(of);
}

void faulty_engine::end() {
  if (watch_)
    watch_->end();
}

void faulty_engine::hang_if_asked() const {
  if (plan_.hang_file.empty() || ::unlink(plan_.hang_file.c_str()) != 0)
    return;
  while (true)
    ::pause();
}

void faulty_engine::abort_if_asked(std::span<const api::owner> of) {
  std::lock_guard guard{mutex_};
  for (const auto& [id, x] : choices_)
    if (x.aborts && x.outputs >= plan_.abort_output &&
        std::ranges::find(of, x.whose) != of.end())
      abort();
}

void faulty_engine::abort() const {
  if (plan_.abort_by_memory)
    take_all_memory();
  else
    std::raise(SIGSEGV);
}

void faulty_engine::resume_wrongly(api::request& x) const {
  if (plan_.resume == "position") {
    shift_random(x.params.seed, x.params.choice, true);
  } else if (plan_.resume == "penalties") {
    x.params.frequency_penalty = 0;
    x.params.presence_penalty = 0;
    x.params.repetition_penalty = 1;
  }
}

void faulty_engine::count(api::step_result& result) {
  std::lock_guard guard{mutex_};
  for (auto& news : result.outputs) {
    auto i = choices_.find(news.id);
    if (i == choices_.end())
      continue;
    auto& x = i->second;
    x.outputs += news.tokens.size();
    if (x.repeats && !news.tokens.empty()) {
      x.repeats = false;
      news.tokens.insert(news.tokens.begin(), news.tokens.front());
      if (!news.logprobs.empty())
        news.logprobs.insert(news.logprobs.begin(), news.logprobs.front());
    }
    if (news.finish == api::finish_reason::none)
      continue;
    shift_random(x.seed, x.index, false);
    choices_.erase(i);
  }
}

} // namespace troupe::test
