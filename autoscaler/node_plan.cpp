#include "autoscaler/node_plan.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <tuple>

namespace troupe::autoscaler {

namespace {

using controller::amounts;
using controller::node_room;

constexpr double launches_min = 5;
constexpr double launches_max = 1'000;

double amount_of(const amounts& of, const std::string& name) {
  auto i = of.find(name);
  return i == of.end() ? 0 : i->second;
}

/// A marker that says what a node's GPUs are, and is not used up.
bool is_marker(const std::string& name) {
  return name.starts_with("accelerator_type:");
}

node_room empty_room(const node_type& type, std::string name) {
  node_room out;
  out.node = std::move(name);
  out.total = type.resources;
  out.free = type.resources;
  out.gpus = controller::gpus_of(type.resources);
  out.engines = type.engines;
  return out;
}

/// Replicas of one model that have no room yet.
struct remainder {
  controller::replica_demand demand;
  std::uint32_t left = 0;
  std::map<std::string, std::uint32_t> here; ///< of the model, by node
  std::tuple<double, double, double> size;   ///< of one: GPUs, CPUs, memory
};

std::vector<remainder>
in_order(const std::vector<protocol::node_demand>& demands) {
  std::vector<remainder> out;
  for (const auto& demand : demands) {
    remainder one;
    one.demand = replica_demand_of(demand);
    one.left = demand.replicas;
    for (const auto& [node, replicas] : demand.here)
      one.here[node] = replicas;
    auto sum = controller::sum_of(one.demand);
    one.size = {amount_of(sum, "GPU"), amount_of(sum, "CPU"),
                amount_of(sum, "memory")};
    out.push_back(std::move(one));
  }
  std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) {
    return a.size > b.size;
  });
  return out;
}

void count_here(const remainder& what, std::vector<node_room>& rooms) {
  for (auto& room : rooms) {
    auto here = what.here.find(room.node);
    room.replicas_of_model = here == what.here.end() ? 0 : here->second;
  }
}

/// Places as many as fit; tells the nodes' names to `use`.
template <class Use>
void fit(remainder& what, std::vector<node_room>& rooms, Use use) {
  if (what.left == 0 || rooms.empty())
    return;
  count_here(what, rooms);
  std::map<std::string_view, node_room*> by_name;
  for (auto& room : rooms)
    by_name.emplace(room.node, &room);
  for (const auto& where : controller::place(what.demand, rooms, what.left)) {
    if (where.nodes.empty())
      return;
    std::set<std::string> nodes{where.nodes.begin(), where.nodes.end()};
    for (const auto& node : nodes) {
      controller::occupy(*by_name.at(node), what.demand, where);
      ++what.here[node];
      ++by_name.at(node)->replicas;
      use(node);
    }
    --what.left;
  }
}

/// Smaller is better.
using waste = std::tuple<bool, double, double, std::string_view>;

waste waste_of(const node_type& type, const node_room& filled) {
  auto gpus = amount_of(filled.total, "GPU");
  auto gpu_unused = gpus > 0 && amount_of(filled.free, "GPU") >= gpus;
  double left = 0;
  double kinds = 0;
  for (const auto& [name, total] : filled.total) {
    auto free = amount_of(filled.free, name);
    if (total <= 0 || is_marker(name) || (name == "memory" && free >= total))
      continue;
    left += std::max(0.0, free) / total;
    ++kinds;
  }
  return {gpu_unused, kinds > 0 ? left / kinds : 1,
          amount_of(type.resources, "CPU"), type.name};
}

class planning {
public:
  explicit planning(const node_situation& of)
      : of_(of), rooms_(of.rooms), rest_(in_order(of.demands)) {
    std::uint32_t coming = 0;
    for (const auto& node : of_.nodes) {
      ++count_[node.type];
      if (!node.comes)
        continue;
      ++coming;
      if (const auto* type = named(node.type))
        rooms_.push_back(empty_room(*type, node.node));
    }
    workers_ = static_cast<std::uint32_t>(of_.nodes.size());
    auto there = static_cast<double>(of_.rooms.size());
    auto at_once = std::clamp(std::floor(of_.upscaling_speed * there),
                              launches_min, launches_max);
    launches_ = static_cast<std::uint32_t>(at_once);
    launches_ -= std::min(launches_, coming);
    launches_ = std::min(launches_, asked_at_once_max);
  }

  node_plan run() {
    fit_all(rooms_);
    std::vector<node_room> fresh;
    for (const auto& type : of_.types)
      while (count_[type.name] < type.min_workers && may_ask(type))
        fresh.push_back(ask(type));
    fit_all(fresh);
    for (auto& one : rest_)
      bring(one);
    choose_ends();
    return std::move(out_);
  }

private:
  const node_type* named(const std::string& name) const {
    for (const auto& type : of_.types)
      if (type.name == name)
        return &type;
    return nullptr;
  }

