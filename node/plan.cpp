#include "node/plan.hpp"

#include "actors/node_agent/resources.hpp"
#include "actors/replica/replica_process.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace troupe::node {

namespace {

using controller::model_deployment;
using controller::node_room;

std::uint64_t mebibytes(std::uint64_t bytes) {
  return (bytes + (1u << 20) - 1) >> 20;
}

/// For people: "512.0 MiB", "3.5 GiB".
std::string shown_size(std::uint64_t bytes) {
  constexpr auto gibibyte = 1u << 30;
  return bytes < gibibyte
             ? fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20))
             : fmt::format("{:.1f} GiB", static_cast<double>(bytes) / gibibyte);
}

node_room* find(std::vector<node_room>& rooms, const std::string& node) {
  auto i = std::find_if(rooms.begin(), rooms.end(),
                        [&](const auto& room) { return room.node == node; });
  return i == rooms.end() ? nullptr : &*i;
}

/// It is the model, or what is asked of it, that is wrong: elsewhere too.
bool is_of_the_model(const error& why) {
  return why.code == errc::corrupt || why.code == errc::unsupported ||
         why.code == errc::invalid_argument;
}

/// Takes what a placed replica takes.
void take(const model_deployment& model, const controller::placement& place,
          std::vector<node_room>& rooms) {
  const std::set<std::string> nodes{place.nodes.begin(), place.nodes.end()};
  for (const auto& node : nodes)
    if (auto* room = find(rooms, node)) {
      controller::occupy(*room, model.demand, place);
      ++room->replicas;
      ++room->replicas_of_model;
    }
}

/// So many of a replica's bytes as its ranks on this node have.
std::uint64_t bytes_on(const std::string& node, const planned_share& share) {
  if (share.ranks_on.empty())
    return node == share.node ? share.each.bytes() : 0;
  std::uint64_t here = 0, all = 0;
  for (const auto& one : share.ranks_on) {
    all += one.bundles.size();
    here += one.node == node ? one.bundles.size() : 0;
  }
  return share.each.bytes() / all * here;
}

/// What the replicas take of a node's own memory.
std::uint64_t bytes_on(const std::string& node, const model_plan& plan) {
  std::uint64_t out = 0;
  for (const auto& share : plan.shares)
    if (!share.on_gpu)
      out += share.replicas * bytes_on(node, share);
  return out;
}

/// Plans model after model on the same nodes.
class planner {
public:
  planner(const std::vector<plan_node>& nodes, const measure_model& measure)
      : nodes_(nodes), measure_(measure) {
    for (const auto& node : nodes)
      rooms_.push_back(node.room);
  }

  void add(const model_deployment& model) {
    plans_.push_back(
        {model.spec.application, model.spec.model, model.replicas, {}, {}});
    models_.push_back(&model);
    for (auto& room : rooms_)
      room.replicas_of_model = 0;
    for (std::uint32_t i = 0; i < model.replicas; ++i) {
      auto found = controller::place(model.demand, rooms_);
      if (found.nodes.empty()) {
        plans_.back().warnings.push_back(
            fmt::format("no room for {} of {} replicas: {}", model.replicas - i,
                        model.replicas, found.reason));
        break;
      }
      take(model, found, rooms_);
      count(found);
    }
    measure_shares(model);
  }

  std::vector<model_plan> finish() {
    for (std::size_t i = 0; i < plans_.size(); ++i)
      check_rolling_change(*models_[i], plans_[i]);
    check_memory();
    return std::move(plans_);
  }

private:
  void count(const controller::placement& place) {
    auto& shares = plans_.back().shares;
    const auto& node = place.nodes.front();
    const auto ranks_on = controller::shares_of(place.nodes);
    auto i = std::find_if(shares.begin(), shares.end(), [&](const auto& one) {
      return one.node == node && one.ranks_on == ranks_on;
    });
    if (i == shares.end()) {
      i = shares.insert(i, {node, 0, {}});
      i->ranks_on = ranks_on;
    }
    ++i->replicas;
  }

  /// The node's memory, or its part of a GPU's; 0 = not known.
  std::uint64_t memory_of(const protocol::replica_spec& spec,
                          const std::string& node) const {
    for (const auto& one : nodes_)
      if (one.room.node == node)
        return spec.gpus <= 0 ? one.memory_bytes
                              : static_cast<std::uint64_t>(
                                    static_cast<double>(one.gpu_memory_bytes) *
                                    std::min(spec.gpus, 1.0));
    return 0;
  }

