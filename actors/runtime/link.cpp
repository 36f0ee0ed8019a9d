#include "actors/runtime/link.hpp"

#include "actors/protocol/actors.hpp"
#include "actors/runtime/listen_address.hpp"
#include "actors/runtime/revocations.hpp"
#include "actors/runtime/system_config.hpp"
#include "actors/runtime/tls_guard.hpp"

#include <caf/actor_system_config.hpp>
#include <caf/event_based_actor.hpp>
#include <caf/io/basp_broker.hpp>
#include <caf/io/middleman.hpp>
#include <caf/response_promise.hpp>
#include <caf/sec.hpp>

#include <algorithm>

namespace troupe::runtime {

error link_error(caf::actor_system& system, const protocol::endpoint& where,
                 const caf::error& reason) {
  auto* config = dynamic_cast<const system_config*>(&system.config());
  if (config && revocations::of(config->tls).is_own_void())
    return own_certificate_revoked();
  return {errc::unavailable, "cannot reach " + where.address + ":" +
                                 std::to_string(where.port) + ": " +
                                 system.render(reason)};
}

error own_certificate_revoked() {
  return {errc::unavailable,
          "the head has revoked this node's certificate; a token that is made "
          "now lets it join again"};
}

caf::actor connection_broker(caf::actor_system& system) {
  return system.middleman().named_broker<caf::io::basp_broker>(
      caf::atom("BASP"));
}

result<std::string> name_of_far_end(const std::string& address,
                                    std::uint16_t port) {
  if (auto name = peer_name(address, port))
    return *name;
  return error{errc::unavailable, "it has no connection of its own"};
}

result<void> may_connect(caf::actor_system& system) {
  auto* config = dynamic_cast<const system_config*>(&system.config());
  if (!config)
    return error{errc::internal, "an actor system without credentials"};
  return config->credentials_good;
}

result<void> may_publish(caf::actor_system& system,
                         const std::string& address) {
  if (auto may = may_connect(system); !may)
    return may;
  return check_listen_address(address);
}

std::shared_ptr<peer_directory> peers_of(caf::actor_system& system) {
  auto* config = dynamic_cast<const system_config*>(&system.config());
  return config ? config->peers : nullptr;
}

namespace {

constexpr std::chrono::milliseconds look_again{20};

caf::behavior wait_for_peer(caf::event_based_actor* self,
                            std::shared_ptr<peer_directory> peers,
                            std::uint64_t incarnation,
                            std::chrono::steady_clock::time_point deadline) {
  return {[=](caf::get_atom) {
    auto promise = self->make_response_promise();
    auto look = [=](protocol::tick_atom) mutable {
      if (auto peer = peers->find(incarnation)) {
        promise.deliver(peer);
        self->quit();
      } else if (!peers->expects(incarnation) ||
                 std::chrono::steady_clock::now() >= deadline) {
        promise.deliver(caf::make_error(caf::sec::cannot_connect_to_node));
        self->quit();
      } else {
        self->delayed_send(self, look_again, protocol::tick_atom::value);
      }
    };
    self->become(look);
    self->send(self, protocol::tick_atom::value);
    return promise;
  }};
}

} // namespace

caf::actor spawn_peer_waiter(caf::actor_system& system,
                             std::shared_ptr<peer_directory> peers,
                             std::uint64_t incarnation,
                             std::chrono::steady_clock::time_point deadline) {
  return system.spawn<caf::hidden>(wait_for_peer, std::move(peers), incarnation,
                                   deadline);
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
