#include "actors/protocol/cluster_messages.hpp"

#include "actors/protocol/cluster_layout.hpp"

#include <algorithm>

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

codec::bytes encode(const node_joined& from, std::uint32_t version) {
  return encode_record(from, version);
}

codec::bytes encode(const node_welcome& from, std::uint32_t version) {
  return encode_record(from, version);
}

codec::bytes encode(const node_assignment& from, std::uint32_t version) {
  return encode_record(from, version);
}

codec::bytes encode(const replica_news& from, std::uint32_t version) {
  return encode_record(from, version);
}

codec::bytes encode(const death_notice& from) {
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

result<node_welcome> decode_node_welcome(codec::bytes_view from) {
  return decode_record<node_welcome>(from);
}

result<node_assignment> decode_node_assignment(codec::bytes_view from,
                                               std::uint32_t version) {
  return decode_record<node_assignment>(from, version);
}

result<replica_news> decode_replica_news(codec::bytes_view from) {
  return decode_record<replica_news>(from);
}

result<death_notice> decode_death_notice(codec::bytes_view from) {
  return decode_record<death_notice>(from);
}

codec::bytes encode(const rank_word& from) {
  return encode_record(from);
}

result<rank_word> decode_rank_word(codec::bytes_view from) {
  return decode_record<rank_word>(from);
}

std::uint32_t ranks_of(const replica_spec& spec) {
  return std::max<std::uint32_t>(spec.tensor_parallel_size, 1);
}

rank_range ranks_here(const replica_spec& spec) {
  rank_range out;
  if (spec.ranks_on.empty()) {
    out.count = ranks_of(spec);
    return out;
  }
  for (std::uint32_t i = 0; i <= spec.part && i < spec.ranks_on.size(); ++i) {
    out.first += i == 0 ? 0 : out.count;
    out.count = static_cast<std::uint32_t>(spec.ranks_on[i].bundles.size());
  }
  return out;
}

std::uint32_t processes_of(const replica_spec& spec) {
  if (spec.gpus <= 0)
    return ranks_of(spec);
  return std::max<std::uint32_t>(
      static_cast<std::uint32_t>(spec.ranks_on.size()), 1);
}

std::vector<std::uint32_t> processes_here(const replica_spec& spec) {
  const auto ranks = ranks_here(spec);
  std::vector<std::uint32_t> out{ranks.first};
  for (std::uint32_t i = 1; spec.gpus <= 0 && i < ranks.count; ++i)
    out.push_back(ranks.first + i);
  return out;
}

std::string part_id(const std::string& replica, std::uint32_t part) {
  return replica + "/" + std::to_string(part);
}

std::string replica_of_part(const std::string& id) {
  return id.substr(0, id.rfind('/'));
}

bool same_process(const replica_spec& a, const replica_spec& b) {
  auto changed = a;
  changed.max_ongoing_requests = b.max_ongoing_requests;
  changed.graceful_shutdown_timeout_ms = b.graceful_shutdown_timeout_ms;
  changed.start_retries = b.start_retries;
  changed.health_check_period_ms = b.health_check_period_ms;
  changed.health_check_timeout_ms = b.health_check_timeout_ms;
  changed.restarts_max = b.restarts_max;
  changed.restart_pause_max_ms = b.restart_pause_max_ms;
  return changed == b;
}

} // namespace troupe::protocol
