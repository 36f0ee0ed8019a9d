#include "cli/ask_head.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <optional>
#include <vector>

namespace troupe::cli {

namespace {

std::uint64_t number(simdjson::dom::element object, std::string_view key) {
  std::uint64_t out = 0;
  return object[key].get(out) == simdjson::SUCCESS ? out : 0;
}

std::vector<simdjson::dom::element> items(simdjson::dom::element object,
                                          std::string_view key) {
  simdjson::dom::array list;
  if (object[key].get(list) != simdjson::SUCCESS)
    return {};
  return {list.begin(), list.end()};
}

/// What is used of a replica's GPU, which may be of another node.
void print_gpu(simdjson::dom::element gpu) {
  const auto node = text(gpu, "node");
  fmt::print(", GPU {}{}{}: {} of {} MiB", text(gpu, "gpu"),
             node.empty() ? "" : " of ", node,
             number(gpu, "memory_used_bytes") >> 20,
             number(gpu, "memory_total_bytes") >> 20);
  std::uint64_t busy = 0;
  if (gpu["busy_percent"].get(busy) == simdjson::SUCCESS)
    fmt::print(", {} % busy", busy);
}

void print_replica(simdjson::dom::element replica) {
  fmt::print("    {} {}", text(replica, "replica"), text(replica, "phase"));
  if (!text(replica, "node").empty())
    fmt::print(" on {}", text(replica, "node"));
  if (number(replica, "pid") != 0)
    fmt::print(", pid {}", number(replica, "pid"));
  if (number(replica, "restarts") != 0)
    fmt::print(", {} restarts", number(replica, "restarts"));
  if (text(replica, "phase") == "loading")
    fmt::print(", {} of {} MB", number(replica, "bytes_done") / 1'000'000,
               number(replica, "bytes_total") / 1'000'000);
  if (text(replica, "phase") == "ready") {
    simdjson::dom::element load;
    if (replica["load"].get(load) != simdjson::SUCCESS)
      return;
    auto total = number(load, "kv_blocks_total");
    auto used = total - number(load, "kv_blocks_free");
    fmt::print(", {} running, {} waiting, KV {}/{} blocks, {}",
               number(load, "running"), number(load, "waiting"), used, total,
               text(replica, "device"));
    for (auto gpu : items(replica, "gpus"))
      print_gpu(gpu);
  }
  if (!text(replica, "reason").empty())
    fmt::print(": {}", text(replica, "reason"));
  fmt::print("\n");
}

double amount(simdjson::dom::element object, std::string_view key) {
  double out = 0;
  return object[key].get(out) == simdjson::SUCCESS ? out : 0;
}

/// "1.5 of 4 CPU": in use and there, memory in MiB.
std::string shown_amount(std::string_view name, double used, double total) {
  if (name == "memory")
    return fmt::format("{:.0f} of {:.0f} MiB", used / (1 << 20),
                       total / (1 << 20));
  return fmt::format("{:g} of {:g} {}", used, total, name);
}

/// What is in use of what the node has.
void print_amounts(simdjson::dom::element node) {
  simdjson::dom::object resources;
  simdjson::dom::element used;
  if (node["resources"].get(resources) != simdjson::SUCCESS ||
      node["used"].get(used) != simdjson::SUCCESS)
    return;
  std::string line;
  for (auto [name, total] : resources) {
    double there = 0;
    if (total.get(there) != simdjson::SUCCESS)
      continue;
    line += line.empty() ? "    in use: " : ", ";
    line += shown_amount(name, amount(used, name), there);
  }
  if (!line.empty())
    fmt::print("{}\n", line);
}

void print_node(simdjson::dom::element node) {
  bool alive = false;
  if (node["alive"].get(alive) != simdjson::SUCCESS)
    alive = false;
  fmt::print("  {}: {}", text(node, "node"), alive ? "alive" : "lost");
  if (!text(node, "address").empty())
    fmt::print(", {}", text(node, "address"));
  if (number(node, "http_port") != 0)
    fmt::print(", HTTP port {}", number(node, "http_port"));
  fmt::print("\n    {} CPUs, {} MiB", number(node, "cpus"),
             number(node, "memory_bytes") >> 20);
  if (number(node, "gpus") == 0)
    fmt::print(", no GPU\n");
  else
    fmt::print(", {} GPUs ({})\n", number(node, "gpus"),
               text(node, "accelerator_type"));
  print_amounts(node);
  simdjson::dom::object labels;
  if (node["labels"].get(labels) != simdjson::SUCCESS || labels.size() == 0)
    return;
  fmt::print("    labels:");
  for (auto [name, value] : labels)
    fmt::print(" {}={}", name, text(node["labels"].value_unsafe(), name));
  fmt::print("\n");
}

/// How many replicas it may have, and why it has as many as it has.
void print_scaling(simdjson::dom::element model) {
  simdjson::dom::element scaling;
  if (model["scaling"].get(scaling) != simdjson::SUCCESS)
    return;
  fmt::print("    scaled between {} and {}: {}\n",
             number(scaling, "min_replicas"), number(scaling, "max_replicas"),
             text(scaling, "decision").empty() ? "no load heard yet"
                                               : text(scaling, "decision"));
  if (!text(scaling, "held_back").empty())
    fmt::print("    held back: {}\n", text(scaling, "held_back"));
  if (!text(scaling, "last_change").empty())
    fmt::print("    last change: {}\n", text(scaling, "last_change"));
}

/// Names whose certificates of before were revoked.
void print_revoked(simdjson::dom::element all) {
  std::string names;
  for (auto one : items(all, "revoked")) {
    std::string_view name;
    if (one.get(name) == simdjson::SUCCESS)
      names += (names.empty() ? "" : ", ") + std::string{name};
  }
  if (!names.empty())
    fmt::print("  revoked (older certificates are void): {}\n", names);
}

/// "CPU 4, memory 2048 MiB".
std::string shown_bundle(simdjson::dom::element bundle) {
  std::string out;
  simdjson::dom::object amounts;
  if (bundle.get(amounts) != simdjson::SUCCESS)
    return out;
  for (auto [name, value] : amounts) {
    double amount = 0;
    if (value.get(amount) != simdjson::SUCCESS)
      continue;
    out += out.empty() ? "" : ", ";
    out += name == "memory"
               ? fmt::format("memory {:.0f} MiB", amount / (1 << 20))
               : fmt::format("{} {:g}", name, amount);
  }
  return out.empty() ? "nothing" : out;
}

void print_demands(simdjson::dom::element all) {
  auto demands = items(all, "demands");
  if (demands.empty())
    return;
  fmt::print("Demands (replicas without a node)\n");
  for (auto demand : demands) {
    std::string bundles;
    for (auto bundle : items(demand, "bundles"))
      bundles += (bundles.empty() ? "" : " + ") + shown_bundle(bundle);
    fmt::print("  {}: {} of {} ({}), for {} s: {}\n", text(demand, "model"),
               number(demand, "replicas"), bundles, text(demand, "strategy"),
               number(demand, "waits_ms") / 1000, text(demand, "reason"));
  }
}

void print_node_type(simdjson::dom::element type,
                     const std::vector<simdjson::dom::element>& nodes) {
  auto name = text(type, "type");
  fmt::print("  {}: {} of {} to {}", name, number(type, "nodes"),
             number(type, "min_workers"), number(type, "max_workers"));
  if (auto rests = number(type, "rests_ms"); rests != 0)
    fmt::print(", not asked for in the next {} s", (rests + 999) / 1000);
  if (!text(type, "reason").empty())
    fmt::print(" ({})", text(type, "reason"));
  fmt::print("\n");
  for (auto node : nodes)
    if (text(node, "type") == name)
      fmt::print("    {}: {} for {} s\n", text(node, "node"),
                 text(node, "state"), number(node, "since_ms") / 1000);
}

/// The nodes that come and go, by type.
void print_autoscaled(simdjson::dom::element all) {
  simdjson::dom::element fleet;
  if (all["autoscaled_nodes"].get(fleet) != simdjson::SUCCESS)
    return;
  fmt::print("Node types (at most {} workers)\n", number(fleet, "max_workers"));
  for (auto type : items(fleet, "types"))
    print_node_type(type, items(fleet, "nodes"));
}

void print_status(simdjson::dom::element all) {
  fmt::print("Nodes\n");
  for (auto node : items(all, "nodes"))
    print_node(node);
  print_revoked(all);
  print_autoscaled(all);
  print_demands(all);
  fmt::print("Models\n");
  for (auto model : items(all, "models")) {
    fmt::print("  {}: {}, {} of {} replicas ready", text(model, "model"),
               text(model, "status"), number(model, "replicas_ready"),
               number(model, "replicas_wanted"));
    if (!text(model, "reason").empty())
      fmt::print(" ({})", text(model, "reason"));
    fmt::print("\n");
    print_scaling(model);
    if (!text(model, "note").empty())
      fmt::print("    note: {}\n", text(model, "note"));
    for (auto replica : items(model, "replicas"))
      print_replica(replica);
  }
}

} // namespace

int status(const status_arguments& args) {
  auto body = ask_head(args.where, "GET", "/api/status");
  if (!body)
    return 1;
  if (args.json) {
    fmt::print("{}\n", *body);
    return 0;
  }
  simdjson::dom::parser parser;
  simdjson::dom::element all;
  if (parser.parse(*body).get(all) != simdjson::SUCCESS) {
    fmt::print(stderr, "the answer cannot be read\n");
    return 1;
  }
  print_status(all);
  return 0;
}

} // namespace troupe::cli
