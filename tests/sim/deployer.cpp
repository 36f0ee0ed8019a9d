#include "tests/sim/deployer.hpp"

#include <algorithm>
#include <utility>

namespace troupe::sim {

namespace {

using namespace std::chrono_literals;
using controller::deployment;
using controller::model_deployment;

/// For how long after a model came back a router may still hear that it went.
constexpr nanoseconds old_news = 15s;

/// When a model was made is not the operator's to say.
deployment timeless(deployment x) {
  for (auto& model : x.models)
    model.created = 0;
  return x;
}

/// Replicas that it must have room for.
std::uint32_t least(const model_deployment& x) {
  return x.scaling ? std::max(x.scaling->min_replicas, 1u) : x.replicas;
}

/// Short delays: a run takes seconds.
config::autoscaling_config random_scaling(world& w) {
  auto seconds = [&](milliseconds low, milliseconds high) {
    return std::chrono::duration<double>{w.between(low, high)}.count();
  };
  config::autoscaling_config out;
  out.min_replicas = static_cast<std::uint32_t>(w.below(2));
  out.max_replicas = static_cast<std::uint32_t>(1 + w.below(3));
  if (w.chance(0.3))
    out.initial_replicas =
        out.min_replicas + static_cast<std::uint32_t>(w.below(
                               out.max_replicas - out.min_replicas + 1));
  if (w.chance(0.8))
    out.target_ongoing_requests = static_cast<double>(1 + w.below(3));
  if (w.chance(0.5))
    out.upscale_delay_s = seconds(0ms, 500ms);
  out.downscale_delay_s = seconds(200ms, 1500ms);
  if (w.chance(0.5))
    out.downscale_to_zero_delay_s = seconds(200ms, 1500ms);
  if (w.chance(0.5))
    out.look_back_period_s = seconds(0ms, 1000ms);
  if (w.chance(0.3))
    out.downscaling_factor = 0.5;
  out.aggregation = static_cast<config::load_aggregation>(w.below(3));
  switch (w.below(3)) {
  case 0:
    break;
  case 1:
    out.policy = config::scaling_policy::tokens;
    out.target_queue_s = seconds(100ms, 1000ms);
    break;
  case 2:
    out.policy = config::scaling_policy::latency;
    out.first_token_s = seconds(50ms, 500ms);
    break;
  }
  return out;
}

bool wants(const deployment& x, const std::string& model) {
  return std::any_of(x.models.begin(), x.models.end(),
                     [&](const auto& m) { return m.spec.model == model; });
}

} // namespace

std::string application_of(const std::string& model) {
  return "app-" + model;
}

deployer::deployer(cluster& c) : cluster_(c) {
  auto& w = c.world();
  auto count = c.cpus() >= 4 && w.chance(0.4) ? 2 : 1;
  for (int i = 0; i < count; ++i)
    models_.push_back("m" + std::to_string(i));
  for (const auto& model : models_)
    next_.models.push_back(first_state(model));
  next_.settings.failover_exact = w.chance(0.05);
}

model_deployment deployer::first_state(const std::string& model) {
  auto& w = cluster_.world();
  model_deployment out;
  out.spec.application = application_of(model);
  out.spec.model = model;
  out.spec.model_source = "/weights/" + model;
  out.spec.max_num_seqs = 4;
  out.spec.max_ongoing_requests = w.chance(0.5) ? 0 : 8;
  out.spec.graceful_shutdown_timeout_ms =
      static_cast<std::uint32_t>(200 + w.below(3000));
  out.spec.health_check_period_ms = 700;
  out.spec.health_check_timeout_ms = 2000;
  out.spec.start_retries = 1000;
  out.spec.restarts_max = 1000;
  out.route_prefix = "/" + model;
  out.demand.bundles = {{{"CPU", 1.0}}};
  auto most = std::max<std::uint32_t>(
      cluster_.cpus() / static_cast<std::uint32_t>(models_.size()), 1);
  out.replicas = static_cast<std::uint32_t>(1 + w.below(std::min(most, 5u)));
  if (w.chance(0.5))
    scale_or_fix(out);
  return out;
}

/// Another scaling, or none any more.
void deployer::scale_or_fix(model_deployment& x) {
  auto& w = cluster_.world();
  if (x.scaling && w.chance(0.3)) {
    x.scaling.reset();
    x.replicas = 1;
    return;
  }
  x.scaling = random_scaling(w);
  x.replicas = x.scaling->start_replicas();
}

/// Replicas that this model may have beside the others.
std::uint32_t deployer::room_for(const deployment& x, std::size_t model) {
  auto room = cluster_.cpus();
  for (std::size_t i = 0; i < x.models.size(); ++i)
    if (i != model)
      room -= std::min(room, least(x.models[i]));
  return std::min(room, 6u);
}

void deployer::alter(deployment& x) {
  auto& w = cluster_.world();
  if (x.models.size() < models_.size() || w.chance(0.1)) {
    for (const auto& model : models_)
      if (!wants(x, model)) {
        x.models.push_back(first_state(model));
        if (!x.models.back().scaling)
          x.models.back().replicas = 1;
        return;
      }
  }
  auto place = w.below(x.models.size());
  auto& model = x.models[place];
  switch (w.below(8)) {
  case 0:
  case 1: // more or fewer
    if (model.scaling)
      scale_or_fix(model);
    else
      model.replicas = static_cast<std::uint32_t>(
          1 + w.below(std::max(room_for(x, place), 1u)));
    break;
  case 2: // in place
    model.spec.max_ongoing_requests = static_cast<std::uint32_t>(w.below(12));
    break;
  case 3: // in place
    model.spec.graceful_shutdown_timeout_ms =
        static_cast<std::uint32_t>(200 + w.below(3000));
    break;
  case 4:
  case 5: // a rolling change
    model.spec.environment = {{"CHANGE", std::to_string(++changes_)}};
    break;
  case 6:
    if (x.models.size() > 1 && w.chance(0.7))
      x.models.erase(x.models.begin() + static_cast<std::ptrdiff_t>(place));
    else
      x.proxies = static_cast<controller::proxy_location>(w.below(3));
    break;
  case 7: // by its load, by another one, or not
    scale_or_fix(model);
    break;
  }
}

void deployer::change() {
  auto* head = cluster_.node(0);
  if (head == nullptr || head->frozen() ||
      (!history_.empty() && !history_.back().answered &&
       asked_head_ == head->id()))
    return;
  auto wanted = next_;
  if (!history_.empty())
    alter(wanted);
  ask(std::move(wanted));
}

void deployer::ask(deployment wanted) {
  auto* head = cluster_.node(0);
  auto& w = cluster_.world();
  auto wall = head->clock().read_wall(w.now()).time_since_epoch();
  for (auto& model : wanted.models)
    model.created = static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::seconds>(wall).count());
  wanted.rest_json = "{\"number\":" + std::to_string(history_.size() + 1) + "}";
  for (const auto& model : models_) {
    auto& spans = gone_[model];
    auto is_open = !spans.empty() && spans.back().second == instant::max();
    if (!wants(wanted, model) && !is_open)
      spans.emplace_back(w.now(), instant::max());
  }
  next_ = wanted;
  history_.push_back({wanted, false});
  asked_head_ = head->id();
  auto number = history_.size();
  w.trace("deploy", number);
  head->run([this, head, wanted, number] {
    head->controller()->deploy(
        controller::encode(wanted), [this, number](result<std::uint64_t> x) {
          cluster_.world().trace("deployed", number, x.has_value());
          history_[number - 1].answered = true;
          if (!x)
            return;
          acknowledged_ = number;
          for (const auto& model : models_)
            if (auto& spans = gone_[model];
                wants(history_[number - 1].wanted, model) && !spans.empty() &&
                spans.back().second == instant::max())
              spans.back().second = cluster_.world().now() + old_news;
        });
  });
}

