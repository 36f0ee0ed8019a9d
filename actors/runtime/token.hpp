#pragma once

#include "actors/runtime/authority.hpp"
#include "engine/codec/error.hpp"

#include <chrono>
#include <cstdint>
#include <string>

namespace troupe::runtime {

/// What lets a machine join until it expires: the authority's fingerprint, the
/// time, and a MAC that only the head can make. A secret; fit for a command
/// line (letters, digits, "-", "_", "."):
///
///   troupe1.<fingerprint, 64 hex digits>.<expires>.<MAC, 64 hex digits>
struct join_token {
  std::string authority_hash; ///< SHA-256 of the authority's certificate, hex
  std::uint64_t expires = 0;  ///< seconds since 1970
  std::string text;           ///< the whole token
};

/// A new token that is good for so long (1 s to 366 days). The key of its MAC
/// lies in the authority's directory (mode 0600).
result<join_token> create_token(const authority&,
                                std::chrono::seconds good_for);

/// Reads a token without checking its MAC (the worker cannot).
result<join_token> read_token(const std::string& text);

/// Says whether the authority gave out the token and it is still good at `now`
/// (seconds since 1970), else what is wrong: not a token, of another cluster,
/// damaged, expired.
result<void> check_token(const authority&, const std::string& text,
                         std::uint64_t now);

/// Seconds since 1970.
std::uint64_t seconds_now();

} // namespace troupe::runtime
