#include "actors/protocol/load_messages.hpp"

#include "actors/protocol/record_layout.hpp"

#include <algorithm>

namespace troupe::protocol {

template <>
struct layout<tenant_waiting> {
  using r = tenant_waiting;
  static constexpr std::string_view name = "tenant_waiting";
  static constexpr auto fields = std::tuple{
      number(1, &r::tenant),
      number(2, &r::waiting),
  };
};

template <>
struct layout<router_load> {
  using r = router_load;
  static constexpr std::string_view name = "router_load";
  static constexpr auto fields = std::tuple{
      number(1, &r::application),
      number(2, &r::model),
      number(3, &r::waiting),
      number(4, &r::sent),
      droppable_since(6, 5, &r::oldest_ms),
      droppable_since(6, 6, &r::first_tokens),
      droppable_since(6, 7, &r::next_tokens),
      droppable_since(7, 8, &r::tenants),
  };
};

template <>
struct layout<tenant_use> {
  using r = tenant_use;
  static constexpr std::string_view name = "tenant_use";
  static constexpr auto fields = std::tuple{
      number(1, &r::tenant),
      number(2, &r::requests),
      number(3, &r::tokens),
  };
};

template <>
struct layout<others_load> {
  using r = others_load;
  static constexpr std::string_view name = "others_load";
  static constexpr auto fields = std::tuple{
      number(1, &r::life),
      number(2, &r::models),
      number(3, &r::tenants),
  };
};

template <>
struct layout<router_report> {
  using r = router_report;
  static constexpr std::string_view name = "router_report";
  static constexpr auto fields = std::tuple{
      number(1, &r::node),        number(2, &r::node_epoch),
      number(3, &r::incarnation), number(4, &r::sequence),
      number(5, &r::models),      droppable_since(6, 6, &r::tenants),
  };
};

template <>
struct layout<replica_load_news> {
  using r = replica_load_news;
  static constexpr std::string_view name = "replica_load_news";
  static constexpr auto fields = std::tuple{
      number(1, &r::application),       number(2, &r::model),
      number(3, &r::replica),           number(4, &r::incarnation),
      number(5, &r::sequence),          number(6, &r::choices),
      number(7, &r::waiting_tokens),    number(8, &r::answer_tokens),
      number(9, &r::tokens_per_second), number(10, &r::seats),
      number(11, &r::prompt_tokens),    number(12, &r::output_tokens),
      number(13, &r::finished),
  };
};

template <>
struct layout<scale_order> {
  using r = scale_order;
  static constexpr std::string_view name = "scale_order";
  static constexpr auto fields = std::tuple{
      number(1, &r::application), number(2, &r::model),
      number(3, &r::revision),    number(4, &r::target),
      number(5, &r::reason),      number(6, &r::now),
      number(7, &r::held_back),
  };
};

std::vector<tenant_waiting>
most_waiting(const std::map<std::string, std::uint32_t>& by_tenant) {
  std::vector<tenant_waiting> out;
  for (const auto& [tenant, waiting] : by_tenant)
    if (waiting != 0)
      out.push_back({tenant, waiting});
  std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) {
    return a.waiting > b.waiting;
  });
  if (out.size() > tenants_waiting_max)
    out.resize(tenants_waiting_max);
  return out;
}

codec::bytes encode(const router_report& from, std::uint32_t version) {
  return encode_record(from, version);
}

codec::bytes encode(const others_load& from, std::uint32_t version) {
  return encode_record(from, version);
}

codec::bytes encode(const replica_load_news& from) {
  return encode_record(from);
}

codec::bytes encode(const scale_order& from) {
  return encode_record(from);
}

result<router_report> decode_router_report(codec::bytes_view from) {
  return decode_record<router_report>(from);
}

result<others_load> decode_others_load(codec::bytes_view from) {
  return decode_record<others_load>(from);
}

result<replica_load_news> decode_replica_load_news(codec::bytes_view from) {
  return decode_record<replica_load_news>(from);
}

result<scale_order> decode_scale_order(codec::bytes_view from) {
  return decode_record<scale_order>(from);
}

} // namespace troupe::protocol