bool deployer::finish() {
  auto* head = cluster_.node(0);
  if (head == nullptr)
    return false;
  if (history_.empty()) {
    ask(next_);
    return false;
  }
  auto whole = next_.models.size() == models_.size();
  if (acknowledged_ == history_.size() && whole)
    return true;
  if (!history_.back().answered && asked_head_ == head->id())
    return false;
  auto wanted = next_;
  for (const auto& model : models_)
    if (!wants(wanted, model)) {
      wanted.models.push_back(first_state(model));
      if (!wanted.models.back().scaling)
        wanted.models.back().replicas = 1;
    }
  for (std::size_t i = 0; i < wanted.models.size(); ++i)
    if (auto& model = wanted.models[i]; !model.scaling)
      model.replicas =
          std::min(model.replicas, std::max(room_for(wanted, i), 1u));
  ask(std::move(wanted));
  return false;
}

/// What is scaled keeps to its bounds at all times (I8).
void deployer::check_targets() {
  for (const auto& model : cluster_.controller()->machine().scaled().models)
    if (model.target < model.scaling.min_replicas ||
        model.target > model.scaling.max_replicas)
      cluster_.world().fail("I8", model.model + " is to have " +
                                      std::to_string(model.target) +
                                      " replicas, which is beyond its bounds");
}

void deployer::check() {
  auto* controller = cluster_.controller();
  if (controller == nullptr)
    return;
  check_targets();
  const auto wanted = timeless(controller->machine().wanted());
  std::size_t place = 0;
  for (std::size_t i = history_.size(); i > 0 && place == 0; --i)
    if (timeless(history_[i - 1].wanted) == wanted)
      place = i;
  if (place == 0 && !(wanted == deployment{}))
    cluster_.world().fail("I5", "a state is wanted that nobody asked for");
  if (place < acknowledged_ || place < seen_)
    cluster_.world().fail(
        "I5", "deployment " + std::to_string(place) + " is wanted, " +
                  std::to_string(acknowledged_) + " was acknowledged");
  if (cluster_.disk().busy_until() <= cluster_.world().now())
    seen_ = place; // what is being written may be lost
}

bool deployer::was_deleted(const std::string& model, instant since) const {
  auto known = gone_.find(model);
  return known != gone_.end() &&
         std::any_of(known->second.begin(), known->second.end(),
                     [&](const auto& span) { return span.second >= since; });
}

} // namespace troupe::sim
