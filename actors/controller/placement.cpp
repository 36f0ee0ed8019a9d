#include "actors/controller/placement.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <optional>
#include <set>
#include <tuple>

namespace troupe::controller {

namespace {

constexpr std::size_t nodes_named_max = 8;

double amount_of(const amounts& of, const std::string& name) {
  auto i = of.find(name);
  return i == of.end() ? 0 : i->second;
}

/// Sums of fractions are never exact: ten times 0.1 must fit in 1.
bool enough(double free, double asked) {
  return free + 1e-6 + 1e-9 * asked >= asked;
}

/// What `free` has too little of; null = nothing.
const std::string* lacking(const amounts& free, const amounts& asked) {
  for (const auto& [name, amount] : asked)
    if (amount > 0 && !enough(amount_of(free, name), amount))
      return &name;
  return nullptr;
}

bool has_engine(const node_room& room, const replica_demand& demand) {
  return std::find(room.engines.begin(), room.engines.end(), demand.engine) !=
         room.engines.end();
}

bool full(const node_room& room, const replica_demand& demand) {
  return demand.replicas_per_node_max != 0 &&
         room.replicas_of_model >= demand.replicas_per_node_max;
}

/// The engine computes on one GPU, or on a part of one, or each of its ranks on
/// a whole one.
bool has_gpus_for_ranks(const replica_demand& demand) {
  if (demand.engine != "cuda")
    return true;
  auto gpus = amount_of(sum_of(demand), "GPU");
  if (demand.ranks <= 1)
    return gpus <= 1;
  return gpus == demand.ranks &&
         std::all_of(demand.bundles.begin(), demand.bundles.end(),
                     [](const auto& bundle) {
                       auto part = amount_of(bundle, "GPU");
                       return part == std::floor(part);
                     });
}

/// Older nodes would start a process per rank, each with all GPUs.
bool knows_ranks(const node_room& room, const replica_demand& demand) {
  return room.knows_parts || demand.engine != "cuda" || demand.ranks <= 1;
}

bool usable(const node_room& room, const replica_demand& demand) {
  return has_engine(room, demand) && !full(room, demand) &&
         has_gpus_for_ranks(demand) && knows_ranks(room, demand);
}

/// For some ranks of a replica.
bool spannable(const node_room& room, const replica_demand& demand) {
  return room.knows_parts && usable(room, demand);
}

/// What a node has for this replica: of GPUs those that it can be given, which
/// may be less than the parts that are free together.
amounts free_for(const node_room& room, const replica_demand& demand) {
  auto out = room.free;
  if (auto asked = gpus_in(sum_of(demand)); asked > 0)
    out["GPU"] = std::min(gpus_in(out), room.gpus.room_for(asked));
  return out;
}

bool has_room(const node_room& room, const amounts& asked) {
  return !lacking(room.free, asked) &&
         room.gpus.choose(gpus_in(asked)).has_value();
}

/// Gives which GPUs these are.
protocol::gpu_numbers take_from(node_room& from, const amounts& what) {
  const auto gpus = gpus_in(what);
  auto chosen = from.gpus.choose(gpus).value_or(protocol::gpu_numbers{});
  from.gpus.take(chosen, gpus);
  subtract(from.free, what);
  return chosen;
}

/// How often `free` holds `asked`.
double times_held(const amounts& free, const amounts& asked) {
  auto least = std::numeric_limits<double>::infinity();
  for (const auto& [name, amount] : asked)
    if (amount > 0)
      least = std::min(least, amount_of(free, name) / amount);
  return least;
}

/// Smaller is better.
using rank = std::tuple<std::uint32_t, double, std::uint32_t, std::string_view>;

rank rank_of(const node_room& room, const amounts& asked) {
  return {room.replicas_of_model, -times_held(room.free, asked), room.replicas,
          room.node};
}

std::string in_words(const std::string& name, double amount) {
  if (amount < 1e-6)
    amount = 0; // what is left of sums of fractions
  constexpr double gibibyte = 1 << 30;
  if (name == "memory")
    return fmt::format("{:.4g} GiB", amount / gibibyte);
  return fmt::format("{:.6g}", amount);
}

std::string in_words(const amounts& bundle) {
  std::string out;
  for (const auto& [name, amount] : bundle)
    if (amount > 0)
      out += fmt::format("{}{} {}", out.empty() ? "" : ", ", name,
                         in_words(name, amount));
  return out.empty() ? "nothing" : out;
}

/// The first bundle that this node has no room for when it takes them in order,
/// and what it lacks of it.
struct misfit {
  std::size_t bundle = 0;
  std::string lacking;
  double left = 0; ///< of that
};

std::optional<misfit> first_misfit(const node_room& room,
                                   const replica_demand& demand) {
  auto free = free_for(room, demand);
  for (std::size_t i = 0; i < demand.bundles.size(); ++i) {
    if (const auto* name = lacking(free, demand.bundles[i]))
      return misfit{i, *name, amount_of(free, *name)};
    subtract(free, demand.bundles[i]);
  }
  return std::nullopt;
}

/// That parts of several GPUs are no whole one, and no larger part: empty, if
/// that is not what is lacking.
std::string of_one_gpu(const node_room& room, const replica_demand& demand,
                       const misfit& why) {
  const auto together = gpus_in(room.free);
  const auto usable = gpus_in(free_for(room, demand));
  if (why.lacking != "GPU" || enough(usable, together))
    return {};
  if (gpus_in(sum_of(demand)) < 1)
    return fmt::format("{} has {:.6g} of {:.6g} GPU free, at most {:.6g} of "
                       "one",
                       room.node, together, gpus_in(room.total), usable);
  return fmt::format("{} has {:.6g} of {:.6g} GPU free, {:.6g} of them whole",
                     room.node, together, gpus_in(room.total), usable);
}

std::string sentence(const node_room& room, const replica_demand& demand,
                     const misfit& why) {
  auto total = amount_of(room.total, why.lacking);
  if (total <= 0)
    return fmt::format("{} has no {}", room.node, why.lacking);
  if (auto parts = of_one_gpu(room, demand, why); !parts.empty())
    return parts;
  return fmt::format("{} has {} of {} {} free", room.node,
                     in_words(why.lacking, why.left),
                     in_words(why.lacking, total), why.lacking);
}

/// What no node can help; empty = nothing.
std::string why_never(const replica_demand& demand) {
  if (!has_gpus_for_ranks(demand))
    return fmt::format("a replica of tensor_parallel_size {} computes on {} "
                       "whole GPU{}, {} are asked for",
                       demand.ranks, demand.ranks, demand.ranks > 1 ? "s" : "",
                       amount_of(sum_of(demand), "GPU"));
  if (demand.bundles.size() <= demand.nodes_max || demand.bundles.size() <= 1 ||
      demand.strategy != placement_strategy::strict_spread)
    return {};
  return fmt::format(
      "STRICT_SPREAD wants a node for each of {} bundles, and a replica can "
      "span only {} (several where `troupe: {{data_network: trusted}}` says "
      "so, and tensor_parallel_size is the number of bundles{})",
      demand.bundles.size(), demand.nodes_max,
      demand.engine == "cuda" ? ", each with one GPU" : "");
}

/// A replica on one node each: the ones after the first cost a logarithm.
std::vector<placement> place_whole(const replica_demand& demand,
                                   std::vector<node_room> rooms,
                                   std::uint32_t count) {
  std::vector<placement> out;
  auto asked = sum_of(demand);
  std::set<std::pair<rank, std::size_t>> fitting;
  auto consider = [&](std::size_t i) {
    if (takes(rooms[i], demand))
      fitting.emplace(rank_of(rooms[i], asked), i);
  };
  for (std::size_t i = 0; i < rooms.size(); ++i)
    consider(i);
  auto bundles = std::max<std::size_t>(1, demand.bundles.size());
  while (out.size() < count && !fitting.empty()) {
    auto best = fitting.begin()->second;
    fitting.erase(fitting.begin());
    auto& room = rooms[best];
    take_from(room, asked);
    ++room.replicas_of_model;
    ++room.replicas;
    out.push_back({std::vector(bundles, room.node), {}});
    consider(best);
  }
  if (out.size() < count) {
    auto more = rooms.size() - std::min(rooms.size(), nodes_named_max);
    rooms.resize(rooms.size() - more);
    out.push_back({{}, why_none_takes(demand, rooms, more)});
  }
  return out;
}

/// Bundles of one replica over several nodes.
class spanning {
public:
  spanning(const replica_demand& demand, std::vector<node_room>& rooms)
      : demand_(demand), rooms_(rooms), where_(demand.bundles.size(), none),
        gpus_(demand.bundles.size()), used_(rooms.size(), false) {
    // nop
  }

