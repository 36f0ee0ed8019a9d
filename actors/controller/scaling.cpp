#include "actors/controller/scaling.hpp"

#include "actors/controller/scaling_layout.hpp"

namespace troupe::protocol {

template <>
struct layout<controller::serving_replica> {
  using r = controller::serving_replica;
  static constexpr std::string_view name = "serving_replica";
  static constexpr auto fields = std::tuple{
      number(1, &r::replica),
      number(2, &r::incarnation),
  };
};

template <>
struct layout<controller::scaled_model> {
  using r = controller::scaled_model;
  static constexpr std::string_view name = "scaled_model";
  static constexpr auto fields = std::tuple{
      number(1, &r::application),     number(2, &r::model),
      number(3, &r::revision),        number(4, &r::scaling),
      number(5, &r::target),          number(6, &r::replicas),
      number(7, &r::sequences_max),   number(8, &r::on_cpu),
      number(9, &r::target_capacity), number(10, &r::capacity_rising),
  };
};

template <>
struct layout<controller::scaled_models> {
  using r = controller::scaled_models;
  static constexpr std::string_view name = "scaled_models";
  static constexpr auto fields = std::tuple{
      number(1, &r::nodes),
      number(2, &r::models),
  };
};

} // namespace troupe::protocol

namespace troupe::controller {

codec::bytes encode(const scaled_models& from) {
  return protocol::encode_record(from);
}

result<scaled_models> decode_scaled_models(codec::bytes_view from) {
  return protocol::decode_record<scaled_models>(from);
}

} // namespace troupe::controller
