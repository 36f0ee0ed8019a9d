#pragma once

#include "actors/protocol/actors.hpp"
#include "router/http/server.hpp"
#include "router/model_cards.hpp"
#include "router/options.hpp"
#include "router/router_actor.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

namespace caf {
class actor_system;
}

namespace troupe::router {

/// How a service reaches replicas; unset: mutual TLS with `options::tls`.
struct replica_access {
  connect_replica connect;
  model_cards::fetch fetch_card;
};

/// A router: the public OpenAI listener, the admin listener and the actor
/// behind them, on a fixed number of threads (io_threads + text_threads + 1),
/// whatever the number of streams.
///
/// Public: POST /v1/chat/completions, /v1/completions, /v1/embeddings,
/// /v1/score, /v1/rerank, /tokenize and /detokenize, GET /v1/models and
/// /v1/models/{id}, each under the route prefix of its application, and
/// GET /-/healthz. Admin: GET /-/routes, /metrics, /-/healthz and what
/// `add_admin_route` adds.
class service {
public:
  /// Starts the actor and the admin listener. Routing tables (with the settings
  /// of the deployment, which replace those of `options`) and death notices
  /// come to `actor()`. Errors: a port that is taken.
  static result<std::unique_ptr<service>> start(options, caf::actor_system&,
                                                replica_access = {});

  virtual ~service() = default;

  /// The public port; 0 before the first `open_public`.
  virtual std::uint16_t port() const = 0;
  virtual std::uint16_t admin_port() const = 0;

  /// Takes routing tables and token batches.
  virtual protocol::router_actor actor() const = 0;

  /// Serves an exact path on the admin listener, with "/*" at its end all that
  /// is right below, with "/**" all that is anywhere below. Any time before
  /// stop(); the handler must be callable until stop() has returned.
  virtual void add_admin_route(std::string method, std::string path,
                               http::handler) = 0;

  /// Listens on the public port, or not any more (proxy_location): then answers
  /// under way go on, at most until the deadline. A service begins without; its
  /// admin listener and its actor are there all the time. Errors: a port that
  /// is taken.
  virtual result<void> open_public() = 0;
  virtual void close_public(std::chrono::milliseconds deadline) = 0;

  /// A model can be asked now, and the service is not stopping.
  virtual bool ready() const = 0;

  /// Stops in order: no new connections and requests (503, not ready), answers
  /// under way go on until the deadline, then they end with an error, then
  /// everything is closed. Returns when no thread of the service is left.
  /// True if every answer ended by itself. The destructor stops with a
  /// deadline of 0.
  virtual bool stop(std::chrono::milliseconds deadline) = 0;
};

} // namespace troupe::router
