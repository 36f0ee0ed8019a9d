#include "actors/protocol/launch_record.hpp"

#include "actors/protocol/cluster_layout.hpp"

#include <algorithm>

namespace troupe::protocol {

template <>
struct layout<launch_record> {
  using r = launch_record;
  static constexpr std::string_view name = "launch_record";
  static constexpr auto fields = std::tuple{
      number(1, &r::spec),        number(2, &r::incarnation),
      number(3, &r::agent),       number(4, &r::listen_address),
      number(5, &r::certificate), number(6, &r::key),
      number(7, &r::authority),   number(8, &r::log_level),
      number(9, &r::log_json),    number(10, &r::journal),
      number(11, &r::rank),       number(12, &r::gpus),
  };
};

std::uint32_t processes_of(const replica_spec& spec) {
  return spec.gpus > 0 ? 1
                       : std::max<std::uint32_t>(spec.tensor_parallel_size, 1);
}

codec::bytes encode(const launch_record& from) {
  return encode_record(from);
}

result<launch_record> decode_launch_record(codec::bytes_view from) {
  return decode_record<launch_record>(from);
}

} // namespace troupe::protocol
