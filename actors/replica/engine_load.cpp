#include "actors/replica/engine_load.hpp"

#include <algorithm>

namespace troupe::replica {

void read_load(const engine::stats& from, protocol::replica_load& to) {
  to.steps = from.steps;
  to.running = from.running;
  to.waiting = from.waiting;
  to.waiting_tokens = from.waiting_tokens;
  to.answer_tokens = from.answer_tokens;
  to.tokens_per_second = static_cast<std::uint32_t>(from.tokens_per_second);
  to.seats = from.seats;
  to.finished = from.finished;
  to.kv_blocks_total = from.kv_blocks_total;
  to.kv_blocks_free = from.kv_blocks_free;
  to.prompt_tokens = from.prompt_tokens;
  to.output_tokens = from.output_tokens;
  to.prefix_queries = from.prefix_queries;
  to.prefix_hits = from.prefix_hits;
  to.preemptions = from.preemptions;
  to.weight_bytes_read = from.weight_bytes_read;
  to.resumed_tokens = from.resumed_tokens;
  to.longest_step_ms = from.longest_step_ms;
}

std::uint32_t choices_at_once(const protocol::replica_spec& spec,
                              const engine::description& about) {
  constexpr std::uint32_t cpu_max = 32;
  if (about.kv_blocks == 0)
    return 0;
  auto on_cpu = about.device.starts_with("cpu");
  return spec.max_num_seqs == 0 && on_cpu
             ? std::min(about.max_num_seqs, cpu_max)
             : about.max_num_seqs;
}

} // namespace troupe::replica
