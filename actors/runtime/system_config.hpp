#pragma once

#include "actors/protocol/actors.hpp"
#include "actors/runtime/authority.hpp"
#include "actors/runtime/peer_directory.hpp"
#include "engine/codec/error.hpp"

#include <caf/actor_system_config.hpp>

#include <chrono>
#include <cstddef>
#include <memory>

namespace troupe::runtime {

struct system_options {
  credentials tls;
  std::size_t threads = 2;
  /// A peer is lost when nothing came from it for so long, even if it only
  /// stands still: its actors are then down.
  std::chrono::milliseconds heartbeat{200};
  std::chrono::milliseconds silence_max{1000};
};

/// How every process of the cluster sets CAF up: mutual TLS, our own message
/// types, no automatic connections (they listen in plain text), no INI file, no
/// log file, a scheduler that sleeps when idle. Nothing listens until
/// link.hpp's `publish` is called; that and `connect` refuse while the
/// credentials are not good.
class system_config : public caf::actor_system_config {
public:
  explicit system_config(const system_options&);

  const credentials tls;

  /// What was wrong with the credentials when this was made, if anything.
  const result<void> credentials_good;

  /// For link.hpp, which asks it, and the node agent, which keeps it.
  const std::shared_ptr<peer_directory> peers =
      std::make_shared<peer_directory>();
};

} // namespace troupe::runtime
