#include "actors/protocol/node_messages.hpp"

#include "actors/protocol/node_layout.hpp"

namespace troupe::protocol {

codec::bytes encode(const nodes_view& from) {
  return encode_record(from);
}

codec::bytes encode(const asked_nodes& from) {
  return encode_record(from);
}

codec::bytes encode(const fleet_status& from) {
  return encode_record(from);
}

result<nodes_view> decode_nodes_view(codec::bytes_view from) {
  return decode_record<nodes_view>(from);
}

result<asked_nodes> decode_asked_nodes(codec::bytes_view from) {
  return decode_record<asked_nodes>(from);
}

result<fleet_status> decode_fleet_status(codec::bytes_view from) {
  return decode_record<fleet_status>(from);
}

} // namespace troupe::protocol
