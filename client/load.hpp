#pragma once

#include "client/service_url.hpp"
#include "engine/codec/error.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace troupe::client {

/// A load on a service: streamed completions of made-up words.
struct load_plan {
  service_url where;
  std::string api_key;
  std::string model;
  /// Requests per second at random (Poisson) times, however many are under way
  /// (open loop). 0 = always `concurrency` at a time (closed loop).
  double rate = 0;
  std::uint32_t concurrency = 1; ///< in an open loop: the most at a time
  std::uint64_t requests = 100;
  std::chrono::duration<double> time_max{0}; ///< none is begun later; 0 = none
  std::uint32_t prompt_words = 128;
  std::uint32_t max_tokens = 128; ///< answers have so many: eos is ignored
  std::uint64_t seed = 0;         ///< of prompts, times and sampling
};

constexpr std::uint64_t requests_max = 1'000'000;
/// Gaps between tokens that are kept; those of later tokens are not.
constexpr std::size_t gaps_max = 1u << 24;

/// What came of it. Times in seconds.
struct load_result {
  std::uint64_t begun = 0;
  std::uint64_t answered = 0; ///< wholly, with 200
  std::uint64_t refused = 0;  ///< with 429 or 503
  std::uint64_t failed = 0;   ///< in any other way
  std::uint64_t skipped = 0;  ///< open loop: their time came with too many on
  bool interrupted = false;   ///< by SIGINT; what was under way is given up
  std::string failure;        ///< the first one's sentence
  double seconds = 0;         ///< from the first request to the last answer
  std::uint64_t prompt_tokens = 0;
  std::uint64_t output_tokens = 0;
  // Of what was answered:
  std::vector<float> first_token; ///< from the request's beginning
  std::vector<float> whole;
  std::vector<float> gaps; ///< between two pieces of a stream

  std::uint64_t given_up() const {
    return begun - answered - refused - failed;
  }
};

/// Makes the load; blocks. `on_answer` hears after each answer how many of the
/// requests are over. A SIGINT meanwhile ends it: no more is sent, and what was
/// measured by then is given back.
load_result run_load(const load_plan&,
                     const std::function<void(std::uint64_t over)>& on_answer);

/// The value that `share` of them (0 to 1) do not exceed; 0 if there is none.
/// Sorts them.
float percentile(std::vector<float>& values, double share);

/// The numbers of a result as a JSON object, times in milliseconds.
std::string to_json(const load_plan&, load_result&);

/// The same as a table for people.
std::string to_table(const load_plan&, load_result&);

} // namespace troupe::client
