#include "autoscaler/node_fleet.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace troupe::autoscaler::fleet {

namespace {

/// What a node that came has too little of; empty = nothing.
std::string shortfall(const controller::amounts& promised,
                      const controller::amounts& came) {
  for (const auto& [name, amount] : promised) {
    auto there = came.find(name);
    auto has = there == came.end() ? 0 : there->second;
    if (has < amount * 0.99)
      return fmt::format("{:g} of the {:g} {} that its type promises", has,
                         amount, name);
  }
  return {};
}

std::uint64_t count(milliseconds time) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(0, time.count()));
}

/// What nodes of a type are called: as a node's name may be, and short.
std::string name_part(const std::string& type) {
  constexpr std::size_t bytes_max = 32;
  std::string out;
  for (char c : type.substr(0, bytes_max)) {
    if (c >= 'A' && c <= 'Z')
      c = static_cast<char>(c - 'A' + 'a');
    auto letter = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    if (out.empty() && !letter)
      out += 'n';
    out += letter || c == '.' ? c : '-';
  }
  return out;
}

std::uint64_t between(time_point from, time_point to) {
  return count(std::chrono::duration_cast<milliseconds>(to - from));
}

} // namespace

machine::machine(options from, std::uint64_t epoch)
    : options_(std::move(from)), epoch_(epoch) {
  for (const auto& type : options_.types)
    kinds_[type.name].type = type;
}

commands machine::begin(const std::vector<protocol::asked_node>& stored,
                        const std::vector<troupe::node::living_node>& living,
                        time_point now) {
  commands out;
  for (const auto& [name, type] : stored) {
    auto found =
        std::find_if(living.begin(), living.end(),
                     [&](const auto& one) { return one.node == name; });
    if (found == living.end()) {
      changed_ = true; // it never came, or is gone
      continue;
    }
    auto& one = nodes_[name];
    one.type = type;
    if (found->ending)
      end(name, one, out, now);
    else
      enter(one, phase::requested, now);
  }
  for (const auto& [name, ending] : living)
    if (!nodes_.contains(name)) // nobody knows of it any more
      end(name, nodes_[name], out, now);
  finish(out, now);
  return out;
}

void machine::enter(node& one, phase next, time_point now) {
  one.at = next;
  one.since = now;
  if (next == phase::requested)
    one.deadline = now + options_.arrival_max;
  if (next == phase::lost)
    one.deadline = now + options_.lost_max;
}

/// Several that fail at once are one failure.
void machine::failed(const std::string& type, const std::string& why,
                     time_point now) {
  auto found = kinds_.find(type);
  if (found == kinds_.end())
    return;
  auto& kind = found->second;
  kind.reason = why;
  if (kind.rests_until && now < *kind.rests_until)
    return;
  auto pause =
      options_.rest * (1u << std::min<std::uint32_t>(kind.failures++, 16));
  kind.rests_until = now + std::min<milliseconds>(pause, options_.rest_max);
}

// -- what is told -------------------------------------------------------------

commands machine::know(protocol::nodes_view view, time_point now) {
  commands out;
  view_ = std::move(view);
  std::map<std::string_view, const protocol::seen_node*> there;
  for (const auto& one : view_->nodes)
    there.emplace(one.node, &one);
  for (auto& [name, one] : nodes_) {
    auto i = there.find(name);
    see(name, one, i == there.end() ? nullptr : i->second, now);
  }
  finish(out, now);
  return out;
}

void machine::see(const std::string& name, node& one,
                  const protocol::seen_node* seen, time_point now) {
  auto alive = seen && seen->alive;
  switch (one.at) {
  case phase::requested:
  case phase::lost:
    if (alive)
      joined(name, one, *seen, now);
    break;
  case phase::joined:
    if (!alive) {
      one.idle_since.reset();
      enter(one, phase::lost, now);
    }
    break;
  case phase::storing:
  case phase::draining:
  case phase::ending:
    return;
  }
  if (one.at != phase::joined)
    return;
  if (seen->busy)
    one.idle_since.reset();
  else if (!one.idle_since)
    one.idle_since = now;
}

