#pragma once

#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/routing_layout.hpp"

// Field numbers of the cluster's messages; other records embed them.

namespace troupe::protocol {

constexpr replica_phase last_value(replica_phase) {
  return replica_phase::failed;
}

/// An environment variable as a record of its own.
template <>
struct layout<std::pair<std::string, std::string>> {
  using r = std::pair<std::string, std::string>;
  static constexpr std::string_view name = "environment variable";
  static constexpr auto fields = std::tuple{
      number(1, &r::first),
      number(2, &r::second),
  };
};

template <>
struct layout<replica_spec> {
  using r = replica_spec;
  static constexpr std::string_view name = "replica_spec";
  static constexpr auto fields = std::tuple{
      number(1, &r::replica),
      number(2, &r::node),
      number(3, &r::application),
      number(4, &r::model),
      number(5, &r::model_source),
      number(6, &r::tokenizer_source),
      number(7, &r::max_model_len),
      number(8, &r::max_num_seqs),
      number(9, &r::max_num_batched_tokens),
      number(10, &r::block_size),
      number(11, &r::kv_cache_bytes),
      number(12, &r::enable_prefix_caching),
      number(13, &r::threads),
      number(14, &r::chat_template),
      number(15, &r::environment),
      number(16, &r::max_ongoing_requests),
      number(17, &r::graceful_shutdown_timeout_ms),
      number(18, &r::start_retries),
      number(19, &r::health_check_period_ms),
      number(20, &r::health_check_timeout_ms),
  };
};

template <>
struct layout<replica_load> {
  using r = replica_load;
  static constexpr std::string_view name = "replica_load";
  static constexpr auto fields = std::tuple{
      number(1, &r::sequence),
      number(2, &r::steps),
      number(3, &r::running),
      number(4, &r::waiting),
      number(5, &r::waiting_tokens),
      number(6, &r::kv_blocks_total),
      number(7, &r::kv_blocks_free),
      number(8, &r::prompt_tokens),
      number(9, &r::output_tokens),
      number(10, &r::prefix_queries),
      number(11, &r::prefix_hits),
      number(12, &r::preemptions),
      number(13, &r::weight_bytes_read),
  };
};

/// `version` is always written: its default is another one in other versions.
template <>
struct layout<replica_report> {
  using r = replica_report;
  static constexpr std::string_view name = "replica_report";
  static constexpr auto fields = std::tuple{
      always(1, &r::version),
      number(2, &r::replica),
      number(3, &r::incarnation),
      number(4, &r::phase),
      number(5, &r::bytes_done),
      number(6, &r::bytes_total),
      number(7, &r::load_ms),
      number(8, &r::where),
      number(9, &r::arithmetic_class),
      number(10, &r::card_hash),
      number(11, &r::device),
      number(12, &r::can),
      number(13, &r::load),
      number(14, &r::pid),
      number(15, &r::restarts),
      number(16, &r::budget_spent),
      number(17, &r::reason),
  };
};

template <>
struct layout<node_joined> {
  using r = node_joined;
  static constexpr std::string_view name = "node_joined";
  static constexpr auto fields = std::tuple{
      number(1, &r::node), number(2, &r::incarnation),
      number(3, &r::cpus), number(4, &r::memory_bytes),
      number(5, &r::gpus), number(6, &r::accelerator_type),
  };
};

} // namespace troupe::protocol
