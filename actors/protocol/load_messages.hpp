#pragma once

#include "actors/protocol/routing_table.hpp"
#include "engine/codec/error.hpp"
#include "engine/codec/tagged.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

// The view of load: what routers and replicas say of it on its way to the
// autoscaler, and what the autoscaler orders.

namespace troupe::protocol {

/// Choices of a tenant that wait for a model.
struct tenant_waiting {
  std::string tenant;
  std::uint32_t waiting = 0;

  bool operator==(const tenant_waiting&) const = default;
};

/// Of one model, in one message.
inline constexpr std::size_t tenants_waiting_max = 64;

/// Those who have something, `tenants_waiting_max` at most: who has most,
/// first.
std::vector<tenant_waiting>
most_waiting(const std::map<std::string, std::uint32_t>& by_tenant);

/// What a router holds of one model, in choices.
struct router_load {
  std::string application;
  std::string model;
  std::uint32_t waiting = 0; ///< at no replica
  std::uint32_t sent = 0;    ///< at replicas
  // Since version 6.
  /// How long the first one that waits without a token has waited.
  std::uint32_t oldest_ms = 0;
  /// Times to the first token, and between tokens, since the router began:
  /// counts by latency_places; empty = none yet.
  std::vector<std::uint64_t> first_tokens = {};
  std::vector<std::uint64_t> next_tokens = {};
  // Since version 7.
  /// Whose choices wait, as `most_waiting` says; those of nobody in particular
  /// are not in it.
  std::vector<tenant_waiting> tenants = {};

  bool operator==(const router_load&) const = default;
};

/// What a tenant has had through a router since that began.
struct tenant_use {
  std::string tenant;
  std::uint64_t requests = 0;
  std::uint64_t tokens = 0; ///< of prompts and answers

  bool operator==(const tenant_use&) const = default;
};

/// Router -> node agent -> controller -> autoscaler. Late ones are dropped by
/// incarnation and sequence.
struct router_report {
  std::string node;                ///< filled in by the node agent
  std::uint64_t node_epoch = 0;    ///< likewise
  std::uint64_t incarnation = 0;   ///< of the router's life
  std::uint64_t sequence = 0;      ///< rises within an incarnation
  std::vector<router_load> models; ///< a model that is not in it has nothing
  std::vector<tenant_use> tenants; ///< that have a limit; since version 6

  bool operator==(const router_report&) const = default;
};

/// Controller -> node agent -> router, since version 6: what all other routers
/// hold, and what they have let through since the controller knows both. Comes
/// again every second as long as there is something in it.
struct others_load {
  /// Another one: what tenants have had is counted anew. Within a life it does
  /// not fall.
  std::uint64_t life = 0;
  std::vector<router_load> models;
  std::vector<tenant_use> tenants;

  bool operator==(const others_load&) const = default;
};

/// Controller -> autoscaler: a replica of a model that is scaled.
struct replica_load_news {
  std::string application;
  std::string model;
  std::string replica;
  std::uint64_t incarnation = 0;
  std::uint64_t sequence = 0;
  std::uint32_t choices = 0;        ///< running or waiting in its engine
  std::uint64_t waiting_tokens = 0; ///< prompt tokens still to compute
  std::uint64_t answer_tokens = 0;  ///< that its choices may still get
  std::uint32_t tokens_per_second = 0;
  std::uint32_t seats = 0; ///< choices that it runs well at once
  // Since its start.
  std::uint64_t prompt_tokens = 0;
  std::uint64_t output_tokens = 0;
  std::uint64_t finished = 0; ///< choices

  bool operator==(const replica_load_news&) const = default;
};

/// Autoscaler -> controller: how many replicas a model is to have, and why.
struct scale_order {
  std::string application;
  std::string model;
  std::uint64_t revision = 0; ///< of the model's scaling that it is about
  std::uint32_t target = 0;
  std::string reason;    ///< of the last change, one sentence
  std::string now;       ///< of the last decision, also one that keeps
  std::string held_back; ///< why it is not what the load asks for, or nothing

  bool operator==(const scale_order&) const = default;
};

/// For a reader of protocol version `version`.
codec::bytes encode(const router_report&,
                    std::uint32_t version = protocol_version);
codec::bytes encode(const others_load&,
                    std::uint32_t version = protocol_version);
codec::bytes encode(const replica_load_news&);
codec::bytes encode(const scale_order&);
result<router_report> decode_router_report(codec::bytes_view);
result<others_load> decode_others_load(codec::bytes_view);
result<replica_load_news> decode_replica_load_news(codec::bytes_view);
result<scale_order> decode_scale_order(codec::bytes_view);

} // namespace troupe::protocol
