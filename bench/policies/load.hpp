#pragma once

#include "engine/codec/error.hpp"
#include "engine/sampling/sampling_params.hpp"

#include <cstdint>
#include <filesystem>
#include <vector>

namespace troupe::bench {

/// A request of the simulated clients.
struct arrival {
  double at_s = 0; ///< since the load's begin
  std::uint32_t prompt_tokens = 1;
  std::uint32_t output_tokens = 1;
  /// What the prompt's blocks say, of `block_tokens` each; equal numbers are
  /// equal tokens.
  std::vector<std::uint64_t> blocks;
  std::uint32_t block_tokens = 1;
};

/// By time.
struct load {
  std::vector<arrival> arrivals;
  double seconds = 0; ///< how long it lasts
};

/// What is made of a trace's lengths.
struct trace_scale {
  double divisor = 1;               ///< of all lengths
  std::uint32_t tokens_max = 8'000; ///< of a prompt; longer ones are cut
  double seconds_max = 1e9;         ///< later requests are left out
  /// Requests of one time stamp come one after the other until the next stamp,
  /// at even distances: Mooncake's are three seconds apart.
  bool spread = true;
};

/// Mooncake's JSON lines: the blocks' sharing is kept.
result<load> read_mooncake(const std::filesystem::path&, const trace_scale&);

/// Azure's table: every prompt is different.
result<load> read_azure(const std::filesystem::path&, const trace_scale&);

/// Requests per second from one time on.
struct rate_step {
  double from_s = 0;
  double per_second = 0;
};

/// Poisson arrivals at a rate that is linear between the steps' values if
/// `linear`, else constant; lengths are drawn from `like`.
load poisson_load(const std::vector<rate_step>&, bool linear, double seconds,
                  const load& like, std::uint64_t seed);

/// The prompt, of tokens below prompt_vocabulary.
std::vector<token_id> prompt_of(const arrival&);

inline constexpr token_id prompt_vocabulary = 15;

/// Prompt tokens that a cache without a bound would have had of each request:
/// full blocks of `block_size`, never a prompt's last token.
std::vector<std::uint32_t> ideal_hits(const load&, std::uint32_t block_size);

/// The same of a cache that keeps the `tokens` used last.
std::vector<std::uint32_t> pooled_hits(const load&, std::uint32_t block_size,
                                       std::uint64_t tokens);

/// Of all blocks of all prompts, as the trace counts them (partial ones too),
/// the share that was there before.
double repeated_blocks(const load&);

} // namespace troupe::bench
