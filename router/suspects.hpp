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
#include <set>
#include <string>
#include <utility>

// Which request is it that ends replicas? Pure: no clock, no threads.

namespace troupe::router {

/// What the death of a replica says about a choice that was there.
enum class verdict {
  suspect, ///< goes on elsewhere, computed alone for a few tokens
  guilty,  ///< nobody else can have been it
};

/// Whether the replica died by its own fault while it computed this sending of
/// a choice: (router incarnation, record id). Others go on elsewhere at once.
bool is_blamed(const protocol::death_notice&,
               const std::pair<std::uint64_t, std::uint64_t>& choice);

/// The last so many death notices, by the incarnation of the dead.
class death_notes {
public:
  explicit death_notes(std::size_t notes_max) : notes_max_(notes_max) {
    // nop
  }

  /// False if there is one of this replica.
  bool add(protocol::death_notice);

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

/// A word on each of some requests, for a while. Holds so many; the oldest
/// gives way.
template <class Word>
class fingerprint_list {
public:
  using time_point = std::chrono::steady_clock::time_point;

  fingerprint_list(std::size_t size_max, std::chrono::milliseconds duration)
      : size_max_(size_max), duration_(duration) {
    // nop
  }

  /// A request that has a word keeps it.
  void add(const fingerprint& what, Word word, time_point now) {
    expire(now);
    auto until = now + duration_;
    if (!words_.emplace(what, entry{until, std::move(word)}).second)
      return;
    order_.insert({until, what});
    if (order_.size() > size_max_)
      forget(fingerprint{order_.begin()->second});
  }

  std::optional<Word> find(const fingerprint& what, time_point now) const {
    auto known = words_.find(what);
    if (known == words_.end() || known->second.until <= now)
      return std::nullopt;
    return known->second.word;
  }

  void forget(const fingerprint& what) {
    auto known = words_.find(what);
    if (known == words_.end())
      return;
    order_.erase({known->second.until, what});
    words_.erase(known);
  }

  /// Forgets what is over.
  void expire(time_point now) {
    while (!order_.empty() && order_.begin()->first <= now)
      forget(fingerprint{order_.begin()->second});
  }

  bool empty() const {
    return words_.empty();
  }

private:
  struct entry {
    time_point until;
    Word word;
  };

  std::size_t size_max_;
  std::chrono::milliseconds duration_;
  std::map<fingerprint, entry> words_;
  std::set<std::pair<time_point, fingerprint>> order_; // oldest first
};

/// Requests that are refused, each with the id of the incident.
using ban_list = fingerprint_list<std::string>;

/// What speaks against a request that was in the step of a death.
struct suspicion {
  std::uint64_t death = 0;   ///< the last of them: the replica's incarnation
  std::size_t tokens = 0;    ///< that a choice of it had, at most
  std::uint32_t strikes = 0; ///< deaths after it was known to be suspect
};

using suspicion_list = fingerprint_list<suspicion>;

/// One sending of a choice, as a death that it may be to blame for needs it.
struct sending {
  std::pair<std::string, std::string> model; ///< application, model
  std::string request_id;
  fingerprint what;
  std::size_t tokens = 0; ///< that the choice had
  bool watched = false;   ///< it was sent as one that is suspect
};

/// What the death says about a request that was in its step, after what was
/// known of it. Two deaths prove nothing if others were there both times: those
/// may have been it. Who is there a third time though it was watched is guilty.
verdict weigh(const protocol::death_notice&, const sending&, suspicion_list&,
              std::chrono::steady_clock::time_point now);

/// The last so many sendings that were given up before their end: their choices
/// have left, or were sent elsewhere before there was a word on their replica.
class given_up_sendings {
public:
  explicit given_up_sendings(std::size_t sendings_max)
      : sendings_max_(sendings_max) {
    // nop
  }

  void add(std::uint64_t record, sending);
  /// Forgets it.
  std::optional<sending> take(std::uint64_t record);

private:
  std::size_t sendings_max_;
  std::map<std::uint64_t, sending> sendings_; // oldest first
};

} // namespace troupe::router
