#pragma once

#include "engine/engine.hpp"
#include "tests/sim/process.hpp"

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <vector>

namespace troupe::sim {

/// What a model of this simulator says. Token i is a pure function of prompt,
/// seed, choice and i; `before` are the tokens 0 .. i - 1, which go into it, so
/// that a wrong one makes all that follow wrong.
token_id right_token(const std::vector<token_id>& prompt,
                     const sampling_params&, std::span<const token_id> before);
/// Ends a choice.
bool ends_choice(token_id);
/// The whole answer of a choice.
std::vector<token_id> right_answer(const std::vector<token_id>& prompt,
                                   const sampling_params&);

/// A prompt that ends the process which computes token `at`.
void make_poison(std::vector<token_id>& prompt, std::uint32_t at);
bool is_poison(const std::vector<token_id>& prompt, std::uint32_t at);

struct null_engine_options {
  std::uint32_t sequences_max = 4;
  std::uint32_t rows_max = 64; ///< of a step
  std::uint32_t block_size = 8;
  std::uint32_t blocks = 256;
  nanoseconds step_time = milliseconds{10};
};

/// An engine that computes nothing but takes its time for it: steps, waiting
/// and running sequences, blocks that are taken and given back, steps of their
/// own for `alone`. Lives in a process and stands still with it.
class null_engine {
public:
  struct outside {
    std::function<void(engine::step_result&&)> on_step;
    std::function<void(std::span<const engine::owner>)> step_begins;
    std::function<void()> step_ended;
    /// The computation of this token of a choice has killed the process.
    std::function<void(engine::owner, std::size_t at)> crash;
  };

  null_engine(process& self, world&, null_engine_options, outside);

  void submit(engine::request);
  void cancel(std::uint64_t id);
  engine::stats now() const;
  /// From now on no step ends.
  void hang() {
    hung_ = true;
  }

private:
  struct sequence {
    engine::request what;
    std::vector<token_id> output;
    std::size_t computed = 0; ///< rows of prompt and output
    std::uint32_t blocks = 0;

    std::size_t rows_left() const {
      return what.prompt.size() + output.size() - computed;
    }
  };

  void wake();
  void step();
  void end_cancelled(std::vector<engine::output>&);
  void admit();
  std::vector<std::uint64_t> choose();
  void end_step(const std::vector<std::uint64_t>& members);
  void draw(sequence&, std::vector<engine::output>&);
  void report(std::vector<engine::output>);

  process& self_;
  world& world_;
  null_engine_options options_;
  outside outside_;
  std::map<std::uint64_t, sequence> running_; // by id
  std::deque<engine::request> waiting_;
  std::set<std::uint64_t> cancelled_;
  bool busy_ = false; // a step is being made, or about to
  bool hung_ = false;
  bool alone_next_ = false;
  std::uint32_t free_ = 0;
  double rows_ = 0;       // of all steps
  nanoseconds worked_{0}; // at them
  engine::stats counted_;
};

} // namespace troupe::sim
