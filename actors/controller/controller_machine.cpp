#include "actors/controller/controller_machine.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace troupe::controller {

using protocol::replica_phase;

namespace {

/// Equal but for what a new deployment may change without a restart.
bool same_process(const model_deployment& a, const model_deployment& b) {
  return a.spec == b.spec && a.needs_gpu == b.needs_gpu &&
         a.accelerator_type == b.accelerator_type;
}

bool same_model(const model_deployment& a, const model_deployment& b) {
  return a.spec.application == b.spec.application &&
         a.spec.model == b.spec.model;
}

/// Names no other replica of the application has.
std::string replica_id(const protocol::replica_spec& spec,
                       std::uint32_t number) {
  return fmt::format("{}/{}#{}", spec.application, spec.model, number);
}

} // namespace

std::vector<command>
controller_machine::node_joined(protocol::node_joined node) {
  auto out = node_lost(node.node);
  auto name = node.node;
  nodes_.insert_or_assign(name, std::move(node));
  auto placed = place();
  out.insert(out.end(), placed.begin(), placed.end());
  return out;
}

std::vector<command> controller_machine::node_lost(const std::string& node) {
  if (nodes_.erase(node) == 0)
    return {};
  auto routed = false;
  for (auto& model : models_)
    routed |= std::erase_if(model.replicas, [&](const auto& entry) {
                return entry.second.node == node;
              }) != 0;
  auto out = place();
  if (routed) {
    ++table_version_;
    out.push_back(publish_table{});
  }
  return out;
}

std::vector<command> controller_machine::deploy(deployment wanted) {
  std::vector<command> out;
  std::vector<model> next;
  for (auto& entry : wanted.models) {
    auto old = std::find_if(models_.begin(), models_.end(), [&](auto& m) {
      return same_model(m.wanted, entry);
    });
    model kept;
    if (old != models_.end()) {
      entry.created = old->wanted.created;
      if (same_process(old->wanted, entry))
        kept.replicas = std::move(old->replicas);
    }
    kept.wanted = entry;
    next.push_back(std::move(kept));
  }
  for (const auto& old : models_)
    for (const auto& [id, replica] : old.replicas)
      out.push_back(stop_replica{replica.node, id});
  models_ = std::move(next);
  wanted_ = std::move(wanted);
  auto placed = place();
  out.insert(out.end(), placed.begin(), placed.end());
  ++table_version_;
  out.push_back(publish_table{});
  return out;
}

std::vector<command>
controller_machine::report(const protocol::replica_report& news) {
  for (auto& model : models_) {
    auto found = model.replicas.find(news.replica);
    if (found == model.replicas.end())
      continue;
    auto& replica = found->second;
    auto same_life = replica.last.incarnation == news.incarnation;
    // Sequence 0: the node agent's own word on a process that has ended.
    if (same_life && news.load.sequence != 0 &&
        news.load.sequence < replica.last.load.sequence)
      return {};
    auto was = replica.last.phase == replica_phase::ready;
    auto is = news.phase == replica_phase::ready;
    auto ended = news.budget_spent != replica.last.budget_spent;
    replica.last = news;
    replica.was_ready |= is;
    if (was == is && (!is || same_life) && !ended)
      return {};
    ++table_version_;
    return {publish_table{}};
  }
  return {};
}

/// Brings the number of replicas of every model to what is wanted.
std::vector<command> controller_machine::place() {
  std::vector<command> out;
  for (auto& model : models_) {
    while (model.replicas.size() > model.wanted.replicas) {
      auto last = std::prev(model.replicas.end());
      out.push_back(stop_replica{last->second.node, last->first});
      model.replicas.erase(last);
    }
    model.unplaced.clear();
    for (std::uint32_t n = 1; model.replicas.size() < model.wanted.replicas &&
                              n <= model.wanted.replicas;
         ++n) {
      auto id = replica_id(model.wanted.spec, n);
      if (model.replicas.contains(id))
        continue;
      const auto* node = find_node(model);
      if (node == nullptr)
        break;
      replica fresh;
      fresh.node = node->node;
      fresh.spec = model.wanted.spec;
      fresh.spec.replica = id;
      fresh.spec.node = node->node;
      if (fresh.spec.threads == 0)
        fresh.spec.threads = threads_of(model, *node);
      fresh.last.replica = id;
      out.push_back(start_replica{fresh.spec});
      model.replicas.emplace(id, std::move(fresh));
    }
  }
  return out;
}

/// The node with the most free CPUs that takes one more replica; without one,
/// `unplaced` says why each node does not.
const protocol::node_joined* controller_machine::find_node(model& wanted) const {
  const protocol::node_joined* best = nullptr;
  std::string reasons;
  for (const auto& [name, node] : nodes_) {
    auto reason = why_not(wanted, node);
    if (!reason.empty())
      reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", name,
                             reason);
    else if (best == nullptr || free_cpus(node) > free_cpus(*best))
      best = &node;
  }
  if (best == nullptr)
    wanted.unplaced = nodes_.empty() ? "no node has joined yet"
                                     : "no node can take it (" + reasons + ")";
  return best;
}

