#pragma once

#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/request_record.hpp"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>

// Which request is it that ends replicas? Pure: no clock, no threads.

namespace troupe::router {

/// What the death of a replica says about a choice that was there.
enum class verdict {
  bystander, ///< goes on elsewhere at once
  suspect,   ///< goes on elsewhere, computed alone for a few tokens
  guilty,    ///< it was alone already: nobody else can have been it
};

/// `choice` is (router incarnation, record id) of the choice's last sending;
/// `on_trial`: it was a suspect then, and sent to be computed alone.
verdict judge(const protocol::death_notice&,
              const std::pair<std::uint64_t, std::uint64_t>& choice,
              bool on_trial);

/// The last so many death notices, by the incarnation of the dead.
class death_notes {
public:
  explicit death_notes(std::size_t notes_max) : notes_max_(notes_max) {
    // nop
  }

  void add(protocol::death_notice);

  /// Null if there is none (any more).
  const protocol::death_notice* find(std::uint64_t incarnation) const;

private:
  std::size_t notes_max_;
  std::map<std::uint64_t, protocol::death_notice> notes_;
  std::deque<std::uint64_t> order_; // oldest first
};

/// What makes two requests the same one, for ever and everywhere: SHA-256 over
/// application, model, prompt and parameters without seed and choice index.
using fingerprint = std::array<unsigned char, 32>;

fingerprint fingerprint_of(const std::string& application,
                           const protocol::request_record&);

/// Requests that are refused for a while, each with the id of the incident.
/// Holds so many; the oldest gives way.
class ban_list {
public:
  using time_point = std::chrono::steady_clock::time_point;

  ban_list(std::size_t bans_max, std::chrono::milliseconds duration)
      : bans_max_(bans_max), duration_(duration) {
    // nop
  }

  /// A request that is banned already keeps its incident.
  void add(const fingerprint&, std::string incident, time_point now);

  /// The incident for which the request is banned now.
  std::optional<std::string> find(const fingerprint&, time_point now) const;

  /// Forgets what is over.
  void expire(time_point now);

  bool empty() const {
    return bans_.empty();
  }

private:
  struct ban {
    time_point until;
    std::string incident;
  };

  std::size_t bans_max_;
  std::chrono::milliseconds duration_;
  std::map<fingerprint, ban> bans_;
  std::deque<fingerprint> order_; // oldest first
};

} // namespace troupe::router
