#include "actors/runtime/link.hpp"

#include <caf/actor_system_config.hpp>
#include <caf/sec.hpp>

#include <algorithm>

namespace troupe::runtime {

error link_error(caf::actor_system& system, const protocol::endpoint& where,
                 const caf::error& reason) {
  return {errc::unavailable, "cannot reach " + where.address + ":" +
                                 std::to_string(where.port) + ": " +
                                 system.render(reason)};
}

bool worth_another_attempt(const caf::error& reason,
                           std::chrono::steady_clock::time_point deadline,
                           int attempts_left) {
  return attempts_left > 1 && reason != caf::sec::cannot_connect_to_node &&
         std::chrono::steady_clock::now() < deadline;
}

caf::duration time_left(std::chrono::steady_clock::time_point deadline) {
  auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
      deadline - std::chrono::steady_clock::now());
  return caf::duration{std::max(left, std::chrono::milliseconds{1})};
}

error wrong_peer(const protocol::endpoint& where) {
  return {errc::unavailable,
          where.address + ":" + std::to_string(where.port) +
              " does not offer the actor that was expected there"};
}

} // namespace troupe::runtime
