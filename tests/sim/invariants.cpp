#include "tests/sim/invariants.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <string>

namespace troupe::sim {

namespace {

using finding = std::optional<violation>;

finding broken(std::string invariant, std::string what) {
  return violation{std::move(invariant), std::move(what)};
}

finding check_nodes(const cluster& c) {
  auto epoch = c.controller()->machine().epoch();
  for (std::size_t i = 0; i < c.size(); ++i) {
    auto* node = c.node(i);
    const auto& agent = node->agent().machine();
    if (!agent.joined())
      return broken("I7", node->name() + " has not joined");
    if (agent.head_epoch() != epoch)
      return broken("I4", node->name() + " obeys another head");
  }
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
  for (const auto& model : wanted.models)
    if (count[model.spec.model] != model.replicas)
      return broken("I7", std::to_string(count[model.spec.model]) + " of " +
                              std::to_string(model.replicas) + " replicas of " +
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
  for (std::size_t i = 0; i < c.size(); ++i) {
    const auto& router = c.node(i)->router();
    const auto& table = router.table();
    auto here = "the router of " + c.node(i)->name();
    if (table.requests() != 0 || table.choices_sent() != 0 ||
        table.choices_waiting() != 0 || table.prompt_tokens() != 0)
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
  for (auto* check :
       {check_nodes, check_replicas, check_engines, check_routers})
    if (auto found = check(c))
      return found;
  return std::nullopt;
}

} // namespace troupe::sim