void machine::joined(const std::string& name, node& one,
                     const protocol::seen_node& seen, time_point now) {
  enter(one, phase::joined, now);
  if (one.stable_at)
    return; // it was here before
  one.stable_at = now + options_.stable_after;
  auto kind = kinds_.find(one.type);
  if (kind == kinds_.end())
    return;
  auto lacks = shortfall(kind->second.type.resources, amounts_of(seen.total));
  if (lacks.empty())
    return;
  one.stable_at = time_point::max();
  failed(one.type, fmt::format("{} came with {}", name, lacks), now);
}

commands machine::stored(bool done, time_point now) {
  commands out;
  storing_ = false;
  if (!done) {
    changed_ = true;
    store_at_ = now + options_.store_retry;
  }
  for (auto& [name, one] : nodes_) {
    if (!std::exchange(one.listed, false) || !done || one.at != phase::storing)
      continue;
    enter(one, phase::requested, now);
    out.push_back(ask_for{name, one.type});
  }
  finish(out, now);
  return out;
}

commands machine::closed(const std::string& name, bool done, time_point now) {
  commands out;
  auto found = nodes_.find(name);
  if (found == nodes_.end() || found->second.at != phase::draining)
    return out;
  auto& one = found->second;
  if (done && !one.wanted_again) {
    end(name, one, out, now);
  } else {
    if (done)
      out.push_back(close_node{name, false});
    one.idle_since.reset();
    enter(one, phase::joined, now);
  }
  finish(out, now);
  return out;
}

commands machine::ended(const std::string& name, const std::string& why,
                        time_point now) {
  commands out;
  auto found = nodes_.find(name);
  if (found == nodes_.end())
    return out;
  const auto& one = found->second;
  auto stable = one.stable_at && now >= *one.stable_at;
  if (one.at != phase::ending && !stable)
    failed(one.type, why, now);
  changed_ = true;
  nodes_.erase(found);
  finish(out, now);
  return out;
}

commands machine::tick(time_point now) {
  commands out;
  finish(out, now);
  return out;
}

// -- what follows -------------------------------------------------------------

void machine::end(const std::string& name, node& one, commands& out,
                  time_point now) {
  enter(one, phase::ending, now);
  out.push_back(close_node{name, true}); // should it join, or come back, yet
  out.push_back(end_node{name});
}

/// What did not come, or come back, in its time.
void machine::expire(commands& out, time_point now) {
  for (auto& [name, one] : nodes_) {
    if (one.at == phase::requested && now >= one.deadline) {
      failed(
          one.type,
          fmt::format("{} did not join within {:g} s", name,
                      static_cast<double>(options_.arrival_max.count()) / 1000),
          now);
      end(name, one, out, now);
    } else if (one.at == phase::lost && now >= one.deadline) {
      end(name, one, out, now);
    }
    if (one.at == phase::joined && !one.proved && one.stable_at &&
        now >= *one.stable_at) {
      one.proved = true;
      if (auto kind = kinds_.find(one.type); kind != kinds_.end())
        kind->second.failures = 0;
    }
  }
  for (auto& [name, kind] : kinds_)
    if (kind.rests_until && now >= *kind.rests_until)
      kind.rests_until.reset();
}

node_situation machine::situation(time_point now) const {
  node_situation out;
  out.types = options_.types;
  out.max_workers = options_.max_workers;
  out.upscaling_speed = options_.upscaling_speed;
  out.idle_timeout = options_.idle_timeout;
  out.demands = view_->demands;
  for (const auto& [name, kind] : kinds_)
    if (kind.rests_until)
      out.resting.insert(name);
  for (const auto& [name, one] : nodes_) {
    if (one.at == phase::ending)
      continue;
    owned_node owned{name, one.type, false, {}};
    owned.comes = one.at == phase::storing || one.at == phase::requested ||
                  one.at == phase::lost;
    if (one.idle_since && one.at == phase::joined)
      owned.idle =
          std::chrono::duration_cast<milliseconds>(now - *one.idle_since);
    out.nodes.push_back(std::move(owned));
  }
  for (const auto& seen : view_->nodes) {
    auto owned = nodes_.find(seen.node);
    auto ours = owned != nodes_.end();
    auto draining = ours && owned->second.at == phase::draining;
    if (!seen.alive || (seen.closed && !draining) ||
        (ours && !draining && owned->second.at != phase::joined))
      continue;
    controller::node_room room;
    room.node = seen.node;
    room.total = amounts_of(seen.total);
    room.free = amounts_of(seen.free);
    room.gpus = protocol::gpu_room{seen.gpu_parts_left};
    room.engines = seen.engines;
    room.replicas = seen.replicas;
    out.rooms.push_back(std::move(room));
  }
  return out;
}

