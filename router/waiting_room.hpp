#pragma once

#include "router/policy/fair_shares.hpp"

#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace troupe::router {

/// A choice of a client request.
struct choice_key {
  std::uint64_t request = 0;
  std::uint32_t choice = 0;

  auto operator<=>(const choice_key&) const = default;
};

/// Choices that may go to the same replicas.
struct lane_key {
  bool suspects = false;
  bool again = false; ///< sent before, and still without a token
  std::string card_hash;
  std::optional<std::string> arithmetic_class; ///< of those with tokens

  auto operator<=>(const lane_key&) const = default;
};

/// Whose a choice is, and how it stands in line.
struct standing {
  std::string tenant;
  std::int32_t priority = 0;                        ///< lower ones go first
  std::chrono::steady_clock::time_point since = {}; ///< its request came
  double work = 0;                                  ///< that it asks for
};

/// The choices of one model that are at no replica, lane by lane. Of a lane the
/// most urgent goes first, among equals that of the tenant that had least
/// (fair_shares), of one tenant the oldest.
class waiting_room {
public:
  /// The lane, and who of it is next.
  struct candidate {
    lane_key lane;
    choice_key key;
  };

  void add(const lane_key&, choice_key, const standing&);
  /// Nothing happens if it is not there.
  void remove(const lane_key&, choice_key, const standing&);

  bool empty() const {
    return size_ == 0;
  }
  std::size_t size() const {
    return size_;
  }

  /// Of `tenant` alone.
  std::size_t size_of(const std::string& tenant) const;

  /// Of all tenants together that have so many at most.
  std::size_t size_of_small(std::size_t each) const;

  /// Of each tenant that has something.
  std::map<std::string, std::uint32_t> sizes() const;

  /// Work that goes before one who comes now, at most: all that is as urgent,
  /// or, if that is less, its tenant's own as long as others take their shares.
  double ahead_of(const standing&, double share) const;

  /// The next of each lane, in the order in which they are to go; those of some
  /// tenants left out.
  std::vector<candidate> next(const fair_shares&,
                              const std::set<std::string>& without = {}) const;

  /// When the request of the first one came that has no token.
  std::optional<std::chrono::steady_clock::time_point> oldest() const;

  /// Anybody, to empty it.
  std::optional<choice_key> any() const;

private:
  using place = std::pair<std::chrono::steady_clock::time_point, choice_key>;
  using line = std::map<std::string, std::set<place>>; ///< by tenant
  using lane = std::map<std::int32_t, line>;           ///< by priority

  struct total {
    std::size_t choices = 0;
    double work = 0;
  };

  std::map<lane_key, lane> lanes_; ///< nothing empty, at any depth
  std::map<std::int32_t, std::map<std::string, total>> totals_; ///< likewise
  std::size_t size_ = 0;
};

} // namespace troupe::router
