#pragma once

#include <cstdint>
#include <map>
#include <vector>

namespace troupe::replica {

/// Whose work a replica has, in tokens to do (protocol::tokens_to_do). Each
/// router knows its own; it is told of the others' with its tokens, and beside
/// them when that has changed by much.
class work_by_router {
public:
  void enter(std::uint64_t router);
  void leave(std::uint64_t router);

  /// Nothing happens for a router that has not entered.
  void add(std::uint64_t router, std::uint64_t tokens);
  void take(std::uint64_t router, std::uint64_t tokens);

  /// Of all other routers.
  std::uint64_t beside(std::uint64_t router) const;

  /// The router is told of it now.
  void told(std::uint64_t router);

  /// To be told: the others' work changed by a quarter of what they know, and by
  /// 128 tokens, at least.
  std::vector<std::uint64_t> misled() const;

private:
  struct share {
    std::uint64_t own = 0;
    std::uint64_t told = 0; // of the others'
  };

  std::map<std::uint64_t, share> shares_;
  std::uint64_t all_ = 0;
};

} // namespace troupe::replica