std::string
controller_machine::why_not(const model& wanted,
                            const protocol::node_joined& node) const {
  const auto& needs = wanted.wanted;
  if (needs.needs_gpu) {
    auto type = needs.accelerator_type.empty()
                    ? std::string{"GPU"}
                    : "GPU of type " + needs.accelerator_type;
    if (node.gpus == 0)
      return "needs a " + type + ", the node has none";
    // A node with GPUs would need the CUDA engine.
    return "needs a " + type + ": the CUDA engine is not built yet";
  }
  if (needs.cpus > free_cpus(node))
    return fmt::format("needs {:g} CPUs, {:g} of {} are free", needs.cpus,
                       free_cpus(node), node.cpus);
  auto here = std::count_if(
      wanted.replicas.begin(), wanted.replicas.end(),
      [&](const auto& entry) { return entry.second.node == node.node; });
  if (needs.replicas_per_node_max != 0 && here >= needs.replicas_per_node_max)
    return fmt::format("max_replicas_per_node is {}",
                       needs.replicas_per_node_max);
  return {};
}

double
controller_machine::free_cpus(const protocol::node_joined& node) const {
  double used = 0;
  for (const auto& model : models_)
    for (const auto& [id, replica] : model.replicas)
      if (replica.node == node.node)
        used += model.wanted.cpus;
  return node.cpus - used;
}

/// The node's cores shared out among all replicas that are wanted, so that they
/// do not fight for them.
std::int32_t
controller_machine::threads_of(const model& of,
                               const protocol::node_joined& node) const {
  if (of.wanted.cpus >= 1)
    return static_cast<std::int32_t>(of.wanted.cpus);
  std::uint32_t wanted = 0;
  for (const auto& model : models_)
    if (!model.wanted.needs_gpu)
      wanted += model.wanted.replicas;
  auto share = std::max(1u, node.cpus) / std::max(1u, wanted);
  return static_cast<std::int32_t>(std::max(1u, share));
}

protocol::model_status
controller_machine::status_of(const model& model) const {
  protocol::model_status out;
  const auto& wanted = model.wanted;
  out.application = wanted.spec.application;
  out.route_prefix = wanted.route_prefix;
  out.model = wanted.spec.model;
  out.note = wanted.note;
  out.replicas_wanted = wanted.replicas;
  out.created = wanted.created;
  auto was_ready = false;
  auto spent = std::size_t{0};
  std::string trouble;
  for (const auto& [id, replica] : model.replicas) {
    out.replicas.push_back(replica.last);
    out.replicas_ready += replica.last.phase == replica_phase::ready;
    was_ready |= replica.was_ready;
    spent += replica.last.budget_spent;
    if (!replica.last.reason.empty() &&
        replica.last.phase != replica_phase::ready)
      trouble = id + ": " + replica.last.reason;
  }
  if (out.replicas_ready > 0)
    out.status = "RUNNING";
  else if (!model.unplaced.empty() && model.replicas.empty())
    out.status = "PENDING";
  else if (spent == model.replicas.size())
    out.status = was_ready ? "UNHEALTHY" : "DEPLOY_FAILED";
  else
    out.status = was_ready ? "UNHEALTHY" : "DEPLOYING";
  if (out.replicas_ready < wanted.replicas) {
    out.reason = !model.unplaced.empty() ? model.unplaced : trouble;
    if (out.reason.empty())
      out.reason = fmt::format("{} of {} replicas are ready",
                               out.replicas_ready, wanted.replicas);
  }
  return out;
}

protocol::cluster_status controller_machine::status() const {
  protocol::cluster_status out;
  out.table_version = table_version_;
  for (const auto& [name, node] : nodes_)
    out.nodes.push_back(node);
  for (const auto& model : models_)
    out.models.push_back(status_of(model));
  return out;
}

protocol::routing_table controller_machine::table() const {
  protocol::routing_table out;
  out.version = table_version_;
  for (const auto& model : models_) {
    auto status = status_of(model);
    protocol::model_route route;
    route.application = status.application;
    route.route_prefix = status.route_prefix;
    route.model = status.model;
    route.created = status.created;
    route.status = status.status;
    route.reason = status.reason;
    for (const auto& [id, replica] : model.replicas) {
      const auto& last = replica.last;
      if (last.phase == replica_phase::ready)
        route.replicas.push_back(
            {id, replica.node, last.where, last.arithmetic_class,
             last.card_hash, last.can, replica.spec.max_ongoing_requests});
    }
    out.models.push_back(std::move(route));
  }
  return out;
}

} // namespace troupe::controller
