#include "config/schema.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace troupe::config {

namespace {

struct named_router {
  std::string_view name;   ///< of ours, or a class of Ray's, with dots
  std::string_view policy; ///< what it means
};

constexpr auto known_routers = std::to_array<named_router>({
    {"power_of_two", "power_of_two"},
    {"round_robin", "round_robin"},
    {"session", "session"},
    {"prefix", "prefix"},
    {"kv_aware", "kv_aware"},
    {"ray.serve._private.request_router.PowerOfTwoChoicesRequestRouter",
     "power_of_two"},
    {"ray.serve._private.request_router.pow_2_router."
     "PowerOfTwoChoicesRequestRouter",
     "power_of_two"},
    {"ray.serve.experimental.round_robin_router.RoundRobinRouter",
     "round_robin"},
    {"ray.serve.experimental.consistent_hash_router.ConsistentHashRouter",
     "session"},
    {"ray.serve.llm.request_router.PrefixCacheAffinityRouter", "prefix"},
    {"ray.serve.llm.request_router.KVAwareRouter", "kv_aware"},
});

constexpr double count_max = 1e12;

std::string all_names() {
  std::string out;
  for (const auto& one : known_routers)
    out += fmt::format("{}{}", out.empty() ? "" : ", ", one.name);
  return out;
}

/// Ray takes "module:Class" and "module.Class".
std::string read_policy(const located& value, const std::string& fallback) {
  auto given = read_text(value);
  if (!given)
    return fallback;
  auto name = *given;
  std::replace(name.begin(), name.end(), ':', '.');
  auto known = std::find_if(known_routers.begin(), known_routers.end(),
                            [&](const auto& one) { return one.name == name; });
  if (known != known_routers.end())
    return std::string{known->policy};
  value.error(fmt::format("\"{}\" is not known, and Troupe runs no Python; "
                          "known are {}",
                          *given, all_names()));
  return fallback;
}

/// Checks a key that is of no use here, and says why.
void note_number(map_reader& in, std::string_view key, bounds range,
                 std::string_view why) {
  auto value = in.take(key);
  if (value.present() && read_number(value, range))
    value.note(std::string{why});
}

void read_prefix_options(map_reader& in, request_router_config& out) {
  constexpr std::string_view bounded =
      "means nothing here: the memory of prompts is always bounded";
  out.imbalanced_threshold = in.number("imbalanced_threshold", {0, count_max});
  auto evict = in.take("do_eviction");
  if (evict.present() && read_boolean(evict))
    evict.note(std::string{bounded});
  for (auto key : {"eviction_threshold_chars", "eviction_target_chars",
                   "eviction_interval_secs"})
    note_number(in, key, {0, count_max}, bounded);
}

void read_options(const located& value, request_router_config& out) {
  map_reader in{value};
  if (out.policy == "prefix" || out.policy == "kv_aware")
    out.match_rate_threshold = in.number("match_rate_threshold", {0, 1})
                                   .value_or(out.match_rate_threshold);
  if (out.policy == "prefix")
    read_prefix_options(in, out);
  if (out.policy == "session")
    for (auto key : {"num_virtual_nodes", "num_fallback_replicas"})
      note_number(in, key, {0, count_max},
                  "means nothing here: a session has an order of all replicas");
}

} // namespace

request_router_config read_request_router(const located& value) {
  request_router_config out;
  map_reader in{value};
  if (auto name = in.take("request_router_class"); name.present())
    out.policy = read_policy(name, out.policy);
  if (auto options = in.take("request_router_kwargs"); options.present())
    read_options(options, out);
  for (auto key :
       {"request_routing_stats_period_s", "request_routing_stats_timeout_s"})
    note_number(in, key, {1e-3, count_max},
                "means nothing here: replicas tell routers what changes when "
                "it does");
  for (auto key : {"initial_backoff_s", "backoff_multiplier", "max_backoff_s"})
    note_number(in, key, {0, count_max},
                "means nothing here: a choice waits until a replica has room, "
                "and asks no sooner");
  return out;
}

} // namespace troupe::config
