#include "actors/controller/controller_machine.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fmt/format.h>

namespace troupe::controller {

using protocol::replica_phase;

namespace {

constexpr std::size_t lives_kept = 8;
constexpr std::size_t deaths_kept = 4'096;
constexpr std::size_t node_name_bytes_max = 255;
constexpr std::size_t nodes_named_max = 8;
constexpr std::uint32_t replicas_max = 4'096; // of one model

/// The first protocol version whose agents can have some ranks of a replica.
constexpr std::uint32_t first_with_parts = 7;

constexpr std::string_view head_name = "head";

std::string replica_id(const protocol::replica_spec& spec,
                       std::uint32_t number) {
  return fmt::format("{}/{}#{}", spec.application, spec.model, number);
}

/// The number in an id of this application and model.
std::optional<std::uint32_t> number_in(const protocol::replica_spec& spec) {
  auto mark = spec.replica.rfind('#');
  if (mark == std::string::npos)
    return std::nullopt;
  std::uint32_t out = 0;
  const auto* end = spec.replica.data() + spec.replica.size();
  auto read = std::from_chars(spec.replica.data() + mark + 1, end, out);
  if (read.ec != std::errc{} || read.ptr != end ||
      replica_id(spec, out) != spec.replica)
    return std::nullopt;
  return out;
}

bool ready(const protocol::replica_report& report) {
  return report.phase == replica_phase::ready;
}

/// The process is gone.
bool ended(const protocol::replica_report& report) {
  return report.phase == replica_phase::stopped ||
         report.phase == replica_phase::failed;
}

/// One may be there, or be waited for: one that failed says so before its end.
bool has_process(const protocol::replica_report& report) {
  return !ended(report) ||
         (report.phase == replica_phase::failed && report.pid != 0);
}

/// Equal for routers.
bool same_route(const protocol::replica_report& a,
                const protocol::replica_report& b) {
  return a.incarnation == b.incarnation && a.where == b.where &&
         a.arithmetic_class == b.arithmetic_class &&
         a.card_hash == b.card_hash && a.can == b.can &&
         a.version == b.version && a.choices_at_once == b.choices_at_once;
}

protocol::replica_load_news load_of(const protocol::replica_report& report,
                                    const protocol::replica_spec& of) {
  protocol::replica_load_news out;
  out.application = of.application;
  out.model = of.model;
  out.replica = report.replica;
  out.incarnation = report.incarnation;
  out.sequence = report.load.sequence;
  out.choices = report.load.running + report.load.waiting;
  out.waiting_tokens = report.load.waiting_tokens;
  out.answer_tokens = report.load.answer_tokens;
  out.tokens_per_second = report.load.tokens_per_second;
  out.seats = report.load.seats;
  out.prompt_tokens = report.load.prompt_tokens;
  out.output_tokens = report.load.output_tokens;
  out.finished = report.load.finished;
  return out;
}

/// The spec of this part of a replica, without its leader.
protocol::replica_spec part_of(const protocol::replica_spec& whole,
                               std::uint32_t part) {
  auto out = whole;
  out.replica = protocol::part_id(whole.replica, part);
  out.node = whole.ranks_on[part].node;
  out.gpus_here = whole.ranks_on[part].gpus;
  out.part = part;
  return out;
}

bool may_not_span(const model_deployment& wanted,
                  const protocol::replica_spec& spec) {
  return wanted.demand.nodes_max <= 1 && !spec.ranks_on.empty();
}

/// What placement counts; what a node does not list is taken from its figures.
amounts offered(const protocol::node_joined& node) {
  amounts out;
  for (const auto& [name, amount] : node.resources)
    out[name] = amount;
  out.emplace("CPU", node.cpus);
  out.emplace("GPU", node.gpus);
  out.emplace("memory", static_cast<double>(node.memory_bytes));
  if (!node.accelerator_type.empty())
    out.emplace("accelerator_type:" + node.accelerator_type, 1);
  return out;
}

protocol::replica_spec anonymous(protocol::replica_spec spec) {
  spec.replica.clear();
  spec.node.clear();
  return spec;
}

std::uint32_t within(const config::autoscaling_config& bounds,
                     std::uint32_t replicas, std::optional<double> capacity) {
  return std::clamp(replicas,
                    config::at_capacity(bounds.min_replicas, capacity),
                    config::at_capacity(bounds.max_replicas, capacity));
}

/// It may have no replica while nobody uses it.
bool may_sleep(const model_deployment& model) {
  return model.scaling && model.scaling->min_replicas == 0;
}

/// Of a model that was there before, and was listed with so many replicas: what
/// it has, but where its scaling, or what was listed, changed and says what to
/// begin with.
std::uint32_t kept_target(const model_deployment& before, std::uint32_t listed,
                          const model_deployment& wanted,
                          std::optional<double> capacity) {
  if (wanted.external_scaler)
    return before.external_scaler && listed == wanted.replicas
               ? before.replicas
               : wanted.replicas;
  if (!wanted.scaling)
    return config::at_capacity(wanted.replicas, capacity);
  auto begins = !(before.scaling == wanted.scaling) &&
                wanted.scaling->initial_replicas.has_value();
  return within(*wanted.scaling,
                begins ? config::at_capacity(wanted.replicas, capacity)
                       : before.replicas,
                capacity);
}

bool shares_cores(const model_deployment& model) {
  return model.demand.engine == "cpu";
}

} // namespace

controller_machine::controller_machine(
    std::uint64_t epoch, controller_limits limits,
    const std::vector<std::string>& remembered, time_point now,
    std::vector<protocol::revocation> revoked)
    : epoch_(epoch), limits_(limits), revoked_(std::move(revoked)),
      awaited_(remembered.begin(), remembered.end()),
      awaited_until_(now + limits.rejoin_max) {
  for (const auto& name : awaited_) {
    auto& lost = nodes_[name];
    lost.self.node = name;
    lost.forget_at = now + limits_.lost_max;
    forget_at_.emplace(lost.forget_at, name);
  }
  keep_lost_bounded();
  members_changed_ = false;
}

// -- what is wanted -----------------------------------------------------------

commands controller_machine::restore(deployment stored, time_point now,
                                     const std::vector<scale_target>& targets) {
  commands out;
  wanted_ = std::move(stored);
  accept(wanted_.models, now);
  for (const auto& [application, name, replicas] : targets)
    if (auto found = models_.find({application, name});
        found != models_.end()) {
      auto& wanted = found->second.wanted;
      if (wanted.scaling)
        wanted.replicas =
            within(*wanted.scaling, replicas, wanted_.target_capacity);
      else if (wanted.external_scaler)
        wanted.replicas = replicas;
    }
  count_shared();
  if (!awaited_.empty())
    for (auto& [key, model] : models_)
      model.held = true;
  table_changed();
  finish(out, now);
  return out;
}

commands controller_machine::deploy(deployment wanted, time_point now) {
  commands out;
  for (auto& entry : wanted.models) {
    auto old = models_.find({entry.spec.application, entry.spec.model});
    if (old != models_.end())
      entry.created = old->second.wanted.created;
  }
  if (wanted.proxies != wanted_.proxies)
    for (const auto& [name, node] : nodes_)
      due_.insert(name);
  if (!(wanted == wanted_))
    table_changed();
  wanted_ = std::move(wanted);
  // Whoever deploys wants another try of what was given up.
  for (auto& [key, model] : models_) {
    std::vector<std::uint32_t> failed;
    for (const auto& [number, replica] : model.replicas)
      if (replica.last.budget_spent)
        failed.push_back(number);
    for (auto number : failed)
      leave(model, number, now);
  }
  accept(wanted_.models, now);
  finish(out, now);
  return out;
}

/// Makes `models_` those of the list; of two of the same name the first counts.
void controller_machine::accept(const std::vector<model_deployment>& list,
                                time_point now) {
  std::set<model_key> named;
  std::size_t order = 0;
  for (const auto& entry : list) {
    model_key key{entry.spec.application, entry.spec.model};
    if (!named.insert(key).second)
      continue;
    auto [known, fresh] = models_.try_emplace(key);
    auto& model = known->second;
    auto before = std::exchange(model.wanted, entry);
    if (fresh || !(before.scaling == entry.scaling)) {
      model.revision = ++revisions_;
      model.decision = {};
    }
    const auto& capacity = wanted_.target_capacity;
    if (!fresh)
      model.wanted.replicas =
          kept_target(before, model.listed, entry, capacity);
    else if (!entry.external_scaler)
      model.wanted.replicas = config::at_capacity(entry.replicas, capacity);
    model.listed = entry.replicas;
    model.wanted.spec = anonymous(std::move(model.wanted.spec));
    model.order = order++;
  }
  for (auto i = models_.begin(); i != models_.end();) {
    if (named.contains(i->first)) {
      for (auto& [number, replica] : i->second.replicas)
        recheck(i->second, replica);
      ++i;
      continue;
    }
    while (!i->second.replicas.empty())
      leave(i->second, i->second.replicas.begin()->first, now);
    waiting_.erase(i->first);
    i = models_.erase(i);
  }
  parts_due_ = true;
  dirty_.clear(); // of those that are gone, and of old orders
  for (auto& [key, model] : models_)
    dirty(model);
  count_shared();
  targets_changed_ = true;
}

void controller_machine::count_shared() {
  shared_replicas_ = 0;
  for (const auto& [key, model] : models_)
    if (shares_cores(model.wanted))
      shared_replicas_ += model.wanted.replicas;
}

commands controller_machine::scale(const protocol::scale_order& order,
                                   time_point now) {
  commands out;
  auto found = models_.find({order.application, order.model});
  if (found == models_.end() || !found->second.wanted.scaling ||
      found->second.revision != order.revision)
    return out;
  auto& model = found->second;
  model.decision = order;
  set_target(model, within(*model.wanted.scaling, order.target,
                           wanted_.target_capacity));
  finish(out, now);
  return out;
}

result<void> controller_machine::scale_from_outside(
    const std::string& application, const std::string& name,
    std::uint32_t replicas, commands& out, time_point now) {
  auto found = models_.find({application, name});
  if (found == models_.end())
    return error{errc::not_found, fmt::format("there is no model \"{}\" in the "
                                              "application \"{}\"",
                                              name, application)};
  if (!found->second.wanted.external_scaler)
    return error{errc::invalid_argument,
                 fmt::format("the application \"{}\" is not deployed with "
                             "external_scaler_enabled: true",
                             application)};
  if (replicas > replicas_max)
    return error{errc::limit,
                 fmt::format("more than {} replicas", replicas_max)};
  set_target(found->second, replicas);
  finish(out, now);
  return {};
}

void controller_machine::set_target(model& of, std::uint32_t replicas) {
  if (replicas == of.wanted.replicas)
    return;
  of.wanted.replicas = replicas;
  count_shared();
  dirty(of);
  table_changed();
  targets_changed_ = true;
}

/// True if a process of this replica is one of the model as it is wanted now.
bool controller_machine::same(const model& of, const replica& one) {
  auto spec = of.wanted.spec;
  spec.replica = one.spec.replica;
  spec.node = one.spec.node;
  spec.threads = one.spec.threads;
  spec.ranks_on = one.spec.ranks_on;
  spec.gpus_here = one.spec.gpus_here;
  auto given = of.wanted.spec.threads;
  auto threads_same =
      given != 0 ? one.spec.threads == given : !one.threads_given;
  return threads_same && one.demand == of.wanted.demand &&
         protocol::same_process(one.spec, spec);
}

/// After a change of the model: what can be is changed in place.
void controller_machine::recheck(model& of, replica& one) {
  one.outdated = !same(of, one);
  if (one.outdated)
    return;
  auto before = one.spec;
  one.spec = of.wanted.spec;
  one.spec.replica = before.replica;
  one.spec.node = before.node;
  one.spec.threads = before.threads;
  one.spec.ranks_on = before.ranks_on;
  one.spec.gpus_here = before.gpus_here;
  if (one.spec == before)
    return;
  due_.insert(one.spec.node);
  follow(one);
  table_changed();
}

// -- what is taken of nodes ---------------------------------------------------

/// Part 0 is what a replica takes of its own node. GPUs are by the spec: the
/// demand may be that of a model that has changed, or of none that is known.
controller_machine::holding
controller_machine::holding_of(const replica_demand& demand,
                               const protocol::replica_spec& spec,
                               std::uint32_t part) {
  holding out;
  out.of_gpus = spec.gpus;
  if (spec.ranks_on.empty()) {
    out.taken = sum_of(demand);
    out.gpus = spec.gpus_here;
    if (spec.gpus > 0)
      out.taken["GPU"] = spec.gpus;
  } else if (part < spec.ranks_on.size()) {
    const auto& share = spec.ranks_on[part];
    out.taken = share_of(demand, share);
    out.gpus = share.gpus;
    if (spec.gpus > 0)
      out.taken["GPU"] = static_cast<double>(share.gpus.size());
  }
  return out;
}

void controller_machine::occupy(node& at, const holding& what) {
  add(at.used, what.taken);
  at.gpus.take(what.gpus, what.of_gpus);
}

void controller_machine::vacate(node& at, const holding& what) {
  subtract(at.used, what.taken);
  at.gpus.give_back(what.gpus, what.of_gpus);
}

// -- nodes --------------------------------------------------------------------

std::string
controller_machine::refusal(const protocol::node_joined& from) const {
  if (from.node.empty() || from.node.size() > node_name_bytes_max)
    return "a node's name must have 1 to 255 bytes";
  if (!protocol::understand_each_other(from.version,
                                       protocol::protocol_version))
    return fmt::format("{} speaks version {} of the protocol, the head "
                       "version {}; at most one apart is understood",
                       from.node, from.version, protocol::protocol_version);
  if (from.head_epoch > epoch_)
    return fmt::format("{} has obeyed a newer head (epoch {}, this one is {})",
                       from.node, from.head_epoch, epoch_);
  for (const auto& [name, amount] : from.resources)
    if (!std::isfinite(amount) || amount < 0)
      return fmt::format("{} offers no valid amount of {}", from.node, name);
  auto known = nodes_.find(from.node);
  if (known == nodes_.end())
    return {};
  const auto& last = known->second.self;
  if (known->second.alive && last.incarnation != from.incarnation)
    return fmt::format("another process of the cluster is named {}", from.node);
  // Its connection may be dead by now, and the newer one would be forgotten.
  if (last.incarnation == from.incarnation && from.attempt != 0 &&
      from.attempt < last.attempt)
    return fmt::format("{} has registered anew since", from.node);
  return {};
}

protocol::node_welcome controller_machine::join(protocol::node_joined from,
                                                commands& out, time_point now) {
  protocol::node_welcome answer;
  answer.head_epoch = epoch_;
  answer.version = protocol::protocol_version;
  answer.reason = refusal(from);
  if (!answer.reason.empty())
    return answer;
  auto [i, fresh] = nodes_.try_emplace(from.node);
  auto& node = i->second;
  members_changed_ |= fresh || std::exchange(node.has_stopped, false);
  if (node.alive) {
    strip(node); // the same process, over a new connection
    --nodes_alive_;
  }
  forget_at_.erase({node.forget_at, from.node});
  for (const auto& [id, left] : node.leftovers)
    drop_reservation(id);
  auto had = std::exchange(node.leftovers, {});
  auto replicas = std::exchange(from.replicas, {});
  node.total = offered(from);
  node.used.clear();
  node.gpus = gpus_of(node.total);
  node.self = std::move(from);
  node.alive = true;
  node.leaving = closed_.contains(i->first);
  buried_.erase(i->first);
  node.sequence = 0;
  node.epoch = (epoch_ << 32) | ++joins_;
  ++nodes_alive_;
  for (const auto& running : replicas)
    if (running.spec.part == 0)
      take_in(node, running, had, now);
    else
      take_in_part(node, running, had, now);
  parts_due_ = true;
  awaited_.erase(i->first);
  gained_.insert(i->first);
  due_.insert(i->first);
  nodes_changed_ = true;
  view_due_ = true;
  table_changed();
  answer.accepted = true;
  answer.node_epoch = node.epoch;
  finish(out, now);
  return answer;
}

/// A replica that a joining node has: adopted if its model is wanted; which of
/// too many stay is decided with all that the node brings in view.
void controller_machine::take_in(node& at,
                                 const protocol::running_replica& running,
                                 const std::map<std::string, leftover>& had,
                                 time_point now) {
  const auto& spec = running.spec;
  const auto& report = running.report;
  model_key key{spec.application, spec.model};
  auto found = models_.find(key);
  auto number = number_in(spec);
  auto known = had.find(spec.replica);
  replica_demand demand;
  if (known != had.end())
    demand = known->second.demand;
  else if (found != models_.end())
    demand = found->second.wanted.demand;
  auto leaves = report.phase == replica_phase::draining ||
                report.phase == replica_phase::stopped;
  if (leaves || !number || found == models_.end() ||
      found->second.replicas.contains(*number)) {
    if (has_process(report))
      add_leftover(at, spec.replica,
                   {key, demand,
                    now + milliseconds{spec.graceful_shutdown_timeout_ms} +
                        limits_.end_report_max,
                    holding_of(demand, spec, 0), true});
    return;
  }
  auto& model = found->second;
  auto& one = model.replicas[*number];
  one.spec = spec;
  one.spec.node = at.self.node;
  one.demand = std::move(demand);
  one.last = report;
  one.last.replica = spec.replica;
  one.last.node = at.self.node;
  one.was_ready = ready(report);
  one.threads_given = model.wanted.spec.threads != 0 &&
                      spec.threads == model.wanted.spec.threads;
  one.back = true;
  recheck(model, one);
  at.replicas.emplace(spec.replica, std::pair{&model, *number});
  occupy(at, holding_of(one.demand, one.spec, 0));
  dirty(model);
}

commands controller_machine::node_lost(const std::string& name,
                                       std::uint64_t node_epoch, time_point now,
                                       bool has_stopped) {
  commands out;
  auto i = nodes_.find(name);
  if (i == nodes_.end() || !i->second.alive || i->second.epoch != node_epoch)
    return out;
  i->second.has_stopped = has_stopped;
  members_changed_ |= has_stopped;
  lose(i->second, now);
  if (buried_.contains(name))
    if (auto gone = nodes_.find(name); gone != nodes_.end())
      forget(gone);
  finish(out, now);
  return out;
}

void controller_machine::lose(node& lost, time_point now) {
  strip(lost);
  lost.alive = false;
  --nodes_alive_;
  lost.forget_at = now + limits_.lost_max;
  forget_at_.emplace(lost.forget_at, lost.self.node);
  nodes_changed_ = true;
  view_due_ = true;
  table_changed();
  keep_lost_bounded();
}

commands controller_machine::revoke(const std::string& name,
                                    std::vector<protocol::revocation> all,
                                    time_point now) {
  commands out;
  revoked_ = std::move(all);
  for (const auto& [each, node] : nodes_)
    due_.insert(each);
  if (auto i = nodes_.find(name); i != nodes_.end() && i->second.alive)
    lose(i->second, now);
  if (auto i = nodes_.find(name); i != nodes_.end())
    forget(i);
  finish(out, now);
  return out;
}

std::string_view controller_machine::state_of(const std::string& name) const {
  auto i = nodes_.find(name);
  if (i == nodes_.end())
    return "unknown";
  return i->second.alive ? "alive" : "lost";
}

/// What the node has is placed elsewhere while it drains.
void controller_machine::leaves(node& at, time_point now) {
  at.leaving = true;
  auto had = at.replicas;
  for (const auto& [id, where] : had)
    leave(*where.first, where.second, now);
  parts_due_ |= !at.parts.empty();
  nodes_changed_ = true;
  view_due_ = true;
}

/// All that a node has is a leftover of it from now on.
void controller_machine::strip(node& from) {
  for (auto& [id, left] : from.leftovers) {
    if (!left.overdue)
      drop_leaving(left.of);
    gone_by_.erase({left.gone_by, from.self.node, id});
  }
  for (const auto& [id, where] : from.replicas) {
    auto& [of, number] = where;
    auto one = of->replicas.find(number);
    leftover left{{of->wanted.spec.application, of->wanted.spec.model},
                  std::move(one->second.demand),
                  {}};
    parts_due_ |= !one->second.spec.ranks_on.empty();
    if (from.leftovers.insert_or_assign(id, std::move(left)).second)
      ++reserved_[id];
    of->replicas.erase(one);
    dirty(*of);
  }
  from.replicas.clear();
  parts_due_ |= !from.parts.empty();
  for (auto& [id, one] : from.parts) {
    leftover left{one.of, {}, {}};
    left.has = std::move(one.has);
    if (from.leftovers.insert_or_assign(id, std::move(left)).second)
      ++reserved_[id];
  }
  from.parts.clear();
  from.used.clear();
  from.gpus = gpus_of(from.total);
}

void controller_machine::forget(std::map<std::string, node>::iterator lost) {
  forget_at_.erase({lost->second.forget_at, lost->first});
  for (const auto& [id, left] : lost->second.leftovers)
    drop_reservation(id);
  awaited_.erase(lost->first);
  closed_.erase(lost->first);
  buried_.erase(lost->first);
  nodes_.erase(lost);
  members_changed_ = true;
  view_due_ = true;
}

void controller_machine::keep_lost_bounded() {
  while (forget_at_.size() > limits_.lost_nodes_max)
    forget(nodes_.find(forget_at_.begin()->second));
}

node_room controller_machine::room_of(const node& of) const {
  node_room out;
  out.node = of.self.node;
  out.total = of.total;
  out.free = of.total;
  subtract(out.free, of.used);
  out.gpus = of.gpus;
  out.engines = of.self.engines;
  out.replicas = static_cast<std::uint32_t>(of.replicas.size());
  out.knows_parts = of.self.version >= first_with_parts;
  return out;
}

// -- replicas -----------------------------------------------------------------

/// `nodes`: of each bundle.
void controller_machine::create(model& of,
                                const std::vector<std::string>& nodes,
                                std::uint32_t number) {
  const auto& on = nodes.front();
  auto& at = nodes_.at(on);
  auto& one = of.replicas[number];
  one.spec = of.wanted.spec;
  one.spec.replica = replica_id(one.spec, number);
  one.spec.node = on;
  one.spec.ranks_on = shares_of(nodes);
  one.threads_given = one.spec.threads != 0;
  if (!one.threads_given)
    one.spec.threads = threads_of(of.wanted, at, one.spec);
  one.demand = of.wanted.demand;
  one.last.replica = one.spec.replica;
  one.last.node = on;
  at.replicas.emplace(one.spec.replica, std::pair{&of, number});
  choose_gpus(one);
  occupy(at, holding_of(one.demand, one.spec, 0));
  create_parts(of, one, number);
  due_.insert(on);
  view_due_ = true;
}

/// Those that the node will hand out.
void controller_machine::choose_gpus(replica& one) const {
  auto choose = [&](const std::string& node, const amounts& taken) {
    return nodes_.at(node)
        .gpus.choose(gpus_in(taken))
        .value_or(protocol::gpu_numbers{}); // there is: it was placed there
  };
  for (auto& share : one.spec.ranks_on)
    share.gpus = choose(share.node, share_of(one.demand, share));
  one.spec.gpus_here = one.spec.ranks_on.empty()
                           ? choose(one.spec.node, sum_of(one.demand))
                           : one.spec.ranks_on.front().gpus;
}

void controller_machine::create_parts(model& of, replica& one,
                                      std::uint32_t number) {
  for (std::uint32_t i = 1; i < one.spec.ranks_on.size(); ++i) {
    const auto& share = one.spec.ranks_on[i];
    auto& at = nodes_.at(share.node);
    const auto id = protocol::part_id(one.spec.replica, i);
    auto& fresh = at.parts[id];
    fresh.of = {of.wanted.spec.application, of.wanted.spec.model};
    fresh.number = number;
    fresh.spec = part_of(one.spec, i);
    fresh.has = holding_of(one.demand, one.spec, i);
    occupy(at, fresh.has);
    due_.insert(share.node);
  }
}

/// The parts of a replica are of its spec, and follow its newest start.
void controller_machine::follow(const replica& one) {
  for (std::uint32_t i = 1; i < one.spec.ranks_on.size(); ++i) {
    const auto& name = one.spec.ranks_on[i].node;
    auto at = nodes_.find(name);
    if (at == nodes_.end())
      continue;
    auto found = at->second.parts.find(protocol::part_id(one.spec.replica, i));
    if (found == at->second.parts.end())
      continue;
    auto spec = part_of(one.spec, i);
    spec.leader = ended(one.last) ? 0 : one.last.incarnation;
    if (std::exchange(found->second.spec, spec) != spec)
      due_.insert(name);
  }
}

/// Null if there is none that has this part there.
const controller_machine::replica*
controller_machine::replica_of(const part& of) const {
  auto model = models_.find(of.of);
  if (model == models_.end())
    return nullptr;
  auto found = model->second.replicas.find(of.number);
  if (found == model->second.replicas.end())
    return nullptr;
  const auto& shares = found->second.spec.ranks_on;
  const auto& spec = of.spec;
  return spec.part < shares.size() && shares == spec.ranks_on &&
                 protocol::part_id(found->second.spec.replica, spec.part) ==
                     spec.replica
             ? &found->second
             : nullptr;
}

/// The replica goes, or is gone: so do the processes of the part.
void controller_machine::leave_part(node& at, const std::string& id,
                                    time_point now) {
  auto gone = at.parts.extract(id);
  auto& one = gone.mapped();
  vacate(at, one.has); // add_leftover counts it again
  const milliseconds grace{one.spec.graceful_shutdown_timeout_ms};
  add_leftover(at, id,
               {one.of,
                {},
                now + grace + limits_.end_report_max,
                std::move(one.has),
                one.heard});
  due_.insert(at.self.node);
  view_due_ = true;
}

/// A part that a joining node has; whether its replica is there is seen when
/// all nodes are back.
void controller_machine::take_in_part(
    node& at, const protocol::running_replica& running,
    const std::map<std::string, leftover>& had, time_point now) {
  const auto& spec = running.spec;
  model_key key{spec.application, spec.model};
  auto found = models_.find(key);
  auto known = had.find(spec.replica);
  auto whole = spec;
  whole.replica = protocol::replica_of_part(spec.replica);
  auto number = number_in(whole);
  part one;
  one.of = key;
  one.spec = spec;
  one.ended = ended(running.report) ? spec.leader : 0;
  one.heard = true;
  one.gpus = running.report.gpus;
  if (known != had.end())
    one.has = known->second.has;
  else
    one.has = holding_of(found != models_.end() ? found->second.wanted.demand
                                                : replica_demand{},
                         spec, spec.part);
  const auto leaves = running.report.phase == replica_phase::draining;
  if (!leaves && number && found != models_.end() &&
      spec.part < spec.ranks_on.size()) {
    one.number = *number;
    occupy(at, one.has);
    at.parts.insert_or_assign(spec.replica, std::move(one));
  } else if (!ended(running.report)) {
    add_leftover(at, spec.replica,
                 {key,
                  {},
                  now + milliseconds{spec.graceful_shutdown_timeout_ms} +
                      limits_.end_report_max,
                  std::move(one.has),
                  true});
  }
}

bool controller_machine::has_all_parts(const replica& one) const {
  const auto& shares = one.spec.ranks_on;
  for (std::uint32_t i = 1; i < shares.size(); ++i) {
    auto at = nodes_.find(shares[i].node);
    if (at == nodes_.end() || !at->second.alive || at->second.leaving)
      return false;
    auto part = at->second.parts.find(protocol::part_id(one.spec.replica, i));
    if (part == at->second.parts.end() ||
        (part->second.ended != 0 && part->second.ended == one.last.incarnation))
      return false;
  }
  return true;
}

/// A replica without all of its parts leaves, and so does one that may not be
/// on several nodes any more, whether there is room for another or not: its
/// ranks talk in the clear. Parts without a replica leave too.
void controller_machine::check_parts(time_point now) {
  if (!parts_due_ || !awaited_.empty())
    return;
  parts_due_ = false;
  for (auto& [key, model] : models_) {
    std::vector<std::uint32_t> torn;
    for (const auto& [number, one] : model.replicas)
      if (!has_all_parts(one) || may_not_span(model.wanted, one.spec))
        torn.push_back(number);
    for (auto number : torn)
      leave(model, number, now);
  }
  for (auto& [name, at] : nodes_) {
    std::vector<std::string> lonely;
    for (const auto& [id, one] : at.parts)
      if (replica_of(one) == nullptr)
        lonely.push_back(id);
    for (const auto& id : lonely)
      leave_part(at, id, now);
  }
  for (auto& [key, model] : models_)
    for (const auto& [number, one] : model.replicas)
      follow(one);
  parts_due_ = false; // leaving has set it, and is seen to
}

std::vector<std::string>
controller_machine::hearers(const protocol::rank_word& said) const {
  auto from = nodes_.find(said.node);
  if (from == nodes_.end() || !from->second.alive ||
      from->second.epoch != said.node_epoch)
    return {};
  const replica* one = nullptr;
  if (auto own = from->second.replicas.find(said.replica);
      own != from->second.replicas.end())
    one = &own->second.first->replicas.at(own->second.second);
  for (const auto& [id, each] : from->second.parts)
    if (one == nullptr && protocol::replica_of_part(id) == said.replica)
      one = replica_of(each);
  if (one == nullptr)
    return {};
  // Why a start ended may be said when the next one has begun.
  const auto& before = one->lives;
  if (one->last.incarnation != said.leader &&
      !(said.key.empty() &&
        std::find(before.begin(), before.end(), said.leader) != before.end()))
    return {};
  std::vector<std::string> out;
  for (const auto& share : one->spec.ranks_on)
    if (share.node != said.node)
      out.push_back(share.node);
  return out;
}

/// Takes a replica out of what is wanted; its process drains and ends.
void controller_machine::leave(model& of, std::uint32_t number,
                               time_point now) {
  auto i = of.replicas.find(number);
  auto& one = i->second;
  auto& at = nodes_.at(one.spec.node);
  at.replicas.erase(one.spec.replica);
  auto has = holding_of(one.demand, one.spec, 0);
  vacate(at, has);             // add_leftover counts it again
  if (one.last.budget_spent) { // there is no process, only the id
    one.demand = {};
    has = {};
    gained_.insert(one.spec.node);
  }
  parts_due_ |= !one.spec.ranks_on.empty();
  milliseconds grace{one.spec.graceful_shutdown_timeout_ms};
  add_leftover(at, one.spec.replica,
               {{of.wanted.spec.application, of.wanted.spec.model},
                std::move(one.demand),
                now + grace + limits_.end_report_max,
                std::move(has),
                one.last.incarnation != 0});
  due_.insert(one.spec.node);
  of.replicas.erase(i);
  dirty(of);
  view_due_ = true;
  table_changed();
}

void controller_machine::add_leftover(node& at, const std::string& id,
                                      leftover left) {
  if (at.leftovers.contains(id))
    return;
  occupy(at, left.has);
  ++reserved_[id];
  ++leaving_[left.of];
  gone_by_.emplace(left.gone_by, at.self.node, id);
  at.leftovers.emplace(id, std::move(left));
}

/// The process of a leftover has ended, on a node that is alive.
void controller_machine::gone(node& at, const std::string& id) {
  auto i = at.leftovers.find(id);
  auto& left = i->second;
  gone_by_.erase({left.gone_by, at.self.node, id});
  vacate(at, left.has);
  if (!left.overdue)
    drop_leaving(left.of);
  if (auto of = models_.find(left.of); of != models_.end())
    if (!of->second.settled)
      dirty(of->second);
  drop_reservation(id);
  at.leftovers.erase(i);
  if (at.replicas.empty() && at.leftovers.empty() && at.parts.empty())
    at.used.clear(); // nor are rounding errors left
  gained_.insert(at.self.node);
  view_due_ = true;
}

/// Nobody waits for its end any more. GPUs of which the node knows that a
/// process has them still are nobody else's all the same: it would refuse every
/// start on them (a process that the kernel cannot end).
void controller_machine::end_wait_for(node& at, const std::string& id) {
  auto& left = at.leftovers.at(id);
  if (!left.heard || left.has.gpus.empty()) {
    gone(at, id);
    return;
  }
  gone_by_.erase({left.gone_by, at.self.node, id});
  drop_leaving(left.of);
  left.overdue = true;
  vacate(at, left.has);
  std::erase_if(left.has.taken, [](const auto& x) { return x.first != "GPU"; });
  occupy(at, left.has);
  if (auto of = models_.find(left.of); of != models_.end())
    if (!of->second.settled)
      dirty(of->second);
  gained_.insert(at.self.node);
  view_due_ = true;
}

/// Something is there that has to end before the node may.
bool controller_machine::is_busy(const node& at) {
  return !at.replicas.empty() || !at.parts.empty() ||
         std::any_of(at.leftovers.begin(), at.leftovers.end(),
                     [](const auto& x) { return !x.second.overdue; });
}

void controller_machine::drop_reservation(const std::string& id) {
  auto i = reserved_.find(id);
  if (--i->second == 0)
    reserved_.erase(i);
}

void controller_machine::drop_leaving(const model_key& key) {
  auto i = leaving_.find(key);
  if (--i->second == 0)
    leaving_.erase(i);
}

/// The node's cores shared out among the replicas that it can expect to have,
/// so that they do not fight for them.
std::int32_t
controller_machine::threads_of(const model_deployment& of, const node& at,
                               const protocol::replica_spec& spec) const {
  auto counted = sum_of(of.demand);
  auto cpus = counted.find("CPU");
  if (cpus != counted.end() && cpus->second >= 1)
    return static_cast<std::int32_t>(std::min(cpus->second, 65'536.0));
  auto nodes = std::max<std::size_t>(1, nodes_alive_);
  auto here = std::max<std::size_t>(1, (shared_replicas_ + nodes - 1) / nodes);
  auto share = std::min<std::size_t>(at.self.cpus, 65'536) / here;
  // They are of all ranks, of which some are elsewhere.
  share = share * protocol::ranks_of(spec) / protocol::ranks_here(spec).count;
  return static_cast<std::int32_t>(std::max<std::size_t>(1, share));
}

commands controller_machine::report(const protocol::replica_news& news,
                                    time_point now) {
  commands out;
  auto found = nodes_.find(news.node);
  if (found == nodes_.end() || !found->second.alive ||
      found->second.epoch != news.node_epoch)
    return out;
  auto& at = found->second;
  const auto& report = news.report;
  if (news.leaving && !at.leaving)
    leaves(at, now);
  auto wanted = at.replicas.find(report.replica);
  if (wanted == at.replicas.end()) {
    // One that failed may have been started again before it was told to end.
    auto left = at.leftovers.find(report.replica);
    auto part = at.parts.find(report.replica);
    if (report.phase == protocol::replica_phase::stopped) {
      if (part == at.parts.end() && left != at.leftovers.end())
        gone(at, report.replica);
    } else if (part != at.parts.end()) {
      part->second.heard = true;
      part->second.gpus = report.gpus;
    } else if (left != at.leftovers.end()) {
      left->second.heard = true;
    }
    finish(out, now);
    return out;
  }
  auto& [of, number] = wanted->second;
  auto& one = of->replicas.at(number);
  auto& last = one.last;
  if (report.incarnation == last.incarnation) {
    // Sequence 0: the node agent's own word on the process.
    if (report.phase < last.phase ||
        (report.load.sequence != 0 &&
         report.load.sequence < last.load.sequence))
      return out;
  } else {
    if (std::find(one.lives.begin(), one.lives.end(), report.incarnation) !=
        one.lives.end())
      return out;
    if (last.incarnation != 0)
      one.lives.push_back(last.incarnation);
    if (one.lives.size() > lives_kept)
      one.lives.pop_front();
  }
  auto turned =
      ready(report) != ready(last) || report.budget_spent != last.budget_spent;
  auto rerouted = ready(report) && !same_route(report, last);
  auto explained = !ready(report) && report.reason != last.reason;
  last = report;
  last.node = news.node;
  follow(one);
  one.was_ready |= ready(report);
  if (turned || rerouted || explained)
    table_changed();
  if (turned && (!of->settled || of->wanted.scaling))
    dirty(*of);
  if (of->wanted.scaling && ready(report))
    out.push_back(tell_load{load_of(report, of->wanted.spec)});
  finish(out, now);
  return out;
}

commands controller_machine::death(const protocol::death_notice& notice,
                                   time_point now) {
  commands out;
  auto found = nodes_.find(notice.node);
  if (found == nodes_.end() || !found->second.alive ||
      found->second.epoch != notice.node_epoch ||
      !deaths_.insert(notice.incarnation).second)
    return out;
  deaths_in_order_.push_back(notice.incarnation);
  if (deaths_in_order_.size() > deaths_kept) {
    deaths_.erase(deaths_in_order_.front());
    deaths_in_order_.pop_front();
  }
  out.push_back(forward_death{notice});
  auto wanted = found->second.replicas.find(notice.replica);
  if (wanted != found->second.replicas.end()) {
    auto& [of, number] = wanted->second;
    auto& last = of->replicas.at(number).last;
    if (last.incarnation == notice.incarnation && !ended(last)) {
      last.phase = replica_phase::failed;
      last.reason = notice.reason;
      follow(of->replicas.at(number));
      table_changed();
      if (!of->settled)
        dirty(*of);
    }
  }
  finish(out, now);
  return out;
}

// -- what a model has and lacks -----------------------------------------------

controller_machine::tally controller_machine::count(const model& of) {
  tally out;
  for (const auto& [number, one] : of.replicas) {
    auto is_ready = ready(one.last);
    if (one.outdated) {
      ++out.outdated;
      out.outdated_ready += is_ready;
    } else {
      ++out.current;
      out.current_ready += is_ready;
      out.current_failed += one.last.budget_spent;
    }
  }
  return out;
}

/// A new replica failed for good while old ones serve: no further one is
/// exchanged.
bool controller_machine::change_failed(const tally& has) {
  return has.outdated > 0 && has.current_failed > 0;
}

std::uint32_t controller_machine::surge_of(const model& of) const {
  return static_cast<std::uint32_t>(
      std::max(1.0, std::floor(of.wanted.replicas * limits_.surge)));
}

void controller_machine::dirty(model& of) {
  of.settled = false;
  dirty_.insert_or_assign(of.order, &of);
}

void controller_machine::reconcile(model& of, time_point now) {
  waiting_.erase({of.wanted.spec.application, of.wanted.spec.model});
  auto unplaced = std::exchange(of.unplaced, {});
  auto demanded = std::exchange(of.demanded, 0);
  trim(of, now);
  fill(of, now);
  for (auto& [number, one] : of.replicas)
    one.back = false;
  auto has = count(of);
  note_waking(of, has, now);
  of.settled = has.outdated == 0 && has.current == of.wanted.replicas;
  if (of.unplaced != unplaced)
    table_changed();
  if (of.demanded == 0)
    of.waits_since.reset();
  else if (!of.waits_since)
    of.waits_since = now;
  view_due_ |= of.unplaced != unplaced || of.demanded != demanded;
}

/// Gives up what is more than wanted: of the new ones those beyond the number,
/// of the old ones those that a new one has replaced; the least useful first.
void controller_machine::trim(model& of, time_point now) {
  auto has = count(of);
  auto wanted = of.wanted.replicas;
  auto old_kept = wanted - std::min(wanted, has.current_ready);
  auto give_up = [&](bool outdated, std::uint32_t surplus) {
    using usefulness = std::tuple<bool, bool, bool, std::uint32_t>;
    std::vector<usefulness> candidates;
    for (const auto& [number, one] : of.replicas)
      if (one.outdated == outdated)
        candidates.emplace_back(one.last.budget_spent, !ready(one.last),
                                one.back, number);
    std::sort(candidates.rbegin(), candidates.rend());
    for (std::uint32_t i = 0; i < surplus; ++i)
      leave(of, std::get<3>(candidates[i]), now);
  };
  if (has.outdated > old_kept)
    give_up(true, has.outdated - old_kept);
  if (has.current > wanted)
    give_up(false, has.current - wanted);
}

/// Places what is missing; beside old ones only as many at once as the surge
/// allows.
void controller_machine::fill(model& of, time_point now) {
  auto has = count(of);
  auto wanted = of.wanted.replicas;
  if (has.current >= wanted || change_failed(has))
    return;
  auto missing = wanted - has.current;
  if (has.outdated > 0) {
    auto at_most = wanted + surge_of(of);
    auto total = has.current + has.outdated;
    missing = std::min(missing, at_most - std::min(at_most, total));
  }
  auto placed = place_some(of, missing);
  if (placed == missing)
    return;
  model_key key{of.wanted.spec.application, of.wanted.spec.model};
  auto on_the_way = has.current > has.current_ready || placed > 0;
  // In a rolling change room comes from what goes, if that is enough.
  auto room_comes = has.outdated > 0 && (on_the_way || leaving_.contains(key));
  if (has.outdated > 0 && !room_comes && give_one_up(of, now)) {
    if (place_some(of, 1) == 1)
      return;
    room_comes = true;
  }
  of.demanded = room_comes ? 0 : missing - placed;
  waiting_.insert(key);
}

std::uint32_t controller_machine::place_some(model& of, std::uint32_t count) {
  if (count == 0)
    return 0;
  std::uint32_t placed = 0;
  std::uint32_t number = 1;
  for (auto& where : place(of.wanted.demand, rooms_for(of), count)) {
    if (where.nodes.empty()) {
      of.unplaced = std::move(where.reason);
      return placed;
    }
    while (of.replicas.contains(number) || is_reserved(of, number))
      ++number;
    create(of, where.nodes, number);
    ++placed;
  }
  of.unplaced.clear();
  return placed;
}

/// Something of an earlier replica with this number, or of its parts, is there.
bool controller_machine::is_reserved(const model& of,
                                     std::uint32_t number) const {
  const auto id = replica_id(of.wanted.spec, number);
  if (reserved_.contains(id))
    return true;
  auto part = reserved_.lower_bound(id + "/");
  return part != reserved_.end() && part->first.starts_with(id + "/");
}

/// No room for old and new: where a new one would fit without the model's old
/// ones, one of them goes.
bool controller_machine::give_one_up(model& of, time_point now) {
  auto rooms = rooms_for(of);
  std::map<std::string, node_room*> by_name;
  for (auto& room : rooms)
    by_name.emplace(room.node, &room);
  std::map<std::string, std::pair<bool, std::uint32_t>> to_go; // the last one
  for (const auto& [number, one] : of.replicas)
    if (one.outdated) {
      auto found = by_name.find(one.spec.node);
      if (found == by_name.end())
        continue; // its node is closed: it came back when it was to end
      auto& room = *found->second;
      auto free = [&](node_room& of, std::uint32_t part) {
        const auto has = holding_of(one.demand, one.spec, part);
        add(of.free, has.taken);
        of.gpus.give_back(has.gpus, has.of_gpus);
      };
      free(room, 0);
      for (std::uint32_t i = 1; i < one.spec.ranks_on.size(); ++i)
        if (auto other = by_name.find(one.spec.ranks_on[i].node);
            other != by_name.end())
          free(*other->second, i);
      room.replicas_of_model -= room.replicas_of_model > 0;
      to_go[one.spec.node] =
          std::max(to_go[one.spec.node], std::pair{!ready(one.last), number});
    }
  if (of.wanted.demand.nodes_max <= 1)
    std::erase_if(rooms,
                  [&](const auto& room) { return !to_go.contains(room.node); });
  auto where = place(of.wanted.demand, rooms);
  if (where.nodes.empty() || to_go.empty())
    return false;
  // Of one over several nodes, any of which may have what is lacking, another
  // one goes next if this one was not it.
  auto found = to_go.find(where.nodes.front());
  leave(of, (found == to_go.end() ? to_go.begin() : found)->second.second, now);
  return true;
}

/// Replicas of the model by node: on each that has ranks of one.
void controller_machine::count_here(
    const model& of, std::map<std::string_view, std::uint32_t>& here) {
  for (const auto& [number, one] : of.replicas) {
    if (one.spec.ranks_on.empty())
      ++here[one.spec.node];
    for (const auto& share : one.spec.ranks_on)
      ++here[share.node];
  }
}

/// All nodes that are alive, as placement sees them.
std::vector<node_room> controller_machine::rooms_for(const model& of) const {
  std::map<std::string_view, std::uint32_t> here;
  count_here(of, here);
  std::vector<node_room> out;
  out.reserve(nodes_alive_);
  for (const auto& [name, node] : nodes_)
    if (node.alive && !node.leaving) {
      out.push_back(room_of(node));
      if (auto count = here.find(name); count != here.end())
        out.back().replicas_of_model = count->second;
    }
  return out;
}

/// Models that wait for room look at the nodes that have more than before.
void controller_machine::try_waiting(time_point now) {
  auto gained = std::exchange(gained_, {});
  auto changed = std::exchange(nodes_changed_, false);
  if (gained.empty() && !changed)
    return;
  std::vector<const node*> rooms;
  for (const auto& name : gained)
    if (auto i = nodes_.find(name);
        i != nodes_.end() && i->second.alive && !i->second.leaving)
      rooms.push_back(&i->second);
  auto keys = waiting_;
  for (const auto& key : keys) {
    auto& model = models_.at(key);
    // Over several nodes it may fit where none takes a whole one.
    auto fits = model.wanted.demand.nodes_max > 1;
    fits |= std::any_of(rooms.begin(), rooms.end(), [&](const auto* at) {
      auto room = room_of(*at);
      // Its own bound per node is looked at when it is placed.
      return takes(room, model.wanted.demand);
    });
    if (fits)
      reconcile(model, now);
    else if (auto why = why_waiting(model); why != model.unplaced) {
      model.unplaced = std::move(why);
      view_due_ = true;
      table_changed();
    }
  }
}

std::string controller_machine::why_waiting(const model& of) const {
  std::map<std::string_view, std::uint32_t> here;
  count_here(of, here);
  std::vector<node_room> first;
  for (const auto& [name, node] : nodes_) {
    if (!node.alive || node.leaving)
      continue;
    first.push_back(room_of(node));
    first.back().replicas_of_model = here[name];
    if (first.size() == nodes_named_max)
      break;
  }
  return why_none_takes(of.wanted.demand, first, nodes_alive_ - first.size());
}

// -- the end of every event ---------------------------------------------------

commands controller_machine::tick(time_point now) {
  commands out;
  while (!gone_by_.empty() && std::get<0>(*gone_by_.begin()) <= now) {
    auto [when, name, id] = *gone_by_.begin();
    end_wait_for(nodes_.at(name), id);
  }
  while (!forget_at_.empty() && forget_at_.begin()->first <= now)
    forget(nodes_.find(forget_at_.begin()->second));
  end_rests(now);
  finish(out, now);
  return out;
}

std::optional<time_point> controller_machine::next_deadline() const {
  std::optional<time_point> out;
  auto sooner = [&](time_point when) {
    out = out ? std::min(*out, when) : when;
  };
  if (!awaited_.empty())
    sooner(awaited_until_);
  if (table_due_ && published_at_ && awaited_.empty())
    sooner(*published_at_ + limits_.table_pause);
  if (watches_nodes_ && view_due_ && viewed_at_ && awaited_.empty())
    sooner(*viewed_at_ + limits_.table_pause);
  if (!gone_by_.empty())
    sooner(std::get<0>(*gone_by_.begin()));
  if (!forget_at_.empty())
    sooner(forget_at_.begin()->first);
  if (!rests_until_.empty())
    sooner(rests_until_.begin()->first);
  return out;
}

void controller_machine::finish(commands& out, time_point now) {
  if (!awaited_.empty() && now >= awaited_until_)
    awaited_.clear();
  if (awaited_.empty())
    end_wait();
  check_parts(now);
  auto dirty = std::exchange(dirty_, {});
  for (auto& [order, model] : dirty)
    if (!model->held)
      reconcile(*model, now);
  dirty_.clear(); // by reconciling
  try_waiting(now);
  dirty_.clear();
  check_parts(now); // of those that left
  send_due(out);
  publish(out, now);
  show_nodes(out, now);
  // Before the loads of those that it tells of.
  if (std::exchange(scaled_due_, false))
    out.insert(out.begin(), tell_scaled{});
  if (std::exchange(targets_changed_, false) &&
      std::exchange(targets_, targets()) != targets_)
    out.push_back(remember_targets{targets_});
  if (std::exchange(members_changed_, false)) {
    remember_nodes names;
    for (const auto& [name, node] : nodes_)
      if (!node.has_stopped)
        names.nodes.push_back(name);
    out.push_back(std::move(names));
  }
}

void controller_machine::end_wait() {
  if (awaited_until_ == time_point::max())
    return;
  awaited_until_ = time_point::max();
  for (auto& [key, model] : models_)
    if (std::exchange(model.held, false))
      dirty(model);
  scaled_due_ = true;
}

void controller_machine::send_due(commands& out) {
  for (const auto& name : std::exchange(due_, {})) {
    auto i = nodes_.find(name);
    if (i == nodes_.end() || !i->second.alive)
      continue;
    auto& node = i->second;
    send_assignment order;
    order.node = name;
    order.version = std::min(node.self.version, protocol::protocol_version);
    order.assignment.revoked = revoked_;
    order.assignment.head_epoch = epoch_;
    order.assignment.node_epoch = node.epoch;
    order.assignment.sequence = ++node.sequence;
    order.assignment.router =
        wanted_.proxies == proxy_location::every_node ||
        (wanted_.proxies == proxy_location::head_only && name == head_name);
    for (const auto& [id, where] : node.replicas)
      order.assignment.replicas.push_back(
          where.first->replicas.at(where.second).spec);
    for (const auto& [id, one] : node.parts)
      order.assignment.replicas.push_back(one.spec);
    out.push_back(std::move(order));
  }
}

void controller_machine::publish(commands& out, time_point now) {
  // Routers know more than a head whose nodes are not all back.
  if (!table_due_ || !awaited_.empty() ||
      (published_at_ && now < *published_at_ + limits_.table_pause))
    return;
  table_due_ = false;
  published_at_ = now;
  out.push_back(publish_table{});
}

/// Nodes that are to come back are not missing yet.
void controller_machine::show_nodes(commands& out, time_point now) {
  if (!watches_nodes_ || !view_due_ || !awaited_.empty() ||
      (viewed_at_ && now < *viewed_at_ + limits_.table_pause))
    return;
  view_due_ = false;
  viewed_at_ = now;
  out.push_back(tell_nodes{});
}

void controller_machine::table_changed() {
  ++table_number_;
  table_due_ = true;
  scaled_due_ = true;
}

/// A model that may sleep, all of whose replicas failed for good, is put to
/// rest for a while, so that requests do not start it again and again.
void controller_machine::note_waking(model& of, const tally& has,
                                     time_point now) {
  if (has.current_ready > 0)
    of.failed_wakes = 0;
  auto failed = may_sleep(of.wanted) && has.outdated == 0 && has.current > 0 &&
                has.current_failed == has.current;
  model_key key{of.wanted.spec.application, of.wanted.spec.model};
  if (failed && !of.rests_until) {
    auto pause = limits_.wake_pause *
                 (1u << std::min<std::uint32_t>(of.failed_wakes++, 16));
    of.rests_until =
        now + std::min<milliseconds>(pause, limits_.wake_pause_max);
    rests_until_.emplace(*of.rests_until, key);
    table_changed();
  } else if (!failed && of.rests_until) {
    rests_until_.erase({*of.rests_until, key});
    of.rests_until.reset();
    table_changed();
  }
}

/// Models whose rest is over sleep: the next request wakes them.
void controller_machine::end_rests(time_point now) {
  while (!rests_until_.empty() && rests_until_.begin()->first <= now) {
    auto key = rests_until_.begin()->second;
    rests_until_.erase(rests_until_.begin());
    auto found = models_.find(key);
    if (found == models_.end() || !found->second.rests_until)
      continue; // it was removed meanwhile
    auto& model = found->second;
    model.rests_until.reset();
    table_changed();
    set_target(model, 0);
  }
}

// -- what is scaled -----------------------------------------------------------

std::vector<scale_target> controller_machine::targets() const {
  std::vector<scale_target> out;
  for (const auto& [key, model] : models_)
    if (model.wanted.scaling || model.wanted.external_scaler)
      out.push_back({key.first, key.second, model.wanted.replicas});
  return out;
}

scaled_models controller_machine::scaled() const {
  scaled_models out;
  for (const auto& [name, node] : nodes_)
    if (node.alive)
      out.nodes.push_back(name);
  for (const auto& [key, model] : models_) {
    const auto& wanted = model.wanted;
    if (!wanted.scaling || model.held)
      continue;
    scaled_model one;
    std::tie(one.application, one.model) = key;
    one.revision = model.revision;
    one.scaling = *wanted.scaling;
    one.target = wanted.replicas;
    for (const auto& [number, replica] : model.replicas)
      if (ready(replica.last))
        one.replicas.push_back(
            {replica.spec.replica, replica.last.incarnation});
    one.sequences_max = wanted.spec.max_num_seqs;
    one.on_cpu = wanted.demand.engine == "cpu";
    one.target_capacity = wanted_.target_capacity;
    one.capacity_rising = wanted_.capacity_rising;
    out.models.push_back(std::move(one));
  }
  return out;
}

// -- nodes that are brought ---------------------------------------------------

commands controller_machine::watch_nodes(time_point now) {
  commands out;
  watches_nodes_ = true;
  view_due_ = true;
  viewed_at_.reset();
  finish(out, now);
  return out;
}

bool controller_machine::close_node(const std::string& name, bool closed,
                                    commands& out, time_point now) {
  auto i = nodes_.find(name);
  if (i == nodes_.end()) {
    if (closed)
      closed_.insert(name); // until it is buried
    else
      closed_.erase(name);
    return closed;
  }
  auto& at = i->second;
  if (closed && at.alive && is_busy(at))
    return false;
  if (closed)
    closed_.insert(name);
  else
    closed_.erase(name);
  at.leaving = closed;
  if (!closed)
    gained_.insert(name);
  nodes_changed_ = true;
  view_due_ = true;
  finish(out, now);
  return true;
}

commands controller_machine::bury(const std::vector<std::string>& names,
                                  time_point now) {
  commands out;
  for (const auto& name : names) {
    auto i = nodes_.find(name);
    if (i == nodes_.end()) {
      closed_.erase(name);
      continue;
    }
    if (i->second.alive)
      buried_.insert(name);
    else
      forget(i);
  }
  finish(out, now);
  return out;
}

namespace {

std::vector<protocol::resource> listed(const amounts& from) {
  std::vector<protocol::resource> out;
  for (const auto& [name, amount] : from)
    out.push_back({name, amount});
  return out;
}

} // namespace

protocol::node_demand controller_machine::demand_of(const model& of,
                                                    time_point now) const {
  protocol::node_demand out;
  const auto& demand = of.wanted.demand;
  out.application = of.wanted.spec.application;
  out.model = of.wanted.spec.model;
  out.replicas = of.demanded;
  for (const auto& bundle : demand.bundles)
    out.bundles.push_back({listed(bundle)});
  out.strategy = to_string(demand.strategy);
  out.engine = demand.engine;
  out.replicas_per_node_max = demand.replicas_per_node_max;
  out.nodes_max = demand.nodes_max;
  out.ranks = demand.ranks;
  if (of.waits_since && now > *of.waits_since)
    out.waits_ms = static_cast<std::uint64_t>(
        std::chrono::duration_cast<milliseconds>(now - *of.waits_since)
            .count());
  out.reason = of.unplaced;
  std::map<std::string_view, std::uint32_t> here;
  count_here(of, here);
  for (const auto& [node, replicas] : here)
    out.here.push_back({std::string{node}, replicas});
  return out;
}

std::vector<protocol::node_demand>
controller_machine::demands(time_point now) const {
  std::vector<protocol::node_demand> out;
  for (const auto& key : waiting_)
    if (const auto& of = models_.at(key); of.demanded > 0)
      out.push_back(demand_of(of, now));
  return out;
}

protocol::seen_node controller_machine::seen(const node& of) {
  protocol::seen_node out;
  out.node = of.self.node;
  out.alive = of.alive;
  out.closed = of.leaving;
  out.busy = is_busy(of);
  auto free = of.total;
  subtract(free, of.used);
  auto gpus = of.gpus;
  for (const auto& [id, left] : of.leftovers) {
    if (left.overdue)
      continue;
    add(free, left.has.taken);
    gpus.give_back(left.has.gpus, left.has.of_gpus);
  }
  out.gpu_parts_left = gpus.left();
  out.total = listed(of.total);
  out.free = listed(free);
  out.engines = of.self.engines;
  out.replicas = static_cast<std::uint32_t>(of.replicas.size());
  return out;
}

protocol::nodes_view controller_machine::nodes(time_point now) const {
  protocol::nodes_view out;
  for (const auto& [name, node] : nodes_)
    out.nodes.push_back(seen(node));
  out.demands = demands(now);
  return out;
}

// -- how it is ----------------------------------------------------------------

std::string controller_machine::reason_of(const model& of,
                                          const tally& has) const {
  auto wanted = of.wanted.replicas;
  std::string trouble;
  for (const auto& [number, one] : of.replicas)
    if (!one.outdated && !ready(one.last) && !one.last.reason.empty() &&
        (trouble.empty() || one.last.budget_spent))
      trouble = one.spec.replica + ": " + one.last.reason;
  if (change_failed(has))
    return fmt::format("the change has stopped, {} of the {} replicas before "
                       "it serve on; {}",
                       has.outdated_ready, has.outdated, trouble);
  if (has.outdated > 0) {
    auto way = fmt::format("a change is under way: {} of {} replicas are new "
                           "and ready, {} old ones serve",
                           has.current_ready, wanted, has.outdated_ready);
    if (!of.unplaced.empty())
      return way + "; the next one waits for room (" + of.unplaced + ")";
    return trouble.empty() ? way : way + "; " + trouble;
  }
  if (has.current_ready >= wanted)
    return {};
  if (of.held)
    return fmt::format("{} of {} replicas are ready; waiting for the nodes of "
                       "before the restart to come back",
                       has.current_ready, wanted);
  if (!of.unplaced.empty())
    return of.unplaced == "no node has joined yet"
               ? of.unplaced
               : "no node can take it (" + of.unplaced + ")";
  if (!trouble.empty())
    return trouble;
  return fmt::format("{} of {} replicas are ready", has.current_ready, wanted);
}

/// What was reported last, with the GPUs of all its nodes.
protocol::replica_report
controller_machine::with_parts(const replica& one) const {
  auto out = one.last;
  for (std::uint32_t i = 1; i < one.spec.ranks_on.size(); ++i) {
    auto at = nodes_.find(one.spec.ranks_on[i].node);
    if (at == nodes_.end())
      continue;
    const auto part =
        at->second.parts.find(protocol::part_id(one.spec.replica, i));
    if (part == at->second.parts.end())
      continue;
    for (auto gpu : part->second.gpus) {
      gpu.node = at->first;
      out.gpus.push_back(std::move(gpu));
    }
  }
  return out;
}

protocol::model_status controller_machine::status_of(const model& of) const {
  protocol::model_status out;
  const auto& wanted = of.wanted;
  auto has = count(of);
  out.application = wanted.spec.application;
  out.route_prefix = wanted.route_prefix;
  out.model = wanted.spec.model;
  out.note = wanted.note;
  out.replicas_wanted = wanted.replicas;
  out.replicas_ready = has.current_ready;
  out.created = wanted.created;
  if (wanted.scaling) {
    out.scaled = true;
    out.replicas_min = wanted.scaling->min_replicas;
    out.replicas_max = wanted.scaling->max_replicas;
    out.scaling = of.decision.now;
    out.last_scaling = of.decision.reason;
    out.held_back = of.unplaced.empty() ? of.decision.held_back : of.unplaced;
  }
  auto was_ready = false;
  for (const auto& [number, one] : of.replicas) {
    out.replicas.push_back(with_parts(one));
    was_ready |= one.was_ready;
  }
  if (change_failed(has))
    out.status = "DEPLOY_FAILED";
  else if (has.outdated > 0)
    out.status = "DEPLOYING";
  else if (has.current_ready > 0 || wanted.replicas == 0)
    out.status = "RUNNING";
  else if (has.current == 0 && !of.unplaced.empty())
    out.status = "PENDING";
  else if (has.current > 0 && has.current_failed == has.current)
    out.status = was_ready ? "UNHEALTHY" : "DEPLOY_FAILED";
  else
    out.status = was_ready ? "UNHEALTHY" : "DEPLOYING";
  out.reason = reason_of(of, has);
  return out;
}

protocol::cluster_status controller_machine::status() const {
  protocol::cluster_status out;
  out.table_version = (epoch_ << 32) | table_number_;
  for (const auto& one : revoked_)
    out.revoked.push_back(one.node);
  for (const auto& [name, node] : nodes_) {
    protocol::node_status state;
    state.node = node.self;
    state.alive = node.alive;
    for (const auto& [resource, amount] : node.used)
      if (amount > 1e-6)
        state.used.push_back({resource, amount});
    out.nodes.push_back(std::move(state));
  }
  std::vector<const model*> in_order(models_.size());
  for (const auto& [key, model] : models_)
    in_order[model.order] = &model;
  for (const auto* model : in_order)
    out.models.push_back(status_of(*model));
  return out;
}

protocol::routing_table controller_machine::table() const {
  protocol::routing_table out;
  out.version = (epoch_ << 32) | table_number_;
  out.settings = wanted_.settings;
  out.models.resize(models_.size());
  for (const auto& [key, model] : models_) {
    auto status = status_of(model);
    auto& route = out.models[model.order];
    route.application = std::move(status.application);
    route.route_prefix = std::move(status.route_prefix);
    route.model = std::move(status.model);
    route.created = status.created;
    route.status = std::move(status.status);
    route.reason = std::move(status.reason);
    route.max_queued_requests = model.wanted.max_queued_requests;
    if (may_sleep(model.wanted) &&
        config::at_capacity(model.wanted.scaling->max_replicas,
                            wanted_.target_capacity) != 0)
      route.without_replica = model.rests_until ? protocol::waking::failed
                                                : protocol::waking::wakes;
    route.choice = model.wanted.choice;
    for (const auto& [number, one] : model.replicas)
      if (ready(one.last))
        route.replicas.push_back({one.spec.replica, one.spec.node,
                                  one.last.where, one.last.arithmetic_class,
                                  one.last.card_hash, one.last.can,
                                  one.spec.max_ongoing_requests,
                                  one.last.version, one.last.choices_at_once});
  }
  return out;
}

const deployment& controller_machine::wanted() const {
  return wanted_;
}

std::uint64_t controller_machine::epoch() const {
  return epoch_;
}

} // namespace troupe::controller
