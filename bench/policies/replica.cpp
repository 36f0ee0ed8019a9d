#include "bench/policies/replica.hpp"

#include "router/policy/replica_snapshot.hpp"

#include <variant>

namespace troupe::bench {

namespace {

engine::engine_core::config core_of(const replica_options& from) {
  engine::engine_core::config out;
  out.bounds = {.max_num_seqs = from.sequences_max,
                .max_num_batched_tokens = from.rows_max,
                .max_scored_rows = 64,
                .block_size = from.block_size};
  out.kv_blocks =
      static_cast<std::uint32_t>(from.cache_tokens / from.block_size);
  out.max_model_len = from.context_max;
  out.max_waiting = 4'096;
  out.eos_ids = {timed_runner::end_token};
  out.secret = {1, 2};
  return out;
}

replica::session_limits limits_of(std::uint32_t choices_max) {
  replica::session_limits out;
  out.choices_max = choices_max;
  return out;
}

} // namespace

// -- the model
// ------------------------------------------------------------------

timed_runner::timed_runner(const replica_options& options, std::uint64_t seed)
    : options_(options), seed_(seed) {
  // nop
}

void timed_runner::plan(choice_id which, answer_plan what) {
  plans_[which] = what;
}

void timed_runner::begin(std::span<const engine::owner> of) {
  owners_.assign(of.begin(), of.end());
}

void timed_runner::submit(const engine::step_plan& plan) {
  double prompt_keys = 0, stream_keys = 0;
  for (std::size_t i = 0; i < plan.positions.size(); ++i) {
    auto is_of = [&](std::size_t k) {
      return k < plan.sequences.size() &&
             plan.sequences[k] == plan.sequences[i];
    };
    auto is_alone = !is_of(i + 1) && !(i > 0 && is_of(i - 1));
    (is_alone ? stream_keys : prompt_keys) += plan.positions[i] + 1;
  }
  seconds_ = options_.slowness *
             options_.times.of(static_cast<double>(plan.tokens.size()),
                               static_cast<double>(plan.logit_rows.size()),
                               prompt_keys, stream_keys);
  auto width = static_cast<std::size_t>(vocabulary());
  logits_.assign(plan.logit_rows.size() * width, 0);
  for (std::size_t i = 0; i < plan.logit_rows.size(); ++i) {
    auto row = static_cast<std::size_t>(plan.logit_rows[i]);
    const auto& whose = owners_[static_cast<std::size_t>(plan.sequences[row])];
    auto planned = plans_.find({whose.router, whose.record});
    auto position = static_cast<std::uint32_t>(plan.positions[row]);
    auto drawn = position + 2 - planned->second.prompt_tokens;
    auto ends = drawn >= planned->second.output_tokens;
    auto number = router::mixed(seed_ ^ router::mixed(whose.record) ^ position);
    auto token = ends ? end_token : static_cast<token_id>(number % end_token);
    logits_[i * width + static_cast<std::size_t>(token)] = 1;
    if (ends)
      plans_.erase(planned);
  }
}

// -- the process
// ----------------------------------------------------------------

simulated_replica::simulated_replica(event_queue& events,
                                     const replica_options& options,
                                     std::uint64_t incarnation,
                                     std::uint32_t choices_max, sender send)
    : events_(events), options_(options), incarnation_(incarnation),
      send_(std::move(send)), runner_(options, incarnation),
      core_(core_of(options), runner_),
      sessions_("replica#" + std::to_string(incarnation), incarnation,
                limits_of(choices_max)),
      published_(core_.now()) {
  sessions_.open();
}

void simulated_replica::attach(std::uint64_t router) {
  if (auto todo = sessions_.attach(router, protocol::protocol_version))
    run(std::move(*todo));
}

void simulated_replica::follow_blocks(std::uint64_t router, bool wanted) {
  run(sessions_.follow_blocks(router, wanted));
}

void simulated_replica::generate(std::uint64_t router,
                                 const protocol::request_record& record,
                                 answer_plan plan) {
  runner_.plan({router, record.id}, plan);
  run(sessions_.generate(router, protocol::encode(record), events_.now()));
}

void simulated_replica::cancel(std::uint64_t router, std::uint64_t record) {
  run(sessions_.cancel(router, record));
}

void simulated_replica::run(replica::session_commands todo) {
  for (auto& one : todo) {
    if (auto* submit = std::get_if<replica::submit_choice>(&one)) {
      // How long the answer may become is the client's, not the router's guess.
      submit->request.params.max_tokens = options_.answer_max;
      inbox_.push_back(std::move(submit->request));
    } else if (auto* gone = std::get_if<replica::cancel_choice>(&one)) {
      cancelled_.push_back(gone->engine_id);
    } else {
      send_(std::move(std::get<replica::send_tokens>(one)));
    }
  }
  if (!is_busy_ && !(inbox_.empty() && cancelled_.empty()))
    step();
}

// What a step gives is there when its time is over; what comes meanwhile waits
// in the inbox, as at the engine's thread.
void simulated_replica::step() {
  for (auto& request : std::exchange(inbox_, {}))
    core_.submit(std::move(request));
  for (auto id : std::exchange(cancelled_, {}))
    core_.cancel(id);
  auto steps = core_.now().steps;
  auto result = core_.step(&runner_);
  auto seconds = result.now.steps > steps ? runner_.seconds() : 0;
  is_busy_ = true;
  events_.after(nanoseconds_of(seconds),
                [this, seconds, result = std::move(result)]() mutable {
                  stepped(std::move(result), seconds);
                });
}

void simulated_replica::stepped(engine::step_result result, double seconds) {
  auto rows = [](const engine::stats& of) {
    return of.prompt_tokens + of.resumed_tokens + of.output_tokens;
  };
  if (published_.steps > 0 && result.now.steps > published_.steps) {
    std::chrono::duration<double> time{seconds};
    auto computed = rows(result.now) - rows(published_);
    rate_.step(computed, time);
    fit_.step(computed, time);
  }
  result.now.few_rows_us = fit_.few_rows_us();
  result.now.many_rows_us = fit_.many_rows_us();
  published_ = result.now;
  published_.tokens_per_second = rate_.per_second();
  is_busy_ = false;
  run(sessions_.step(std::move(result)));
  if (!is_busy_ && core_.living() > 0)
    step();
}

protocol::replica_load_news simulated_replica::news() const {
  protocol::replica_load_news out;
  out.application = "app";
  out.model = "model";
  out.replica = "replica#" + std::to_string(incarnation_);
  out.incarnation = incarnation_;
  out.choices = published_.running + published_.waiting +
                static_cast<std::uint32_t>(inbox_.size());
  out.waiting_tokens = published_.waiting_tokens;
  out.answer_tokens = published_.answer_tokens;
  out.tokens_per_second =
      static_cast<std::uint32_t>(published_.tokens_per_second);
  out.seats = published_.seats;
  out.prompt_tokens = published_.prompt_tokens;
  out.output_tokens = published_.output_tokens;
  out.finished = published_.finished;
  return out;
}

} // namespace troupe::bench
