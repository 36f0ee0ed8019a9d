#pragma once

#include "actors/protocol/record_layout.hpp"
#include "actors/protocol/routing_table.hpp"

// Field numbers of the records that both the routing table and the messages of
// the cluster hold.

namespace troupe::protocol {

template <>
struct layout<endpoint> {
  using r = endpoint;
  static constexpr std::string_view name = "endpoint";
  static constexpr auto fields = std::tuple{
      number(1, &r::address),
      number(2, &r::port),
      number(3, &r::blob_port),
      number(4, &r::incarnation),
  };
};

template <>
struct layout<capabilities> {
  using r = capabilities;
  static constexpr std::string_view name = "capabilities";
  static constexpr auto fields = std::tuple{
      number(1, &r::ids_in),   number(2, &r::ids_out),    number(3, &r::exact),
      number(4, &r::logprobs), number(5, &r::grammar),    number(6, &r::lora),
      number(7, &r::vision),   number(8, &r::embeddings),
  };
};

template <>
struct layout<choice_rule> {
  using r = choice_rule;
  static constexpr std::string_view name = "choice_rule";
  static constexpr auto fields = std::tuple{
      number(1, &r::policy),
      number(2, &r::match_rate_min),
      number(3, &r::imbalance_max),
  };
};

template <>
struct layout<tenant> {
  using r = tenant;
  static constexpr std::string_view name = "tenant";
  static constexpr auto fields = std::tuple{
      number(1, &r::name),
      number(2, &r::api_key),
      number(3, &r::weight),
      number(4, &r::priority),
      number(5, &r::requests_per_minute),
      number(6, &r::tokens_per_minute),
      droppable_since(7, 7, &r::choices_per_replica),
  };
};

template <>
struct layout<router_settings> {
  using r = router_settings;
  static constexpr std::string_view name = "router_settings";
  static constexpr auto fields = std::tuple{
      number(1, &r::api_keys),       number(2, &r::root_path),
      number(3, &r::requests_max),   number(4, &r::request_timeout_ms),
      number(5, &r::keep_alive_ms),  number(6, &r::access_log),
      number(7, &r::failover_exact), droppable_since(6, 8, &r::tenants),
  };
};

} // namespace troupe::protocol
