#include "actors/protocol/cluster_messages.hpp"

#include "actors/protocol/cluster_layout.hpp"

namespace troupe::protocol {

codec::bytes encode(const replica_spec& from) {
  return encode_record(from);
}

codec::bytes encode(const replica_load& from) {
  return encode_record(from);
}

codec::bytes encode(const replica_report& from) {
  return encode_record(from);
}

codec::bytes encode(const node_joined& from) {
  return encode_record(from);
}

result<replica_spec> decode_replica_spec(codec::bytes_view from) {
  return decode_record<replica_spec>(from);
}

result<replica_load> decode_replica_load(codec::bytes_view from) {
  return decode_record<replica_load>(from);
}

result<replica_report> decode_replica_report(codec::bytes_view from) {
  return decode_record<replica_report>(from);
}

result<node_joined> decode_node_joined(codec::bytes_view from) {
  return decode_record<node_joined>(from);
}

} // namespace troupe::protocol
