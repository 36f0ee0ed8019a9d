#include "autoscaler/scaler.hpp"

#include "autoscaler/options.hpp"
#include "autoscaler/policy/latency.hpp"
#include "autoscaler/policy/ongoing_requests.hpp"
#include "autoscaler/policy/schedule.hpp"

#include <algorithm>

namespace troupe::autoscaler {

namespace {

constexpr std::chrono::milliseconds reason_pause{1'000};

/// Per choice that ended.
double mean(std::uint64_t tokens, std::uint64_t finished) {
  return finished == 0
             ? 0
             : static_cast<double>(tokens) / static_cast<double>(finished);
}

load_report report_of(const protocol::replica_load_news& news) {
  load_report out;
  out.kind = load_source::replica;
  out.source = news.replica;
  out.incarnation = news.incarnation;
  out.sequence = news.sequence;
  out.running = news.choices;
  return out;
}

} // namespace

scaler::model scaler::begin(const controller::scaled_model& wanted) {
  return {wanted,
          options_of(wanted.scaling),
          load_windows{window_of(wanted.scaling)},
          {},
          {},
          {},
          {},
          {},
          {},
          {}};
}

void scaler::know(const controller::scaled_models& all) {
  std::map<model_key, model> known;
  for (const auto& wanted : all.models) {
    model_key key{wanted.application, wanted.model};
    auto before = models_.find(key);
    if (before == models_.end() ||
        before->second.wanted.revision != wanted.revision) {
      known.emplace(key, begin(wanted));
      continue;
    }
    auto& kept = known.emplace(key, std::move(before->second)).first->second;
    keep_serving(kept, wanted);
    kept.wanted = wanted;
  }
  models_ = std::move(known);
  nodes_ = {all.nodes.begin(), all.nodes.end()};
  std::erase_if(routers_, [&](const auto& router) {
    const auto& [node, life] = router;
    if (nodes_.contains(node))
      return false;
    for (auto& [key, model] : models_) {
      model.windows.leave(load_source::router, node, life.incarnation);
      model.first_tokens.forget(node);
      model.next_tokens.forget(node);
      model.oldest_ms.erase(node);
    }
    return true;
  });
}

/// What does not serve any more takes its load along. It may come back as it
/// was, when its node does.
void scaler::keep_serving(model& of, const controller::scaled_model& now) {
  for (const auto& before : of.wanted.replicas)
    if (std::count(now.replicas.begin(), now.replicas.end(), before) == 0) {
      of.windows.leave(load_source::replica, before.replica,
                       before.incarnation);
      of.replicas.erase(before.replica);
    }
}

void scaler::hear(const protocol::router_report& report, time_point now) {
  if (!nodes_.contains(report.node))
    return;
  auto& router = routers_[report.node];
  if (report.incarnation == router.incarnation &&
      report.sequence <= router.sequence)
    return;
  router = {report.incarnation, report.sequence};
  for (auto& [key, model] : models_) {
    load_report out;
    std::uint32_t oldest = 0;
    out.kind = load_source::router;
    out.source = report.node;
    out.incarnation = report.incarnation;
    out.sequence = report.sequence;
    for (const auto& one : report.models)
      if (one.application == key.first && one.model == key.second) {
        out.running = one.sent;
        out.queued = one.waiting;
        model.first_tokens.hear(report.node, report.incarnation,
                                one.first_tokens, now);
        model.next_tokens.hear(report.node, report.incarnation, one.next_tokens,
                               now);
        oldest = one.oldest_ms;
      }
    model.oldest_ms[report.node] = oldest;
    model.windows.hear(out, now);
  }
}

void scaler::hear(const protocol::replica_load_news& news, time_point now) {
  auto found = models_.find({news.application, news.model});
  if (found == models_.end())
    return;
  auto& model = found->second;
  controller::serving_replica from{news.replica, news.incarnation};
  const auto& serving = model.wanted.replicas;
  if (std::count(serving.begin(), serving.end(), from) != 0 &&
      model.windows.hear(report_of(news), now))
    model.replicas[news.replica] = news;
}

/// With the set-point that its replicas and the minimum that the time say.
scaling_options
scaler::options_now(const model& of,
                    std::chrono::system_clock::time_point wall_clock) {
  auto out = of.options;
  const auto& wanted = of.wanted;
  if (!wanted.scaling.target_ongoing_requests) {
    std::uint32_t seats = 0;
    for (const auto& [name, replica] : of.replicas)
      if (replica.seats != 0)
        seats = seats == 0 ? replica.seats : std::min(seats, replica.seats);
    out.target_ongoing_requests =
        set_point(seats, wanted.sequences_max, wanted.on_cpu);
  }
  out.min_replicas = std::clamp(
      scheduled_minimum(wanted.scaling.schedule,
                        wanted.scaling.utc_offset_minutes, wall_clock),
      out.min_replicas, out.max_replicas);
  return out;
}

std::vector<protocol::scale_order>
scaler::tick(time_point now, std::chrono::system_clock::time_point wall_clock) {
  std::vector<protocol::scale_order> out;
  for (auto& [key, model] : models_) {
    const auto& wanted = model.wanted;
    auto options = options_now(model, wall_clock);
    auto load = model.windows.over_window(now);
    auto decided = decide(model, load, options, now);
    model.state = decided.state;
    protocol::scale_order order{
        key.first,        key.second,           wanted.revision,
        decided.target,   model.ordered.reason, decided.reason,
        decided.held_back};
    auto changes = decided.target != wanted.target;
    if (changes)
      order.reason = decided.reason;
    if (changes || wanted.replicas.size() != decided.target)
      measure_anew(model, now);
    if (!changes &&
        (order == model.ordered || now < model.ordered_at + reason_pause))
      continue;
    model.ordered = order;
    model.ordered_at = now;
    model.wanted.target = decided.target;
    out.push_back(std::move(order));
  }
  return out;
}

/// Who came before a change says nothing about what it is good for.
void scaler::measure_anew(model& of, time_point now) {
  constexpr std::chrono::seconds least{1};
  auto wait = std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::duration<double>{
          of.wanted.scaling.first_token_s.value_or(0)});
  auto from = now + std::max<std::chrono::nanoseconds>(wait, least);
  of.first_tokens.begin_anew(from);
  of.next_tokens.begin_anew(from);
}

token_work scaler::work_of(const model& of, const load& now) {
  token_work out;
  std::uint64_t prompts = 0, answers = 0, finished = 0;
  double rates = 0;
  std::size_t measured = 0;
  for (const auto& [name, replica] : of.replicas) {
    prompts += replica.prompt_tokens;
    answers += replica.output_tokens;
    finished += replica.finished;
    rates += replica.tokens_per_second;
    measured += replica.tokens_per_second > 0;
  }
  auto prompt = mean(prompts, finished);
  auto answer = mean(answers, finished);
  out.requests = now.queued;
  for (const auto& [name, replica] : of.replicas) {
    out.requests += replica.choices;
    auto most = static_cast<double>(replica.answer_tokens);
    out.tokens +=
        static_cast<double>(replica.waiting_tokens) +
        (finished == 0 ? most : std::min(most, replica.choices * answer));
  }
  out.tokens += now.queued * (prompt + answer);
  out.rate = measured == 0 ? 0 : rates / static_cast<double>(measured);
  return out;
}

scaling_decision scaler::decide(const model& of, const load& now,
                                const scaling_options& options, time_point at) {
  scaling_view view;
  view.running = now.running;
  view.queued = now.queued;
  view.replicas = static_cast<std::uint32_t>(of.wanted.replicas.size());
  view.target = of.wanted.target;
  view.target_capacity = of.wanted.target_capacity;
  view.capacity_rising = of.wanted.capacity_rising;
  if (of.wanted.scaling.policy == config::scaling_policy::tokens)
    return tokens(work_of(of, now), of.wanted.scaling.target_queue_s, options,
                  of.state, view, at);
  if (of.wanted.scaling.policy == config::scaling_policy::latency) {
    latency_seen seen{of.first_tokens.quantile(0.95, at),
                      of.next_tokens.quantile(0.95, at)};
    for (const auto& [node, oldest] : of.oldest_ms)
      seen.oldest_wait_s = std::max(seen.oldest_wait_s, oldest / 1e3);
    return latency(
        seen, {of.wanted.scaling.first_token_s, of.wanted.scaling.next_token_s},
        options, of.state, view, at);
  }
  return ongoing_requests(options, of.state, view, at);
}

} // namespace troupe::autoscaler
