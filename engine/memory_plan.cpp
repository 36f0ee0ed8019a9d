#include "engine/memory_plan.hpp"

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>

namespace troupe::engine {

namespace {

/// Blocks are numbered by int32 and positions counted by uint32.
constexpr std::uint64_t most_positions = 1u << 30;

std::uint64_t mem_available_bytes() {
  std::ifstream file{"/proc/meminfo"};
  std::string word;
  std::uint64_t kibibytes = 0;
  while (file >> word)
    if (word == "MemAvailable:" && file >> kibibytes)
      return kibibytes * 1024;
  return 0;
}

std::optional<std::uint64_t> read_number(const char* path) {
  std::ifstream file{path};
  std::uint64_t number = 0;
  if (file >> number)
    return number;
  return std::nullopt; // no such file, or "max"
}

/// What the KV cache may take.
std::uint64_t budget_of(const memory_demand& d) {
  if (d.kv_cache_bytes_asked > 0)
    return d.kv_cache_bytes_asked;
  if (d.utilization_asked <= 0)
    return d.available_bytes / 4;
  const auto all = static_cast<std::uint64_t>(
      static_cast<double>(d.available_bytes) * d.utilization_asked);
  return all - std::min(all, d.other_bytes);
}

/// The user's own word for what bounds the KV cache.
const char* bound_of(const memory_demand& d) {
  return d.kv_cache_bytes_asked > 0 || d.utilization_asked <= 0
             ? "kv_cache_memory_bytes"
             : "gpu_memory_utilization";
}

std::string mebibytes(std::uint64_t bytes) {
  return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB";
}

} // namespace

std::uint64_t available_memory_bytes() {
  const std::uint64_t machine = mem_available_bytes();
  const auto most = read_number("/sys/fs/cgroup/memory.max");
  const auto used = read_number("/sys/fs/cgroup/memory.current");
  if (!most || !used)
    return machine;
  return std::min(machine, *most - std::min(*most, *used));
}

std::uint64_t gpu_budget(std::uint64_t all, std::uint64_t free, double share) {
  if (share <= 0 || share >= 1)
    return free;
  return std::min(free,
                  static_cast<std::uint64_t>(static_cast<double>(all) * share));
}

result<memory_plan> plan_memory(const memory_demand& d) {
  const bool has_length = d.max_model_len_asked > 0;
  if (d.max_model_len_asked > d.max_model_len)
    return error{errc::invalid_argument,
                 "max_model_len: " + std::to_string(d.max_model_len_asked) +
                     " is more than the model's " +
                     std::to_string(d.max_model_len)};
  memory_plan plan;
  plan.max_model_len = has_length ? d.max_model_len_asked : d.max_model_len;
  auto blocks_for = [&](std::uint64_t positions) {
    return (positions + d.block_size - 1) / d.block_size;
  };
  const std::uint64_t useful = blocks_for(plan.max_model_len) * d.max_num_seqs;
  const std::uint64_t bytes = budget_of(d);
  const std::uint64_t blocks =
      std::min({bytes / d.block_bytes, useful, most_positions / d.block_size});
  const std::uint64_t positions = blocks * d.block_size;
  if (positions < plan.max_model_len && (has_length || blocks == 0))
    return error{errc::limit,
                 std::string{bound_of(d)} + ": a sequence of max_model_len " +
                     std::to_string(plan.max_model_len) + " tokens needs " +
                     mebibytes(blocks_for(plan.max_model_len) * d.block_bytes) +
                     ", there are " + mebibytes(bytes)};
  plan.kv_blocks = static_cast<std::uint32_t>(blocks);
  plan.max_model_len = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(plan.max_model_len, positions));
  return plan;
}

} // namespace troupe::engine
