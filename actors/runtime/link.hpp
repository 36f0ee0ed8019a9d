#pragma once

#include "actors/protocol/routing_table.hpp"
#include "actors/runtime/peer_directory.hpp"
#include "engine/codec/error.hpp"

#include <caf/actor.hpp>
#include <caf/actor_cast.hpp>
#include <caf/actor_system.hpp>
#include <caf/openssl/manager.hpp>
#include <caf/openssl/publish.hpp>
#include <caf/openssl/unpublish.hpp>
#include <caf/scoped_actor.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>

// The only place where a process meets another one over CAF: what listens, who
// is connected to, who is watched. Always mutual TLS, always a numeric address.
//
// Handles carry their route: one that came in a message goes through the
// process that sent it and dies with it. So messages carry endpoints, and both
// ends of a conversation `connect` to each other themselves.

namespace troupe::runtime {

/// "cannot reach 127.0.0.1:4242: ..." for an error of CAF.
error link_error(caf::actor_system&, const protocol::endpoint&,
                 const caf::error&);

/// The error for a peer that is not the kind of actor that was asked for.
error wrong_peer(const protocol::endpoint&);

/// The error for a node whose certificate the head has revoked.
error own_certificate_revoked();

/// Whether a port of the system may be opened at `address`: its credentials are
/// good, and it is a numeric address, not all of them ("0.0.0.0", "::").
result<void> may_publish(caf::actor_system&, const std::string& address);

/// Lets other processes of the cluster connect to `actor` at `address`
/// (numeric) and the port returned; 0 = choose one. Errors: `may_publish`; the
/// port is taken.
template <class Handle>
result<std::uint16_t> publish(const Handle& actor, const std::string& address,
                              std::uint16_t port = 0) {
  if (auto may = may_publish(actor.home_system(), address); !may)
    return may.error();
  auto bound = caf::openssl::publish(actor, port, address.c_str(), true);
  if (!bound)
    return error{errc::io, "cannot listen on " + address + ": " +
                               actor.home_system().render(bound.error())};
  return *bound;
}

/// Closes the port again; connections that exist stay.
template <class Handle>
void unpublish(const Handle& actor, std::uint16_t port) {
  caf::openssl::unpublish(actor, port);
}

/// What a connection gave as a handle, if it is what the caller asked for: two
/// processes of equal node id "connect" to nothing, and anything may listen at
/// a port.
template <class Handle>
result<Handle> checked_handle(caf::actor_system& system,
                              const protocol::endpoint& where,
                              const caf::strong_actor_ptr& peer,
                              const std::set<std::string>& speaks) {
  auto needs = system.message_types(caf::detail::type_list<Handle>{});
  if (!peer || !system.assignable(speaks, needs))
    return wrong_peer(where);
  return caf::actor_cast<Handle>(peer);
}

/// Whether connections of the system are safe: it was made with a
/// `system_config` whose credentials are good. CAF without them would talk to
/// anybody.
result<void> may_connect(caf::actor_system&);

/// The directory of a system that was made with a `system_config`; else null.
std::shared_ptr<peer_directory> peers_of(caf::actor_system&);

/// An actor that answers one `get_atom` with the actor of a process that
/// connects to this one by itself, once it is there, or with an error at
/// `deadline`.
caf::actor spawn_peer_waiter(caf::actor_system&,
                             std::shared_ptr<peer_directory>,
                             std::uint64_t incarnation,
                             std::chrono::steady_clock::time_point deadline);

/// How often one call tries, while its time lasts: CAF's heartbeat timer also
/// ends connections whose handshake is under way when it fires, on either side,
/// and a busy peer may need more than one of its beats.
inline constexpr int connect_attempts = 10;

/// True if trying again at once may help: somebody listens there, and time is
/// left.
bool worth_another_attempt(const caf::error&,
                           std::chrono::steady_clock::time_point deadline,
                           int attempts_left);

/// What is left until `deadline`, never nothing.
caf::duration time_left(std::chrono::steady_clock::time_point deadline);

/// `connect` with a deadline and a number of attempts.
template <class Handle, class Self, class Done>
void connect_until(Self* self, const protocol::endpoint& where,
                   std::chrono::steady_clock::time_point deadline,
                   int attempts_left, Done done) {
  auto succeed = [self, where,
                  done](const caf::node_id&, const caf::strong_actor_ptr& peer,
                        const std::set<std::string>& speaks) mutable {
    done(checked_handle<Handle>(self->system(), where, peer, speaks));
  };
  auto fail = [=](const caf::error& reason) mutable {
    if (worth_another_attempt(reason, deadline, attempts_left))
      connect_until<Handle>(self, where, deadline, attempts_left - 1, done);
    else
      done(result<Handle>{link_error(self->system(), where, reason)});
  };
  self->request(self->system().openssl_manager().actor_handle(),
                time_left(deadline), caf::connect_atom::value, where.address,
                where.port)
      .then(std::move(succeed), std::move(fail));
}

/// Connects to the actor published at `where` and calls `done(result<Handle>)`
/// in the context of `self` (an event-based actor), at the latest after
/// `timeout`. A peer that is silent, does not prove that it belongs to the
/// cluster, or speaks another interface is an error.
/// The handle says nothing about `where.incarnation`: the first message between
/// two processes carries it.
template <class Handle, class Self, class Done>
void connect(Self* self, const protocol::endpoint& where,
             std::chrono::milliseconds timeout, Done done) {
  if (auto may = may_connect(self->system()); !may) {
    done(result<Handle>{may.error()});
    return;
  }
  auto deadline = std::chrono::steady_clock::now() + timeout;
  auto peers = peers_of(self->system());
  if (!peers || !peers->expects(where.incarnation)) {
    connect_until<Handle>(self, where, deadline, connect_attempts,
                          std::move(done));
    return;
  }
  self->request(spawn_peer_waiter(self->system(), std::move(peers),
                                  where.incarnation, deadline),
                caf::duration{2 * timeout}, caf::get_atom::value)
      .then(
          [done](const caf::strong_actor_ptr& peer) mutable {
            done(result<Handle>{caf::actor_cast<Handle>(peer)});
          },
          [self, where, done](const caf::error& reason) mutable {
            done(result<Handle>{link_error(self->system(), where, reason)});
          });
}

/// The same for a thread that is not an actor; blocks until then.
template <class Handle>
result<Handle> connect_now(caf::actor_system& system,
                           const protocol::endpoint& where,
                           std::chrono::milliseconds timeout) {
  if (auto may = may_connect(system); !may)
    return may.error();
  auto deadline = std::chrono::steady_clock::now() + timeout;
  caf::scoped_actor self{system};
  result<Handle> out = error{errc::internal, "no answer"};
  if (auto peers = peers_of(system);
      peers && peers->expects(where.incarnation)) {
    self->request(spawn_peer_waiter(system, std::move(peers), where.incarnation,
                                    deadline),
                  caf::duration{2 * timeout}, caf::get_atom::value)
        .receive(
            [&](const caf::strong_actor_ptr& peer) {
              out = caf::actor_cast<Handle>(peer);
            },
            [&](const caf::error& reason) {
              out = link_error(system, where, reason);
            });
    return out;
  }
  bool again = true;
  for (int left = connect_attempts; again; --left) {
    again = false;
    self->request(system.openssl_manager().actor_handle(), time_left(deadline),
                  caf::connect_atom::value, where.address, where.port)
        .receive(
            [&](const caf::node_id&, const caf::strong_actor_ptr& peer,
                const std::set<std::string>& speaks) {
              out = checked_handle<Handle>(system, where, peer, speaks);
            },
            [&](const caf::error& reason) {
              out = link_error(system, where, reason);
              again = worth_another_attempt(reason, deadline, left);
            });
  }
  return out;
}

/// How long a process may take to look at its own connections.
inline constexpr std::chrono::milliseconds look_up_max{2'000};

/// The broker that has CAF's connections. It never blocks, as others that could
/// be asked do while somebody is connected to.
caf::actor connection_broker(caf::actor_system&);

/// The name in the certificate of the peer of a connection, by the far end that
/// CAF says it has.
result<std::string> name_of_far_end(const std::string& address,
                                    std::uint16_t port);

/// Finds the name in the certificate with which the process of `actor` has its
/// connection to this one, and calls `done(result<std::string>)` in the context
/// of `self` (an event-based actor). An error if there is no connection.
template <class Self, class Handle, class Done>
void find_name(Self* self, const Handle& actor, Done done) {
  self->request(connection_broker(self->system()), caf::duration{look_up_max},
                caf::get_atom::value, actor.node())
      .then(
          [done](const caf::node_id&, const std::string& address,
                 std::uint16_t port) mutable {
            done(name_of_far_end(address, port));
          },
          [self, done](const caf::error& reason) mutable {
            done(result<std::string>{
                error{errc::unavailable, self->system().render(reason)}});
          });
}

/// Tells `self` (by its down handler) once the actor behind `peer` or the
/// connection to its process is gone, ahead of other messages.
template <class Self, class Handle>
void watch(Self* self, const Handle& peer) {
  self->template monitor<caf::message_priority::high>(peer);
}

} // namespace troupe::runtime
