#pragma once

#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/routing_layout.hpp"

// Field numbers of the cluster's messages; other records embed them.

namespace troupe::protocol {

constexpr replica_phase last_value(replica_phase) {
  return replica_phase::failed;
}

/// A named text (environment variable, label) as a record of its own.
template <>
struct layout<std::pair<std::string, std::string>> {
  using r = std::pair<std::string, std::string>;
  static constexpr std::string_view name = "named text";
  static constexpr auto fields = std::tuple{
      number(1, &r::first),
      number(2, &r::second),
  };
};

template <>
struct layout<rank_share> {
  using r = rank_share;
  static constexpr std::string_view name = "rank_share";
  static constexpr auto fields = std::tuple{
      number(1, &r::node),
      number(2, &r::bundles),
      number(3, &r::gpus),
  };
};

template <>
struct layout<rank_word> {
  using r = rank_word;
  static constexpr std::string_view name = "rank_word";
  static constexpr auto fields = std::tuple{
      number(1, &r::node),
      number(2, &r::node_epoch),
      number(3, &r::replica),
      number(4, &r::leader),
      number(5, &r::key),
      number(6, &r::word),
      droppable_since(7, 7, &r::own_fault),
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
      number(21, &r::restarts_max),
      number(22, &r::restart_pause_max_ms),
      number(23, &r::memory_bytes),
      number(24, &r::memory_utilization),
      number(25, &r::quantization),
      number(26, &r::dtype),
      number(27, &r::load_format),
      number(28, &r::seed),
      number(29, &r::generation_defaults),
      number(40, &r::trust_request_chat_template),
      number(41, &r::default_chat_template_kwargs),
      number(42, &r::task),
      droppable_since(7, 43, &r::tensor_parallel_size),
      droppable_since(7, 44, &r::gpus),
      droppable_since(7, 45, &r::ranks_on),
      droppable_since(7, 46, &r::part),
      droppable_since(7, 47, &r::leader),
      droppable_since(7, 48, &r::kv_cache_dtype),
      droppable_since(7, 49, &r::gpus_here),
      droppable_since(7, 50, &r::float_kv_dtype),
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
      number(14, &r::resumed_tokens),
      number(15, &r::longest_step_ms),
      droppable_since(5, 16, &r::answer_tokens),
      droppable_since(5, 17, &r::tokens_per_second),
      droppable_since(5, 18, &r::seats),
      droppable_since(5, 19, &r::finished),
  };
};

template <>
struct layout<gpu_use> {
  using r = gpu_use;
  static constexpr std::string_view name = "gpu_use";
  static constexpr auto fields = std::tuple{
      number(1, &r::gpu),
      number(2, &r::memory_used),
      number(3, &r::memory_total),
      number(4, &r::busy_percent),
      droppable_since(7, 5, &r::node),
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
      number(18, &r::node),
      droppable_since(6, 19, &r::choices_at_once),
      droppable_since(7, 20, &r::gpus),
  };
};

template <>
struct layout<resource> {
  using r = resource;
  static constexpr std::string_view name = "resource";
  static constexpr auto fields = std::tuple{
      number(1, &r::name),
      number(2, &r::amount),
  };
};

template <>
struct layout<running_replica> {
  using r = running_replica;
  static constexpr std::string_view name = "running_replica";
  static constexpr auto fields = std::tuple{
      number(1, &r::spec),
      number(2, &r::report),
  };
};

template <>
struct layout<node_joined> {
  using r = node_joined;
  static constexpr std::string_view name = "node_joined";
  static constexpr auto fields = std::tuple{
      number(1, &r::node),
      number(2, &r::incarnation),
      number(3, &r::cpus),
      number(4, &r::memory_bytes),
      number(5, &r::gpus),
      number(6, &r::accelerator_type),
      always(7, &r::version),
      number(8, &r::address),
      number(9, &r::http_port),
      number(10, &r::engines),
      number(11, &r::resources),
      number(12, &r::labels),
      number(13, &r::head_epoch),
      number(14, &r::replicas),
      droppable_since(7, 15, &r::attempt),
  };
};

template <>
struct layout<node_welcome> {
  using r = node_welcome;
  static constexpr std::string_view name = "node_welcome";
  static constexpr auto fields = std::tuple{
      number(1, &r::accepted),
      number(2, &r::reason),
      number(3, &r::head_epoch),
      number(4, &r::node_epoch),
      droppable_since(5, 5, &r::version),
  };
};

template <>
struct layout<revocation> {
  using r = revocation;
  static constexpr std::string_view name = "revocation";
  static constexpr auto fields = std::tuple{
      number(1, &r::node),
      number(2, &r::since),
  };
};

template <>
struct layout<node_assignment> {
  using r = node_assignment;
  static constexpr std::string_view name = "node_assignment";
  static constexpr auto fields = std::tuple{
      number(1, &r::head_epoch), number(2, &r::node_epoch),
      number(3, &r::sequence),   number(4, &r::replicas),
      number(5, &r::router),     droppable_since(3, 6, &r::revoked),
  };
};

template <>
struct layout<replica_news> {
  using r = replica_news;
  static constexpr std::string_view name = "replica_news";
  static constexpr auto fields = std::tuple{
      number(1, &r::node),
      number(2, &r::node_epoch),
      number(3, &r::report),
      number(4, &r::leaving),
  };
};

template <>
struct layout<death_notice> {
  using r = death_notice;
  static constexpr std::string_view name = "death_notice";
  static constexpr auto fields = std::tuple{
      number(1, &r::node),      number(2, &r::node_epoch),
      number(3, &r::replica),   number(4, &r::incarnation),
      number(5, &r::own_fault), number(6, &r::running),
      number(7, &r::reason),
  };
};

} // namespace troupe::protocol
