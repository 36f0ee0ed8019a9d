#pragma once

#include "actors/protocol/kv_events.hpp"
#include "actors/protocol/routing_table.hpp"
#include "engine/codec/error.hpp"
#include "engine/codec/tagged.hpp"
#include "engine/sampling/sampling_params.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace troupe::protocol {

/// Why a choice ended, as a replica tells it.
enum class finish : std::uint8_t { none, stop, length, cancelled, error };

struct token_logprob {
  token_id id = 0;
  float logprob = 0;

  bool operator==(const token_logprob&) const = default;
};

/// News of one choice.
struct choice_tokens {
  std::uint64_t id = 0; ///< request_record::id
  std::vector<token_id> tokens;
  /// One per token if asked for: the chosen one, then the best in descending
  /// order.
  std::vector<std::vector<token_logprob>> logprobs;
  std::vector<std::vector<token_logprob>> prompt_logprobs; ///< first news only
  /// What a model gives that draws no tokens: its only news.
  std::vector<float> vector;
  std::uint32_t cached_tokens = 0; ///< first news only
  finish reason = finish::none;
  token_id stop_token = -1;
  errc code = errc::internal; ///< with reason == error
  std::string message;        ///< with reason == error

  bool operator==(const choice_tokens&) const = default;
};

/// All that one engine step gave one router: one message per step and router.
struct token_batch {
  std::string replica;           ///< replica id
  std::uint64_t incarnation = 0; ///< the replica's; older ones are dropped
  std::uint64_t step = 0;
  std::vector<choice_tokens> choices;
  kv_events blocks = {}; ///< to a router that asked for them; since version 5
  /// Choices that wait in the engine, of all routers. Since version 6.
  std::uint32_t waiting = 0;
  /// What is still to do there for other routers (tokens_to_do). Since
  /// version 6.
  std::uint64_t others_tokens = 0;
  /// As in engine::stats. Since version 6.
  std::uint32_t few_rows_us = 0;
  std::uint32_t many_rows_us = 0;
  /// It has no session over the connection that these choices came by: they are
  /// not there, and none that comes by it would be. A router of before version
  /// 7 cannot read it, and gives its session up for that, as it should.
  bool no_session = false;

  bool operator==(const token_batch&) const = default;
};

/// For a reader of protocol version `version`.
codec::bytes encode(const token_batch&,
                    std::uint32_t version = protocol_version);
/// As a reader of protocol version `version`.
result<token_batch>
decode_token_batch(codec::bytes_view, std::uint32_t version = protocol_version);

} // namespace troupe::protocol