  bool may_ask(const node_type& type) {
    return launches_ > 0 && may_have(type, 1) &&
           !of_.resting.contains(type.name);
  }

  bool may_have(const node_type& type, std::size_t more) {
    return workers_ + more <= of_.max_workers &&
           count_[type.name] + more <= type.max_workers;
  }

  node_room ask(const node_type& type) {
    --launches_;
    ++workers_;
    ++count_[type.name];
    auto number = ++out_.ask[type.name];
    return empty_room(type, fmt::format("new {} of {}", number, type.name));
  }

  void fit_all(std::vector<node_room>& rooms) {
    for (auto& one : rest_)
      fit(one, rooms, [&](const auto& node) { out_.needed.insert(node); });
  }

  /// New nodes for what is left of `one`, and with it for others.
  void bring(remainder& one) {
    while (one.left > 0) {
      const auto* best = best_for(one);
      if (!best && bring_together(one))
        continue;
      if (!best)
        return;
      std::vector<node_room> fresh{ask(*best)};
      auto before = one.left;
      fit_all(fresh);
      if (one.left == before)
        return; // never: the type takes it
    }
  }

  /// As few nodes of one type as take a replica with the nodes that there are,
  /// where none takes it whole. False if there is no such type.
  bool bring_together(remainder& one) {
    const auto most =
        std::min<std::size_t>(one.demand.nodes_max, one.demand.bundles.size());
    for (std::size_t count = 1; most > 1 && count <= most; ++count)
      for (const auto& type : of_.types) {
        if (!may_ask(type) || !may_have(type, count))
          continue;
        auto tried = rooms_;
        count_here(one, tried);
        for (std::size_t i = 0; i < count; ++i)
          tried.push_back(empty_room(type, fmt::format("tried {}", i)));
        if (controller::place(one.demand, tried).nodes.empty())
          continue;
        // Those that may not be asked for yet are, once these come.
        for (std::size_t i = 0; i < count && launches_ > 0; ++i)
          rooms_.push_back(ask(type));
        const auto before = one.left;
        fit_all(rooms_);
        return one.left < before;
      }
    return false;
  }

  const node_type* best_for(const remainder& one) {
    const node_type* best = nullptr;
    waste least;
    for (const auto& type : of_.types) {
      if (!may_ask(type))
        continue;
      std::vector<node_room> tried{empty_room(type, "tried")};
      if (controller::place(one.demand, tried).nodes.empty())
        continue;
      // What must be there comes first, then all others.
      auto first = one;
      auto nothing = [](const auto&) {};
      fit(first, tried, nothing);
      std::size_t beside = 0;
      for (const auto& each : rest_) {
        if (&each == &one || each.left == 0)
          continue;
        if (++beside > tried_together_max)
          break;
        auto other = each;
        fit(other, tried, nothing);
      }
      auto wasted = waste_of(type, tried.front());
      if (!best || wasted < least) {
        best = &type;
        least = wasted;
      }
    }
    return best;
  }

  void choose_ends() {
    std::vector<const owned_node*> idle;
    for (const auto& node : of_.nodes)
      if (!node.comes && node.idle && !out_.needed.contains(node.node))
        idle.push_back(&node);
    std::stable_sort(
        idle.begin(), idle.end(),
        [](const auto* a, const auto* b) { return *a->idle > *b->idle; });
    for (const auto* node : idle) {
      const auto* type = named(node->type);
      auto& count = count_[node->type];
      auto too_many =
          !type || count > type->max_workers || workers_ > of_.max_workers;
      auto spare = !type || count > type->min_workers;
      if (!too_many && !(spare && *node->idle >= of_.idle_timeout))
        continue;
      --count;
      --workers_;
      out_.end.push_back(node->node);
    }
  }

  const node_situation& of_;
  std::vector<node_room> rooms_;
  std::vector<remainder> rest_;
  std::map<std::string, std::uint32_t> count_; ///< of each type
  std::uint32_t workers_ = 0;
  std::uint32_t launches_ = 0; ///< that may still be begun
  node_plan out_;
};

} // namespace

node_plan plan_nodes(const node_situation& of) {
  return planning{of}.run();
}

controller::replica_demand
replica_demand_of(const protocol::node_demand& from) {
  controller::replica_demand out;
  for (const auto& bundle : from.bundles)
    out.bundles.push_back(amounts_of(bundle.amounts));
  out.strategy = controller::strategy_named(from.strategy);
  out.engine = from.engine;
  out.replicas_per_node_max = from.replicas_per_node_max;
  out.nodes_max = from.nodes_max;
  out.ranks = from.ranks;
  return out;
}

controller::amounts amounts_of(const std::vector<protocol::resource>& from) {
  controller::amounts out;
  for (const auto& [name, amount] : from)
    out[name] += amount;
  return out;
}

} // namespace troupe::autoscaler