  bool pack();
  bool spread(bool strict);

  /// Counts the replica on its nodes.
  placement take() {
    placement out;
    for (auto i : where_)
      out.nodes.push_back(rooms_[i].node);
    for (std::size_t i = 0; i < rooms_.size(); ++i)
      if (used_[i]) {
        ++rooms_[i].replicas_of_model;
        ++rooms_[i].replicas;
      }
    return out;
  }

  void give_back() {
    for (std::size_t b = 0; b < where_.size(); ++b)
      if (where_[b] != none) {
        auto& room = rooms_[where_[b]];
        add(room.free, demand_.bundles[b]);
        room.gpus.give_back(gpus_[b], gpus_in(demand_.bundles[b]));
      }
  }

private:
  static constexpr auto none = std::numeric_limits<std::size_t>::max();

  std::size_t held(const node_room& room) const;
  std::size_t best_for(std::size_t bundle, bool used) const;

  void put(std::size_t bundle, std::size_t room) {
    where_[bundle] = room;
    gpus_[bundle] = take_from(rooms_[room], demand_.bundles[bundle]);
    nodes_ += !used_[room];
    used_[room] = true;
  }

  const replica_demand& demand_;
  std::vector<node_room>& rooms_;
  std::vector<std::size_t> where_;          ///< by bundle
  std::vector<protocol::gpu_numbers> gpus_; ///< by bundle
  std::vector<bool> used_;                  ///< by room
  std::uint32_t nodes_ = 0;
};

/// How many of the bundles that have no node yet fit here.
std::size_t spanning::held(const node_room& room) const {
  node_room left;
  left.free = room.free;
  left.gpus = room.gpus;
  std::size_t out = 0;
  for (std::size_t b = 0; b < where_.size(); ++b)
    if (where_[b] == none && has_room(left, demand_.bundles[b])) {
      take_from(left, demand_.bundles[b]);
      ++out;
    }
  return out;
}

/// The node that takes most of what is left, until nothing is.
bool spanning::pack() {
  auto asked = sum_of(demand_);
  auto left = where_.size();
  while (left > 0 && nodes_ < demand_.nodes_max) {
    std::size_t best = none;
    std::size_t most = 0;
    for (std::size_t i = 0; i < rooms_.size(); ++i) {
      if (used_[i] || !spannable(rooms_[i], demand_))
        continue;
      auto holds = held(rooms_[i]);
      if (holds > most ||
          (holds > 0 && holds == most &&
           rank_of(rooms_[i], asked) < rank_of(rooms_[best], asked))) {
        most = holds;
        best = i;
      }
    }
    if (best == none)
      return false;
    for (std::size_t b = 0; b < where_.size(); ++b)
      if (where_[b] == none && has_room(rooms_[best], demand_.bundles[b]))
        put(b, best);
    left -= most;
  }
  return left == 0;
}

std::size_t spanning::best_for(std::size_t bundle, bool used) const {
  std::size_t best = none;
  const auto& asked = demand_.bundles[bundle];
  for (std::size_t i = 0; i < rooms_.size(); ++i)
    if (used_[i] == used && spannable(rooms_[i], demand_) &&
        has_room(rooms_[i], asked) &&
        (best == none ||
         rank_of(rooms_[i], asked) < rank_of(rooms_[best], asked)))
      best = i;
  return best;
}

/// The bundle that fewest nodes take chooses first.
bool spanning::spread(bool strict) {
  std::vector<std::pair<std::size_t, std::size_t>> order;
  for (std::size_t b = 0; b < where_.size(); ++b)
    order.emplace_back(std::count_if(rooms_.begin(), rooms_.end(),
                                     [&](const auto& room) {
                                       return spannable(room, demand_) &&
                                              has_room(room,
                                                       demand_.bundles[b]);
                                     }),
                       b);
  std::sort(order.begin(), order.end());
  for (const auto& [takers, b] : order) {
    auto room = nodes_ < demand_.nodes_max ? best_for(b, false) : none;
    if (room == none && !strict)
      room = best_for(b, true);
    if (room == none)
      return false;
    put(b, room);
  }
  return true;
}

placement place_spanning(const replica_demand& demand,
                         std::vector<node_room>& rooms) {
  auto packed = demand.strategy == placement_strategy::pack;
  if (packed) {
    auto whole = place_whole(demand, rooms, 1).front();
    if (!whole.nodes.empty()) {
      for (auto& room : rooms)
        if (room.node == whole.nodes.front()) {
          take_from(room, sum_of(demand));
          ++room.replicas_of_model;
          ++room.replicas;
        }
      return whole;
    }
  }
  spanning search{demand, rooms};
  auto strict = demand.strategy == placement_strategy::strict_spread;
  if (packed ? search.pack() : search.spread(strict))
    return search.take();
  search.give_back();
  std::vector<node_room> first{
      rooms.begin(), rooms.begin() + static_cast<std::ptrdiff_t>(std::min(
                                         rooms.size(), nodes_named_max))};
  auto why = why_none_takes(demand, first, rooms.size() - first.size());
  return {{},
          fmt::format("{} bundles over at most {} nodes: {}",
                      demand.bundles.size(), demand.nodes_max, why)};
}

} // namespace

std::string_view to_string(placement_strategy strategy) {
  switch (strategy) {
  case placement_strategy::strict_pack:
    return "STRICT_PACK";
  case placement_strategy::spread:
    return "SPREAD";
  case placement_strategy::strict_spread:
    return "STRICT_SPREAD";
  case placement_strategy::pack:
    break;
  }
  return "PACK";
}

placement_strategy strategy_named(std::string_view name) {
  for (auto strategy :
       {placement_strategy::strict_pack, placement_strategy::spread,
        placement_strategy::strict_spread})
    if (name == to_string(strategy))
      return strategy;
  return placement_strategy::pack;
}

void add(amounts& to, const amounts& what) {
  for (const auto& [name, amount] : what)
    to[name] += amount;
}

void subtract(amounts& from, const amounts& what) {
  for (const auto& [name, amount] : what)
    from[name] -= amount;
}

protocol::gpu_room gpus_of(const amounts& total) {
  return protocol::gpu_room::of(gpus_in(total));
}

double gpus_in(const amounts& of) {
  return amount_of(of, "GPU");
}

void occupy(node_room& room, const replica_demand& demand,
            const placement& where) {
  amounts taken;
  for (std::size_t i = 0; i < where.nodes.size(); ++i)
    if (where.nodes[i] == room.node)
      add(taken, demand.bundles[i]);
  take_from(room, taken);
}

amounts sum_of(const replica_demand& demand) {
  amounts out;
  for (const auto& bundle : demand.bundles)
    add(out, bundle);
  return out;
}

amounts share_of(const replica_demand& demand,
                 const protocol::rank_share& share) {
  amounts out;
  for (auto i : share.bundles)
    if (i < demand.bundles.size())
      add(out, demand.bundles[i]);
  return out;
}

std::vector<protocol::rank_share>
shares_of(const std::vector<std::string>& nodes) {
  std::vector<protocol::rank_share> out;
  for (std::uint32_t bundle = 0; bundle < nodes.size(); ++bundle) {
    auto known = std::find_if(out.begin(), out.end(), [&](const auto& share) {
      return share.node == nodes[bundle];
    });
    if (known == out.end())
      known = out.insert(out.end(), {nodes[bundle], {}});
    known->bundles.push_back(bundle);
  }
  if (out.size() <= 1)
    out.clear();
  return out;
}

bool takes(const node_room& room, const replica_demand& demand) {
  return usable(room, demand) && has_room(room, sum_of(demand));
}

std::string why_none_takes(const replica_demand& demand,
                           const std::vector<node_room>& first,
                           std::size_t more) {
  if (auto never = why_never(demand); !never.empty())
    return never;
  if (first.empty())
    return "no node has joined yet";
  std::string out;
  std::optional<std::size_t> bundle;
  for (const auto& room : first) {
    if (!out.empty())
      out += "; ";
    if (!has_engine(room, demand)) {
      out += fmt::format("{} has no {} engine", room.node,
                         demand.engine == "cuda" ? "GPU" : demand.engine);
    } else if (!knows_ranks(room, demand)) {
      out += room.node + " is too old for ranks on GPUs";
    } else if (full(room, demand)) {
      out += fmt::format("{}: max_replicas_per_node is {}", room.node,
                         demand.replicas_per_node_max);
    } else if (auto why = first_misfit(room, demand)) {
      if (bundle != why->bundle)
        out += fmt::format("bundle {} ({}): ", why->bundle + 1,
                           in_words(demand.bundles[why->bundle]));
      bundle = why->bundle;
      out += sentence(room, demand, *why);
    } else {
      out += room.node + " has room for it";
    }
  }
  if (more > 0)
    out += fmt::format("; and {} more nodes", more);
  return out;
}

placement place(const replica_demand& demand,
                const std::vector<node_room>& rooms) {
  return place(demand, rooms, 1).front();
}

std::vector<placement> place(const replica_demand& demand,
                             std::vector<node_room> rooms,
                             std::uint32_t count) {
  if (auto never = why_never(demand); !never.empty())
    return {{{}, never}};
  if (demand.bundles.size() <= 1 || demand.nodes_max <= 1 ||
      demand.strategy == placement_strategy::strict_pack)
    return place_whole(demand, std::move(rooms), count);
  std::vector<placement> out;
  while (out.size() < count) {
    out.push_back(place_spanning(demand, rooms));
    if (out.back().nodes.empty())
      break;
  }
  return out;
}

} // namespace troupe::controller
