#include "tests/sim/invariants.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace troupe::sim {

namespace {

using finding = std::optional<violation>;

finding broken(std::string invariant, std::string what) {
  return violation{std::move(invariant), std::move(what)};
}

/// Those in the cluster: of one that came twice the second is never let in.
std::vector<node_process*> joined(const cluster& c) {
  std::vector<node_process*> out;
  for (auto i : c.members())
    if (auto* node = c.node(i); node->agent().machine().joined())
      out.push_back(node);
  return out;
}

finding check_nodes(const cluster& c) {
  auto epoch = c.controller()->machine().epoch();
  std::map<std::string, int> count;
  for (const auto* node : joined(c)) {
    ++count[node->name()];
    if (node->agent().machine().head_epoch() != epoch)
      return broken("I4", node->name() + " obeys another head");
  }
  for (auto i : c.members())
    if (const auto& name = c.node(i)->name(); count[name] == 0)
      return broken("I7", name + " has not joined");
    else if (count[name] > 1)
      return broken("I4", name + " has joined twice");
  return std::nullopt;
}

/// What was brought is what the head knows of, is in use or one of the minimum;
/// nothing else is kept anywhere.
finding check_fleet(const cluster& c) {
  auto* provider = c.provider();
  if (provider == nullptr)
    return std::nullopt;
  const auto* fleet = c.node(0)->autoscaler()->fleet();
  if (fleet == nullptr)
    return broken("I9", "the head has not read which nodes it asked for");
  const auto& machines = provider->machines();
  std::map<std::string, bool> busy;
  for (const auto& one : c.controller()->machine().nodes({}).nodes) {
    busy[one.node] = one.busy;
    if (one.alive && one.closed)
      return broken("I9", one.node + " stays closed");
  }
  auto status = fleet->status(c.node(0)->now());
  for (const auto& one : status.nodes) {
    if (!machines.contains(one.node))
      return broken("I9", one.node + " is counted, though it is gone");
    if (one.state != "joined" && one.state != "idle")
      return broken("I9", one.node + " is " + one.state);
    if (busy[one.node] != (one.state == "joined"))
      return broken("I9", one.node + " is not what it is taken for");
  }
  if (status.nodes.size() != machines.size())
    return broken("I9", "a node is brought that the head does not know");
  if (c.disk().now().asked.size() != machines.size())
    return broken("I9", "the store has nodes that are gone");
  if (machines.size() > provider->options().max_workers)
    return broken("I9", "there are more nodes than there may be");
  for (const auto& type : status.types) {
    auto idle = std::count_if(
        status.nodes.begin(), status.nodes.end(), [&](const auto& one) {
          return one.type == type.type && one.state == "idle";
        });
    if (idle > 0 && type.nodes > type.min_workers)
      return broken("I9", "nodes are kept that nobody uses");
    if (type.nodes < type.min_workers &&
        machines.size() < provider->options().max_workers)
      return broken("I9", "there are less nodes than there should be");
  }
  return std::nullopt;
}

/// Of a model by its name: as listed, or as its load asks for.
std::uint32_t replicas_of(const controller::model_deployment& model,
                          const controller::scaled_models& scaled) {
  for (const auto& one : scaled.models)
    if (one.application == model.spec.application &&
        one.model == model.spec.model)
      return one.target;
  return model.replicas;
}

/// Nobody asks for anything: all that is scaled is as small as it may be.
finding check_scaling(const cluster& c) {
  for (const auto& model : c.controller()->machine().scaled().models)
    if (model.target != model.scaling.min_replicas)
      return broken("I8", model.model + " is to have " +
                              std::to_string(model.target) +
                              " replicas without a request");
  return std::nullopt;
}

/// Every process is wanted where it is, as it is, and there once; every wanted
/// one is there and ready.
finding check_replicas(const cluster& c) {
  const auto& wanted = c.controller()->machine().wanted();
  std::map<std::string, std::size_t> count;
  std::set<std::string> ids;
  for (const auto* x : c.replicas()) {
    const auto& spec = x->spec();
    if (!ids.insert(spec.replica).second)
      return broken("I4", spec.replica + " runs twice");
    if (!x->ready())
      return broken("I7", spec.replica + " is not ready");
    auto model = std::find_if(wanted.models.begin(), wanted.models.end(),
                              [&](const auto& m) {
                                return m.spec.application == spec.application &&
                                       m.spec.model == spec.model;
                              });
    if (model == wanted.models.end())
      return broken("I3", spec.replica + " runs, though it is not wanted");
    auto as_wanted = model->spec;
    as_wanted.replica = spec.replica;
    as_wanted.node = spec.node;
    if (as_wanted.threads == 0)
      as_wanted.threads = spec.threads; // the controller's choice
    if (as_wanted != spec)
      return broken("I7", spec.replica + " is not of the newest kind");
    ++count[model->spec.model];
  }
  auto scaled = c.controller()->machine().scaled();
  for (const auto& model : wanted.models)
    if (auto target = replicas_of(model, scaled);
        count[model.spec.model] != target)
      return broken("I7", std::to_string(count[model.spec.model]) + " of " +
                              std::to_string(target) + " replicas of " +
                              model.spec.model + " run");
  return std::nullopt;
}

finding check_engines(const cluster& c) {
  for (const auto* x : c.replicas()) {
    auto engine = x->engine_now();
    if (x->sessions().running() != 0)
      return broken("I3", x->replica() + " has choices that nobody waits for");
    if (engine && (engine->running != 0 || engine->waiting != 0))
      return broken("I3", x->replica() + " computes what nobody waits for");
    if (engine && engine->kv_blocks_free != engine->kv_blocks_total)
      return broken("I3", x->replica() + " has lost blocks");
  }
  return std::nullopt;
}

finding check_routers(const cluster& c) {
  std::vector<std::uint64_t> living;
  for (const auto* x : c.replicas())
    living.push_back(x->incarnation());
  std::sort(living.begin(), living.end());
  auto version = c.controller()->machine().table().version;
  for (const auto* node : joined(c)) {
    const auto& router = node->router();
    const auto& table = router.table();
    auto here = "the router of " + node->name();
    if (table.requests() != 0 || table.choices_sent() != 0 ||
        table.choices_waiting() != 0 || table.prompt_tokens() != 0 ||
        router.sleeping() != 0)
      return broken("I3", here + " has requests that nobody waits for");
    if (router.table_version() != version)
      return broken("I7", here + " has not the newest table");
    if (router.attached_to() != living)
      return broken("I7", here + " is not attached to what there is");
    for (auto incarnation : living)
      if (table.outstanding(incarnation) != 0)
        return broken("I3", here + " counts choices that are none");
  }
  return std::nullopt;
}

} // namespace

std::optional<violation> find_unsettled(cluster& c, deployer& d,
                                        const traffic& t) {
  if (const auto* open = t.waiting())
    return broken("I7", open->state());
  if (!d.finish())
    return broken("I5", "the last change is not acknowledged");
  if (c.controller() == nullptr)
    return broken("I7", "there is no head");
  d.check();
  for (auto* check : {check_nodes, check_fleet, check_scaling, check_replicas,
                      check_engines, check_routers})
    if (auto found = check(c))
      return found;
  return std::nullopt;
}

} // namespace troupe::sim
