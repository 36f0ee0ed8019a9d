#include "actors/runtime/link.hpp"

#include <caf/actor_system_config.hpp>

namespace troupe::runtime {

error link_error(caf::actor_system& system, const protocol::endpoint& where,
                 const caf::error& reason) {
  return {errc::unavailable, "cannot reach " + where.address + ":" +
                                 std::to_string(where.port) + ": " +
                                 system.render(reason)};
}

error wrong_peer(const protocol::endpoint& where) {
  return {errc::unavailable,
          where.address + ":" + std::to_string(where.port) +
              " does not offer the actor that was expected there"};
}

} // namespace troupe::runtime
