#pragma once

#include "actors/protocol/routing_table.hpp"
#include "engine/codec/error.hpp"
#include "engine/codec/tagged.hpp"
#include "engine/sampling/sampling_params.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace troupe::protocol {

/// Tokens that a choice draws in steps of its own before it is trusted again:
/// more than those that are on their way to its router when a replica dies, and
/// that it draws once more.
inline constexpr std::uint32_t alone_tokens = 4;

/// Output that a choice is expected to give, however much it may.
inline constexpr std::uint32_t expected_output_max = 256;

/// One choice of one request: what a router sends a replica, what it keeps to
/// resume, what is recorded for replay. Choices of one client request
/// (`n`, several prompts) are records of their own with ids of their own; their
/// random numbers differ by `params.choice`.
struct request_record {
  std::uint64_t id = 0;   ///< unique within the sending router's life
  std::string request_id; ///< the client's x-request-id, for logs
  std::string model;
  std::vector<token_id> prompt;
  /// Where the second of two texts begins in the prompt; 0: there is one text.
  std::uint32_t second_text = 0;
  std::vector<token_id> output; ///< ids already emitted, when it resumes
  sampling_params params;
  std::int32_t priority = 0;
  std::uint64_t deadline_ms = 0; ///< time left when it was sent; 0 = none
  /// Until `alone_tokens` more are drawn, compute it in steps of its own: it
  /// was in the step that ended a replica.
  bool alone = false;

  bool operator==(const request_record&) const = default;
};

/// What a replica computes before the choice's next token.
std::uint64_t tokens_given(const request_record&);

/// That, and the output that is to be expected: what may come, 256 tokens at
/// most.
std::uint64_t tokens_to_do(const request_record&);

/// The one encoder (engine/codec/tagged.hpp), for a reader of protocol version
/// `version`. A field that the reader does not know is refused by number.
codec::bytes encode(const request_record&,
                    std::uint32_t version = protocol_version);
/// As a reader of protocol version `version`.
result<request_record>
decode_request_record(codec::bytes_view,
                      std::uint32_t version = protocol_version);

} // namespace troupe::protocol
