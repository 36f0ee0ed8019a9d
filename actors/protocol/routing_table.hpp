#pragma once

#include "engine/codec/error.hpp"
#include "engine/codec/tagged.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace troupe::protocol {

/// Version of the messages between processes; a peer more than one apart is
/// refused by name at registration.
inline constexpr std::uint32_t protocol_version = 7;

/// True if processes of these two versions work together.
constexpr bool understand_each_other(std::uint32_t one, std::uint32_t other) {
  return (one > other ? one - other : other - one) <= 1;
}

/// Where a process listens. Messages carry endpoints, never handles of a third
/// process (DESIGN.md, "Processes and actors").
struct endpoint {
  std::string address;           ///< numeric
  std::uint16_t port = 0;        ///< CAF over mutual TLS
  std::uint16_t blob_port = 0;   ///< blob listener (mutual TLS)
  std::uint64_t incarnation = 0; ///< random per process life

  bool operator==(const endpoint&) const = default;
};

/// What a replica can do; the router refuses by name what no replica can.
struct capabilities {
  bool ids_in = true;
  bool ids_out = true;
  bool exact = true; ///< keeps the arithmetic contract
  bool logprobs = true;
  bool grammar = false;
  bool lora = false;
  bool vision = false;
  bool embeddings = false;

  bool operator==(const capabilities&) const = default;
};

/// A replica that may be given requests.
struct replica_route {
  std::string replica; ///< "smollm2#1"
  std::string node;
  endpoint where;
  std::string arithmetic_class; ///< system_fingerprint of its replies
  std::string card_hash;        ///< model card's content hash (SHA-256, hex)
  capabilities can;
  std::uint32_t max_ongoing_requests = 0; ///< 0 = no bound
  std::uint32_t version = 0;              ///< protocol version that it speaks
  /// Choices that it computes at once; more would wait there. 0 = not told.
  /// Since version 6.
  std::uint32_t choices_at_once = 0;

  bool operator==(const replica_route&) const = default;
};

/// What becomes of a request for a model that has no replica.
enum class waking : std::uint8_t {
  no,     ///< nobody starts one because of it
  wakes,  ///< it waits, and wakes the model
  failed, ///< the model could not be woken, and is left alone for a while
};

/// How routers choose among the replicas of a model (docs/routing.md).
enum class choice_policy : std::uint8_t {
  power_of_two,
  round_robin,
  session,
  prefix,
  kv_aware,
};

constexpr choice_policy last_value(choice_policy) {
  return choice_policy::kv_aware;
}

struct choice_rule {
  choice_policy policy = choice_policy::power_of_two;
  /// Of `prefix`: a shorter share of the prompt is no match.
  double match_rate_min = 0.1;
  /// Of `prefix`: with more choices than this between the fullest and the
  /// emptiest replica, power of two; below 0 = never.
  double imbalance_max = -1;

  bool operator==(const choice_rule&) const = default;
};

/// A model as clients see it.
struct model_route {
  std::string application;
  std::string route_prefix; ///< "/" or "/app"
  std::string model;
  std::uint64_t created = 0; ///< seconds since 1970: when it was deployed
  std::string status; ///< "RUNNING", "DEPLOYING", "UNHEALTHY", "PENDING", ...
  std::string reason; ///< why it is not RUNNING, one sentence
  std::vector<replica_route> replicas;
  std::uint32_t max_queued_requests = 0; ///< 0 = each router's own bound
  choice_rule choice = {};               ///< since version 5
  waking without_replica = waking::no;   ///< since version 5

  bool operator==(const model_route&) const = default;
};

/// Whose requests come with an API key, and what he may do.
struct tenant {
  std::string name; ///< unique; for logs and metrics, which never show keys
  std::string api_key;
  double weight = 1; ///< of its share where there is not enough for all
  /// The most urgent (lowest) priority that it may ask for.
  std::int32_t priority = 0;
  std::uint32_t requests_per_minute = 0; ///< 0 = no limit
  std::uint64_t tokens_per_minute = 0;   ///< 0 = no limit
  /// That a router has at one replica at once; 0 = no limit. Since version 7.
  std::uint32_t choices_per_replica = 0;

  bool operator==(const tenant&) const = default;
};

/// What a deployment tells every router.
struct router_settings {
  std::vector<std::string> api_keys; ///< none: any key is taken
  std::string root_path;
  std::uint32_t requests_max = 1024;
  std::uint32_t request_timeout_ms = 0; ///< 0 = none
  std::uint32_t keep_alive_ms = 60'000;
  bool access_log = true;
  /// A stream whose replica is lost goes on only at a replica of the same
  /// arithmetic class; else, where none is left, at any.
  bool failover_exact = false;
  /// One per key of `api_keys`. Since version 6.
  std::vector<tenant> tenants = {};

  bool operator==(const router_settings&) const = default;
};

/// What routers route by. The controller raises `version` on every change; a
/// router takes only newer ones. Its upper 32 bits are the head's epoch (which
/// every start of a head raises), so a restarted head is newer than all before.
struct routing_table {
  std::uint64_t version = 0;
  std::vector<model_route> models;
  router_settings settings;

  bool operator==(const routing_table&) const = default;
};

/// For a reader of protocol version `version`.
codec::bytes encode(const routing_table&,
                    std::uint32_t version = protocol_version);
result<routing_table> decode_routing_table(codec::bytes_view);

} // namespace troupe::protocol
