#pragma once

#include "engine/engine_core.hpp"

#include "hash_runner.hpp"

#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace troupe::engine {

inline constexpr std::int32_t vocabulary = 40;
inline constexpr token_id eos = 3;

/// All that one choice gave.
struct told {
  std::vector<token_id> tokens;
  std::vector<std::vector<candidate>> logprobs;
  std::vector<std::vector<candidate>> prompt_logprobs;
  std::uint32_t cached_tokens = 0;
  finish_reason finish = finish_reason::none;
  token_id stop_token = -1;
  errc code = errc::internal;
  std::string message;
  std::vector<std::uint64_t> steps; ///< the step of each token

  /// What a client sees, without what the cache had.
  bool same_as(const told& other) const {
    return tokens == other.tokens && logprobs == other.logprobs &&
           prompt_logprobs == other.prompt_logprobs && finish == other.finish &&
           stop_token == other.stop_token;
  }
};

using replies = std::map<std::uint64_t, told>;

inline engine_core::config roomy() {
  engine_core::config c;
  c.bounds = {.max_num_seqs = 64,
              .max_num_batched_tokens = 64,
              .max_scored_rows = 16,
              .block_size = 4};
  c.kv_blocks = 400;
  c.max_model_len = 200;
  c.max_waiting = 1000;
  c.eos_ids = {eos};
  c.secret = {1, 2};
  return c;
}

/// Bounds and a pool that are tight in every way; up to `seats_max` sequences
/// run.
inline engine_core::config tiny(std::mt19937& random, unsigned seats_max) {
  engine_core::config c = roomy();
  c.bounds.max_num_seqs = 1 + random() % seats_max;
  c.bounds.max_num_batched_tokens = 1 + random() % 12;
  c.bounds.max_scored_rows = 1 + random() % 4;
  c.bounds.block_size = 1 + random() % 5;
  c.kv_blocks =
      (60 + c.bounds.block_size - 1) / c.bounds.block_size + random() % 4;
  c.max_model_len = 60;
  c.enable_prefix_caching = random() % 4 != 0;
  return c;
}

/// A core on a hash_runner, and what it said.
class bench {
public:
  explicit bench(engine_core::config c, bool has_roles = false)
      : runner(vocabulary, c.kv_blocks, c.bounds.block_size, has_roles),
        core(std::move(c), runner) {
  }

  step_result step(step_watch* watch = nullptr) {
    step_result result = core.step(watch);
    for (output& o : result.outputs)
      take(o, result.now.steps);
    return result;
  }

  /// Steps until nothing lives; false if that takes more than `most` steps.
  bool run(std::uint64_t most = 100000) {
    step();
    while (core.living() > 0 && most-- > 0)
      step();
    return core.living() == 0;
  }

  /// Submits them in order, with up to `most` steps between two.
  void submit_all(const std::vector<request>& requests, std::mt19937& random,
                  std::uint32_t most) {
    for (const request& r : requests) {
      core.submit(r);
      for (std::uint32_t steps = random() % (most + 1); steps > 0; --steps)
        step();
    }
  }

  told reply_to(request r) {
    const std::uint64_t id = r.id;
    core.submit(std::move(r));
    run();
    return said[id];
  }

  hash_runner runner;
  engine_core core;
  replies said;

private:
  void take(output& o, std::uint64_t step) {
    told& t = said[o.id];
    if (t.finish != finish_reason::none)
      throw std::logic_error{"an output after the end"};
    if (t.steps.empty()) {
      t.cached_tokens = o.cached_tokens;
      t.prompt_logprobs = o.prompt_logprobs;
    }
    for (token_id id : o.tokens) {
      t.tokens.push_back(id);
      t.steps.push_back(step);
    }
    for (auto& l : o.logprobs)
      t.logprobs.push_back(l);
    t.finish = o.finish;
    t.stop_token = o.stop_token;
    t.code = o.code;
    t.message = o.message;
  }
};

inline std::vector<token_id> prompt_of(std::uint32_t size,
                                       std::uint32_t seed = 1) {
  std::mt19937 random{seed};
  std::vector<token_id> prompt;
  for (std::uint32_t i = 0; i < size; ++i)
    prompt.push_back(static_cast<token_id>(random() % vocabulary));
  return prompt;
}

inline request ask(std::uint64_t id, std::vector<token_id> prompt,
                   std::uint32_t max_tokens) {
  request r;
  r.id = id;
  r.prompt = std::move(prompt);
  r.params.max_tokens = max_tokens;
  r.params.seed = id;
  return r;
}

inline request greedy(std::uint64_t id, std::vector<token_id> prompt,
                      std::uint32_t max_tokens) {
  request r = ask(id, std::move(prompt), max_tokens);
  r.params.temperature = 0;
  r.params.ignore_eos = true;
  return r;
}

inline told alone(const request& r, engine_core::config c = roomy()) {
  bench b{std::move(c)};
  return b.reply_to(r);
}

/// A request with a mixture of parameters; prompts share beginnings.
inline request random_request(std::uint64_t id, std::mt19937& random) {
  auto one_in = [&](unsigned n) { return random() % n == 0; };
  auto prompt = prompt_of(1 + random() % 30, random() % 3);
  for (std::uint32_t i = random() % 4; i > 0; --i)
    prompt.push_back(random() % vocabulary);
  request r = ask(id, prompt, random() % 25);
  sampling_params& p = r.params;
  p.seed = random();
  p.temperature = one_in(3) ? 0.0f : 0.9f;
  p.top_k = one_in(3) ? 7 : 0;
  p.top_p = one_in(3) ? 0.8f : 1.0f;
  p.repetition_penalty = one_in(3) ? 1.3f : 1.0f;
  p.frequency_penalty = one_in(3) ? 0.5f : 0.0f;
  p.min_tokens = one_in(3) ? 5 : 0;
  p.ignore_eos = one_in(3);
  if (one_in(3))
    p.stop_token_ids = {8};
  p.logprobs = one_in(3) ? 2 : -1;
  p.prompt_logprobs = one_in(4) ? 1 : -1;
  return r;
}

inline std::uint32_t positions_of(const request& r) {
  return static_cast<std::uint32_t>(r.prompt.size()) + r.params.max_tokens;
}

} // namespace troupe::engine