  /// What a replica finds there, and, if that is not known, on which node. Of
  /// several nodes the one with the least for each rank decides.
  std::pair<std::uint64_t, std::string>
  memory_for(const protocol::replica_spec& spec,
             const planned_share& share) const {
    if (share.ranks_on.empty())
      return {memory_of(spec, share.node), share.node};
    std::pair out{std::numeric_limits<std::uint64_t>::max(), share.node};
    for (const auto& one : share.ranks_on) {
      auto memory = memory_of(spec, one.node);
      if (spec.gpus <= 0) // as if all ranks were there
        memory = memory / one.bundles.size() * protocol::ranks_of(spec);
      if (memory < out.first)
        out = {memory, one.node};
    }
    return out;
  }

  void measure_shares(const model_deployment& model) {
    auto& plan = plans_.back();
    for (auto& share : plan.shares) {
      auto [memory, where] = memory_for(model.spec, share);
      if (memory == 0) {
        plan.warnings.push_back("its size is not known: " + where +
                                " does not say how much memory a GPU has");
        return;
      }
      auto use = measure_(model.spec, memory);
      if (!use && is_of_the_model(use.error())) {
        plan.refused = use.error().message;
        return;
      }
      if (!use) {
        plan.warnings.push_back("its size is not known: " +
                                use.error().message);
        return;
      }
      share.each = *use;
      share.on_gpu = model.spec.gpus > 0;
      if (auto bound = model.spec.memory_bytes;
          bound != 0 && use->bytes() > bound)
        plan.warnings.push_back(fmt::format(
            "a replica on {} takes {} MiB, ray_actor_options.memory allows {}",
            share.node, mebibytes(use->bytes()), mebibytes(bound)));
    }
  }

  /// Whether a changed replica can be started beside the old ones.
  void check_rolling_change(const model_deployment& model, model_plan& plan) {
    if (plan.shares.empty())
      return;
    for (auto& room : rooms_)
      room.replicas_of_model = 0;
    for (const auto& share : plan.shares) {
      if (auto* room = find(rooms_, share.node))
        room->replicas_of_model += share.replicas;
      for (std::size_t i = 1; i < share.ranks_on.size(); ++i)
        if (auto* room = find(rooms_, share.ranks_on[i].node))
          room->replicas_of_model += share.replicas;
    }
    if (controller::place(model.demand, rooms_).nodes.empty())
      plan.warnings.push_back(
          model.replicas == 1
              ? "no room for a rolling change: the replica is given up before "
                "its successor starts, and requests wait"
              : "no room for a rolling change: one replica at a time is given "
                "up first, and its streams move to the others");
  }

  void check_memory() {
    for (const auto& node : nodes_) {
      std::uint64_t sum = 0;
      model_plan* last = nullptr;
      for (auto& plan : plans_)
        if (auto bytes = bytes_on(node.room.node, plan); bytes > 0) {
          sum += bytes;
          last = &plan;
        }
      if (last && sum > node.memory_bytes)
        last->warnings.push_back(fmt::format(
            "the replicas on {} take {} MiB together, it has {}; set "
            "kv_cache_memory_bytes",
            node.room.node, mebibytes(sum), mebibytes(node.memory_bytes)));
    }
  }

  const std::vector<plan_node>& nodes_;
  const measure_model& measure_;
  std::vector<node_room> rooms_;
  std::vector<model_plan> plans_;
  std::vector<const model_deployment*> models_;
};

/// "east", or "east (2 ranks), west (1)".
std::string places_of(const planned_share& share) {
  if (share.ranks_on.empty())
    return share.node;
  std::string out;
  for (const auto& one : share.ranks_on)
    out += fmt::format("{}{} ({}{})", out.empty() ? "" : ", ", one.node,
                       one.bundles.size(),
                       !out.empty()              ? ""
                       : one.bundles.size() == 1 ? " rank"
                                                 : " ranks");
  return out;
}

void append_share(const planned_share& share, std::string& out) {
  out += fmt::format("  {}: {} replica{}", places_of(share), share.replicas,
                     share.replicas == 1 ? "" : "s");
  const auto& each = share.each;
  if (each.weight_bytes != 0) {
    out += fmt::format(", each {}: weights {}", shown_size(each.bytes()),
                       shown_size(each.weight_bytes));
    if (each.kv_blocks != 0)
      out += fmt::format(", KV cache {} ({} tokens)",
                         shown_size(each.kv_cache_bytes), each.kv_tokens());
    out += fmt::format(", workspace {}", shown_size(each.workspace_bytes));
    if (each.library_bytes != 0)
      out += fmt::format(", kept free for NCCL {}",
                         shown_size(each.library_bytes));
    out += fmt::format("; up to {} tokens per {}", each.max_model_len,
                       each.kv_blocks != 0 ? "choice" : "text");
  }
  out += '\n';
}

