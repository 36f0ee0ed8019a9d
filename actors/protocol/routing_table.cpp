#include "actors/protocol/routing_table.hpp"

#include "actors/protocol/routing_layout.hpp"

namespace troupe::protocol {

constexpr waking last_value(waking) {
  return waking::failed;
}

template <>
struct layout<replica_route> {
  using r = replica_route;
  static constexpr std::string_view name = "replica_route";
  static constexpr auto fields = std::tuple{
      number(1, &r::replica),
      number(2, &r::node),
      number(3, &r::where),
      number(4, &r::arithmetic_class),
      number(5, &r::card_hash),
      number(6, &r::can),
      number(7, &r::max_ongoing_requests),
      number(8, &r::version),
      droppable_since(6, 9, &r::choices_at_once),
  };
};

template <>
struct layout<model_route> {
  using r = model_route;
  static constexpr std::string_view name = "model_route";
  static constexpr auto fields = std::tuple{
      number(1, &r::application),
      number(2, &r::route_prefix),
      number(3, &r::model),
      number(4, &r::created),
      number(5, &r::status),
      number(6, &r::reason),
      number(7, &r::replicas),
      number(8, &r::max_queued_requests),
      droppable_since(5, 9, &r::choice),
      droppable_since(5, 10, &r::without_replica),
  };
};

template <>
struct layout<routing_table> {
  using r = routing_table;
  static constexpr std::string_view name = "routing_table";
  static constexpr auto fields = std::tuple{
      number(1, &r::version),
      number(2, &r::models),
      number(3, &r::settings),
  };
};

codec::bytes encode(const routing_table& from, std::uint32_t version) {
  return encode_record(from, version);
}

result<routing_table> decode_routing_table(codec::bytes_view from) {
  return decode_record<routing_table>(from);
}

} // namespace troupe::protocol