void machine::follow_plan(commands& out, time_point now) {
  if (!view_)
    return;
  auto plan = plan_nodes(situation(now));
  for (auto& [name, one] : nodes_)
    one.wanted_again = one.at == phase::draining && plan.needed.contains(name);
  for (const auto& name : plan.end) {
    enter(nodes_.at(name), phase::draining, now);
    out.push_back(close_node{name, true});
  }
  for (const auto& [type, nodes] : plan.ask)
    for (std::uint32_t i = 0; i < nodes; ++i) {
      auto& one =
          nodes_[fmt::format("{}-{}-{}", name_part(type), epoch_, ++names_)];
      one.type = type;
      enter(one, phase::storing, now);
      changed_ = true;
    }
}

/// One list at a time is on its way.
void machine::store(commands& out, time_point now) {
  if (!changed_ || storing_ || now < store_at_)
    return;
  changed_ = false;
  storing_ = true;
  store_nodes list;
  for (auto& [name, one] : nodes_) {
    one.listed = true;
    list.nodes.push_back({name, one.type});
  }
  out.push_back(std::move(list));
}

void machine::finish(commands& out, time_point now) {
  expire(out, now);
  follow_plan(out, now);
  store(out, now);
}

std::optional<time_point> machine::next_deadline(time_point now) const {
  std::optional<time_point> out;
  auto sooner = [&](time_point when) {
    if (when > now && when != time_point::max())
      out = out ? std::min(*out, when) : when;
  };
  for (const auto& [name, one] : nodes_) {
    if (one.at == phase::requested || one.at == phase::lost)
      sooner(one.deadline);
    if (one.at == phase::joined && one.idle_since)
      sooner(*one.idle_since + options_.idle_timeout);
    if (one.at == phase::joined && one.stable_at && !one.proved)
      sooner(*one.stable_at);
  }
  for (const auto& [name, kind] : kinds_)
    if (kind.rests_until)
      sooner(*kind.rests_until);
  if (changed_ && !storing_)
    sooner(store_at_);
  return out;
}

// -- how it is ----------------------------------------------------------------

protocol::fleet_status machine::status(time_point now) const {
  protocol::fleet_status out;
  out.brings_nodes = true;
  out.max_workers = options_.max_workers;
  std::map<std::string, std::uint32_t> nodes;
  for (const auto& [name, one] : nodes_) {
    std::string_view state = "requested";
    auto since = one.since;
    switch (one.at) {
    case phase::storing:
    case phase::requested:
      break;
    case phase::joined:
      state = one.idle_since ? "idle" : "joined";
      since = one.idle_since.value_or(since);
      break;
    case phase::lost:
      state = "lost";
      break;
    case phase::draining:
      state = "draining";
      break;
    case phase::ending:
      state = "ending";
      break;
    }
    nodes[one.type] += one.at != phase::ending;
    out.nodes.push_back(
        {name, one.type, std::string{state}, between(since, now)});
  }
  for (const auto& type : options_.types) {
    const auto& kind = kinds_.at(type.name);
    protocol::node_type_status one;
    one.type = type.name;
    for (const auto& [name, amount] : type.resources)
      one.resources.push_back({name, amount});
    one.min_workers = type.min_workers;
    one.max_workers = type.max_workers;
    one.nodes = nodes[type.name];
    one.failures = kind.failures;
    if (kind.rests_until)
      one.rests_ms = between(now, *kind.rests_until);
    one.reason =
        kind.failures > 0 || kind.rests_until ? kind.reason : std::string{};
    out.types.push_back(std::move(one));
  }
  return out;
}

} // namespace troupe::autoscaler::fleet