plan_node from_joined(const protocol::node_joined& node) {
  plan_node out;
  out.room.node = node.node;
  for (const auto& one : node.resources)
    out.room.total[one.name] += one.amount;
  out.room.free = out.room.total;
  out.room.gpus = controller::gpus_of(out.room.total);
  out.room.engines = node.engines;
  out.memory_bytes = node.memory_bytes;
  if (auto gpus = out.room.total["GPU"]; gpus > 0)
    out.gpu_memory_bytes =
        static_cast<std::uint64_t>(out.room.total["gpu_memory"] / gpus);
  return out;
}

result<plan_node> read_node(simdjson::dom::element node) {
  protocol::node_joined out;
  std::string_view name;
  simdjson::dom::object resources;
  simdjson::dom::array engines;
  if (node["node"].get(name) != simdjson::SUCCESS ||
      node["memory_bytes"].get(out.memory_bytes) != simdjson::SUCCESS ||
      node["resources"].get(resources) != simdjson::SUCCESS ||
      node["engines"].get(engines) != simdjson::SUCCESS)
    return error{errc::corrupt, "a node in the cluster's status is not whole"};
  out.node = name;
  for (auto [key, value] : resources) {
    double amount = 0;
    if (value.get(amount) == simdjson::SUCCESS)
      out.resources.push_back({std::string{key}, amount});
  }
  for (auto one : engines) {
    std::string_view engine;
    if (one.get(engine) == simdjson::SUCCESS)
      out.engines.emplace_back(engine);
  }
  return from_joined(out);
}

} // namespace

std::vector<model_plan> make_plan(const controller::deployment& wanted,
                                  std::vector<plan_node> nodes,
                                  const measure_model& measure) {
  planner plan{nodes, measure};
  for (const auto& model : wanted.models)
    plan.add(model);
  return plan.finish();
}

bool has_errors(const std::vector<model_plan>& plans) {
  return std::any_of(plans.begin(), plans.end(),
                     [](const auto& plan) { return !plan.refused.empty(); });
}

std::string to_text(const std::vector<model_plan>& plans,
                    const std::vector<plan_node>& nodes) {
  std::string out;
  for (const auto& plan : plans) {
    out += fmt::format("{}/{}: {} replica{}\n", plan.application, plan.model,
                       plan.replicas, plan.replicas == 1 ? "" : "s");
    for (const auto& share : plan.shares)
      append_share(share, out);
    const auto where =
        plan.where.file.empty() ? "" : config::to_string(plan.where) + ": ";
    if (!plan.refused.empty())
      out += fmt::format("  {}error: {}\n", where, plan.refused);
    for (const auto& warning : plan.warnings)
      out += fmt::format("  {}warning: {}\n", where, warning);
  }
  out += "Nodes\n";
  for (const auto& node : nodes) {
    std::uint64_t sum = 0;
    for (const auto& plan : plans)
      sum += bytes_on(node.room.node, plan);
    out += fmt::format("  {}: {} of {} MiB\n", node.room.node, mebibytes(sum),
                       mebibytes(node.memory_bytes));
  }
  return out;
}

result<engine::memory_use>
measure_with_engine(const protocol::replica_spec& spec,
                    std::uint64_t memory_bytes) {
  auto here = engine::fetch(
      replica::engine_options(spec),
      [](const std::string&, std::uint64_t, std::uint64_t) {},
      engine::fetch_from::caches_alone);
  // What this machine lacks, others may have.
  if (!here)
    return error{errc::unavailable, here.error().message};
  return engine::measure(here->with, memory_bytes);
}

std::vector<plan_node> this_machine() {
  return {from_joined(node_agent::describe_node("here", "127.0.0.1", {}))};
}

result<std::vector<plan_node>> nodes_of_status(const std::string& json) {
  simdjson::dom::parser parser;
  simdjson::dom::element all;
  simdjson::dom::array nodes;
  if (parser.parse(json).get(all) != simdjson::SUCCESS ||
      all["nodes"].get(nodes) != simdjson::SUCCESS)
    return error{errc::corrupt, "the cluster's status cannot be read"};
  std::vector<plan_node> out;
  for (auto node : nodes) {
    bool alive = false;
    if (node["alive"].get(alive) != simdjson::SUCCESS || !alive)
      continue;
    auto read = read_node(node);
    if (!read)
      return read.error();
    out.push_back(std::move(*read));
  }
  return out;
}

} // namespace troupe::node
