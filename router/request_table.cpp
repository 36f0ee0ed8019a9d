#include "router/request_table.hpp"

#include "actors/protocol/latency_places.hpp"
#include "router/policy/deadline_rule.hpp"
#include "router/policy/dynamic_threshold.hpp"

#include <algorithm>
#include <cstdio>

namespace troupe::router {

namespace {

// Of the best speed of prompts, from one prompt to the next.
constexpr double prompt_speed_kept = 0.999;

error unavailable(std::string message) {
  return {errc::unavailable, std::move(message)};
}

error too_late_error(std::chrono::duration<double> expected,
                     std::chrono::milliseconds limit) {
  char text[160];
  std::snprintf(text, sizeof text,
                "The request cannot be served in its time limit of %.1f s: as "
                "things stand it would take %.1f s.",
                static_cast<double>(limit.count()) / 1e3, expected.count());
  return unavailable(text);
}

error lost_replica() {
  return unavailable("The replica that served the request was lost.");
}

error ended_replicas(const std::string& incident) {
  return {errc::internal, "The request ended the replicas that computed it "
                          "(incident " +
                              incident + ")."};
}

std::string hex16(std::uint64_t number) {
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx",
                static_cast<unsigned long long>(number));
  return digits;
}

std::chrono::milliseconds since(time_point then, time_point now) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(now - then);
}

double seconds_since(time_point then, time_point now) {
  return std::chrono::duration<double>(now - then).count();
}

void count_time(double seconds, std::uint64_t times,
                std::vector<std::uint64_t>& in) {
  in.resize(protocol::latency_places);
  in[protocol::latency_place(seconds)] += times;
}

// What is left of a client's time limit; 0 = there is none.
std::uint64_t time_left(std::uint64_t limit_ms, time_point from,
                        time_point now) {
  auto gone = static_cast<std::uint64_t>(
      std::max<std::int64_t>(since(from, now).count(), 0));
  if (limit_ms == 0)
    return 0;
  return limit_ms > gone ? limit_ms - gone : 1;
}

} // namespace

request_table::request_table(table_limits limits, std::uint64_t random_seed,
                             std::uint64_t incarnation)
    : limits_(limits), random_(random_seed), incarnation_(incarnation),
      notices_(limits.notices_max), bans_(limits.bans_max, limits.ban_time),
      suspicions_(limits.bans_max, limits.suspicion_time),
      given_up_(limits.given_up_max) {
  // nop
}

command_list request_table::submit(submission what, time_point now) {
  command_list out;
  auto refuse = [&](error why) {
    out.push_back(command::fail{what.request, std::move(why)});
    out.push_back(command::release{what.request});
    return std::move(out);
  };
  model_key key{what.application, what.model};
  auto model = models_.find(key);
  if (model == models_.end() || !model->second.listed)
    return refuse({errc::not_found, "The model is not deployed."});
  auto count = what.choices.size();
  if (count == 0 || requests_.count(what.request) != 0)
    return refuse({errc::internal, "The request could not be routed."});
  if (choices_ + count > limits_.choices_max)
    return refuse({errc::limit, "Too many requests are in flight."});
  std::size_t tokens = 0;
  for (auto& record : what.choices)
    tokens += record.prompt.size();
  if (prompt_tokens_ + tokens > limits_.prompt_tokens_max)
    return refuse({errc::limit, "Too many prompt tokens are in flight."});
  if (auto refused = too_late(what, model->second, now)) {
    ++counts_.requests_late;
    out.push_back(std::move(*refused));
    out.push_back(command::release{what.request});
    return out;
  }
  if (auto incident = banned(what, now)) {
    ++counts_.requests_banned;
    out.push_back(
        command::fail{what.request, ended_replicas(*incident), *incident});
    out.push_back(command::release{what.request});
    return out;
  }
  auto& request = requests_[what.request];
  request.model = key;
  request.card_hash = what.card_hash;
  if (!what.session.empty())
    request.session = hash_of(what.session);
  request.tenant = what.tenant;
  request.choices_per_replica = what.choices_per_replica;
  request.priority = what.priority;
  request.since = now;
  request.until = now + what.time_limit;
  request.has_limit = what.has_limit;
  request.open = count;
  for (auto& record : what.choices) {
    auto& choice = request.choices.emplace_back();
    choice.record = std::move(record);
    choice.waiting_since = now;
    model->second.shares.enter(what.tenant, what.weight);
  }
  until_.insert({request.until, what.request});
  choices_ += count;
  prompt_tokens_ += tokens;
  for (std::uint32_t i = 0; i < count; ++i)
    enqueue({what.request, i});
  pump(key, now, out);
  // What is left over waits; it must fit.
  auto taken = requests_.find(what.request);
  auto waits = [](const choice_state& one) { return one.incarnation == 0; };
  if (taken != requests_.end() &&
      queue_is_full(model->second, what.tenant, now) &&
      std::any_of(taken->second.choices.begin(), taken->second.choices.end(),
                  waits)) {
    fail_request(what.request, {errc::limit, "Too many requests are waiting."},
                 out);
    pump(key, now, out);
  }
  return out;
}

command_list request_table::tokens(protocol::token_batch batch,
                                   time_point now) {
  command_list out;
  auto replica = replicas_.find(batch.incarnation);
  if (replica == replicas_.end() ||
      (replica->second.phase != link_phase::attached &&
       replica->second.phase != link_phase::resting))
    return out; // there is no session, or it is another one's
  if (batch.no_session) {
    // What was sent over a connection before this one says nothing about it.
    auto& sent = replica->second.sent;
    if (std::any_of(batch.choices.begin(), batch.choices.end(),
                    [&](auto& news) { return sent.count(news.id) != 0; })) {
      link_down(batch.incarnation, now, out);
      out.push_back(command::detach{batch.incarnation});
    }
    return out;
  }
  auto model = replica->second.model;
  replica->second.waiting = batch.waiting;
  replica->second.others_tokens = batch.others_tokens;
  replica->second.pace.told({batch.few_rows_us, batch.many_rows_us}, now);
  if (batch.blocks.sequence != 0)
    if (auto* blocks = blocks_of(model))
      blocks->take(batch.incarnation, batch.blocks);
  for (auto& news : batch.choices) {
    auto known = sent_.find(news.id);
    if (known == sent_.end() || !replica->second.sent.count(news.id))
      continue;
    take(known->second, std::move(news), now, replica->second, out);
  }
  ask_for_blocks(batch.incarnation, now, out);
  pump(model, now, out);
  drop_unlisted(out);
  return out;
}

command_list request_table::attached(std::uint64_t incarnation,
                                     time_point now) {
  command_list out;
  auto replica = replicas_.find(incarnation);
  if (replica == replicas_.end()) {
    out.push_back(command::detach{incarnation});
    return out;
  }
  replica->second.phase = link_phase::attached;
  replica->second.pause = {};
  ask_for_blocks(incarnation, now, out);
  pump(model_key{replica->second.model}, now, out);
  return out;
}

command_list request_table::attach_failed(std::uint64_t incarnation,
                                          time_point now) {
  command_list out;
  link_down(incarnation, now, out);
  return out;
}

command_list request_table::lost(std::uint64_t incarnation, time_point now) {
  command_list out;
  link_down(incarnation, now, out);
  return out;
}

command_list request_table::death(protocol::death_notice notice,
                                  time_point now) {
  command_list out;
  if (notices_.add(notice) && notice.own_fault)
    for (auto& [router, record] : notice.running)
      if (router == incarnation_)
        blame(record, notice, now, out);
  release_held(notice.incarnation, now, out);
  return out;
}

command_list request_table::route_by(const protocol::routing_table& table,
                                     time_point now) {
  command_list out;
  if (table.version <= version_)
    return out;
  version_ = table.version;
  exact_ = table.settings.failover_exact;
  for (auto& [key, model] : models_) {
    model.listed = false;
    model.replicas.clear();
  }
  for (auto& [incarnation, replica] : replicas_)
    replica.listed = false;
  for (auto& model : table.models) {
    model_key key{model.application, model.model};
    models_[key].listed = true;
    models_[key].waiting_max = model.max_queued_requests != 0
                                   ? model.max_queued_requests
                                   : limits_.waiting_max;
    follow_rule(models_[key], model.choice, out);
    for (auto& replica : model.replicas)
      list_replica(replica, key, out);
  }
  drop_unlisted(out);
  std::vector<model_key> keys;
  for (auto& [key, model] : models_)
    keys.push_back(key);
  for (auto& key : keys)
    if (models_[key].listed) {
      for (auto incarnation : models_[key].replicas)
        ask_for_blocks(incarnation, now, out);
      pump(key, now, out);
    } else {
      fail_waiting(key, out);
    }
  return out;
}

void request_table::heed(const protocol::others_load& others, time_point now) {
  heeded_at_ = now;
  for (auto& [key, model] : models_) {
    model.waiting_elsewhere = 0;
    model.tenants_elsewhere.clear();
  }
  for (const auto& load : others.models)
    if (auto model = models_.find({load.application, load.model});
        model != models_.end()) {
      model->second.waiting_elsewhere = load.waiting;
      for (const auto& one : load.tenants)
        model->second.tenants_elsewhere[one.tenant] = one.waiting;
    }
}

// With the others' queues it is too long; or, where there are several tenants,
// this one, which has just added to it, had enough of it before, at all routers
// together. But a part of this router's queue is for those who have little
// here.
bool request_table::queue_is_full(const model_state& model,
                                  const std::string& tenant,
                                  time_point now) const {
  auto waits = model.waiting.size();
  auto has = tenant.empty() ? 0 : model.waiting.size_of(tenant);
  const auto part = small_part_of(model.waiting_max);
  if (has != 0 && has <= part.own && waits <= model.waiting_max &&
      model.waiting.size_of_small(part.own) <= part.places)
    return false;
  if (now < heeded_at_ + limits_.others_max) {
    waits += model.waiting_elsewhere;
    if (auto more = model.tenants_elsewhere.find(tenant);
        has != 0 && more != model.tenants_elsewhere.end())
      has += more->second;
  }
  if (waits > model.waiting_max)
    return true;
  return has != 0 && has_enough(has - 1, model.waiting_max - waits);
}

command_list request_table::cancel_request(std::uint64_t request,
                                           time_point now) {
  command_list out;
  auto known = requests_.find(request);
  if (known == requests_.end())
    return out;
  auto model = known->second.model;
  drop_request(request, out);
  pump(model, now, out);
  drop_unlisted(out);
  return out;
}

command_list request_table::cancel_choice(std::uint64_t request,
                                          std::uint32_t choice,
                                          time_point now) {
  command_list out;
  auto* state = find({request, choice});
  if (state == nullptr || !state->open)
    return out;
  auto model = requests_[request].model;
  if (state->incarnation != 0)
    out.push_back(command::cancel{state->incarnation, state->record.id});
  give_up({request, choice});
  close({request, choice}, out);
  pump(model, now, out);
  drop_unlisted(out);
  return out;
}

command_list request_table::tick(time_point now) {
  command_list out;
  bans_.expire(now);
  suspicions_.expire(now);
  while (!held_.empty() && held_.front().until <= now)
    release_held(held_.front().incarnation, now, out);
  expire_waiting(now, out);
  expire_late(now, out);
  retry_at_.reset();
  for (auto& [incarnation, replica] : replicas_) {
    replica.health.tick(now);
    if (replica.retry_at > now)
      continue;
    if (replica.phase == link_phase::pausing) {
      replica.phase = link_phase::connecting;
      out.push_back(command::attach{replica.route->where});
    } else if (replica.phase == link_phase::resting) {
      replica.phase = link_phase::attached;
    }
  }
  for (auto& [key, model] : models_)
    pump(key, now, out);
  drop_unlisted(out);
  return out;
}

command_list request_table::fail_all(const error& why, time_point) {
  command_list out;
  while (!requests_.empty())
    fail_request(requests_.begin()->first, why, out);
  drop_unlisted(out);
  return out;
}

std::optional<time_point> request_table::next_deadline() const {
  std::optional<time_point> first;
  auto consider = [&](time_point when) {
    if (!first || when < *first)
      first = when;
  };
  if (!queued_.empty())
    consider(queued_.begin()->first + limits_.wait_max);
  if (!until_.empty())
    consider(until_.begin()->first);
  if (retry_at_)
    consider(*retry_at_);
  if (!held_.empty())
    consider(held_.front().until);
  for (auto& [incarnation, replica] : replicas_) {
    if (replica.phase == link_phase::pausing ||
        replica.phase == link_phase::resting)
      consider(replica.retry_at);
    if (auto probe = replica.health.next())
      consider(*probe);
  }
  return first;
}

std::vector<protocol::router_load> request_table::load(time_point now) const {
  std::map<model_key, protocol::router_load> held;
  for (const auto& [key, model] : models_)
    if (!model.waiting.empty()) {
      held[key].waiting = static_cast<std::uint32_t>(model.waiting.size());
      if (auto first = model.waiting.oldest())
        held[key].oldest_ms = static_cast<std::uint32_t>(
            std::max<std::int64_t>(since(*first, now).count(), 0));
      auto by_tenant = model.waiting.sizes();
      by_tenant.erase(""); // nobody in particular
      held[key].tenants = protocol::most_waiting(by_tenant);
    }
  for (const auto& [incarnation, replica] : replicas_)
    if (!replica.sent.empty())
      held[replica.model].sent +=
          static_cast<std::uint32_t>(replica.sent.size());
  std::vector<protocol::router_load> out;
  for (auto& [key, load] : held) {
    std::tie(load.application, load.model) = key;
    if (auto model = models_.find(key); model != models_.end()) {
      load.first_tokens = model->second.first_tokens;
      load.next_tokens = model->second.next_tokens;
    }
    out.push_back(std::move(load));
  }
  return out;
}

std::size_t request_table::outstanding(std::uint64_t incarnation) const {
  auto replica = replicas_.find(incarnation);
  return replica == replicas_.end() ? 0 : replica->second.sent.size();
}

// Output that a choice still gives, if answers are as long as they are of late.
double request_table::answer_left(const model_state& model,
                                  const protocol::request_record& record) {
  auto usual =
      model.answer_mean > 0 ? model.answer_mean : protocol::expected_output_max;
  auto drawn =
      std::min<std::uint64_t>(record.output.size(), record.params.max_tokens);
  return std::min(static_cast<double>(record.params.max_tokens - drawn), usual);
}

double request_table::work_left(const model_state& model,
                                const protocol::request_record& record) {
  return work_of(tokens_given(record), 0) + answer_left(model, record);
}

// What the choices at replicas do together, each as fast as choices are of
// late: the first word on a queue that has just begun.
std::optional<double> request_table::rate_of_all(const model_state& model,
                                                 time_point now) const {
  std::size_t choices = 0;
  for (auto incarnation : model.replicas)
    choices += replicas_.at(incarnation).sent.size();
  auto speed = model.speed.value(now);
  if (!speed || choices == 0 || !has_company(model))
    return std::nullopt;
  return *speed * static_cast<double>(choices);
}

// False if a replica has less than half the company in which speeds were
// measured: alone a choice is faster than among others.
bool request_table::has_company(const model_state& model) const {
  return std::none_of(
      model.replicas.begin(), model.replicas.end(), [&](auto incarnation) {
        const auto& replica = replicas_.at(incarnation);
        auto company = static_cast<double>(replica.sent.size() + 1);
        return replica.phase == link_phase::attached &&
               company < model.company / 2;
      });
}

// What the rest of a choice takes at a replica with company; 0 = not known. The
// prompt at the best speed that was seen: short ones say little about long
// ones.
double request_table::service_s(const model_state& model,
                                const protocol::request_record& record,
                                time_point now) const {
  double out = 0;
  if (model.prompt_speed > 0)
    out += static_cast<double>(tokens_given(record)) / model.prompt_speed;
  if (auto speed = model.answer_speed.value(now))
    out += answer_left(model, record) / *speed;
  return out;
}

std::optional<command::fail> request_table::too_late(const submission& what,
                                                     const model_state& model,
                                                     time_point now) const {
  deadline_view view;
  auto judges_service = what.has_limit && has_company(model);
  double together = 0, longest = 0;
  for (auto& record : what.choices) {
    auto work = work_left(model, record);
    together += work;
    longest = std::max(longest, work);
    if (judges_service)
      view.service_s = std::max(view.service_s, service_s(model, record, now));
  }
  if (!model.waiting.empty())
    view.ahead =
        model.waiting.ahead_of({what.tenant, what.priority},
                               model.shares.share(what.tenant, what.weight)) +
        together - longest;
  view.drain = model.rate.value(now);
  if (!view.drain)
    view.drain = rate_of_all(model, now);
  view.left = what.time_limit;
  auto refused = deadline_rule(view);
  if (!refused)
    return std::nullopt;
  return command::fail{what.request,
                       too_late_error(refused->expected, what.time_limit),
                       {},
                       refused->retry_after_s};
}

// Something of it was sent, or has ended.
bool request_table::is_begun(const request_state& request) {
  return request.open != request.choices.size() ||
         std::any_of(request.choices.begin(), request.choices.end(),
                     [](const choice_state& one) {
                       return one.sendings != 0 || one.started;
                     });
}

bool request_table::begins_too_late(choice_key key, const model_state& model,
                                    time_point now) {
  auto& request = requests_[key.request];
  if (!request.has_limit || is_begun(request) || !has_company(model))
    return false;
  deadline_view view;
  view.service_s = service_s(model, request.choices[key.choice].record, now);
  view.left = request.until - now;
  return ends_too_late(view);
}

standing request_table::standing_of(choice_key key) {
  auto& request = requests_[key.request];
  return {request.tenant, request.priority, request.since,
          request.choices[key.choice].work};
}

request_table::choice_state* request_table::find(choice_key key) {
  auto request = requests_.find(key.request);
  if (request == requests_.end() ||
      key.choice >= request->second.choices.size())
    return nullptr;
  return &request->second.choices[key.choice];
}

// Fingerprints cost time: none while nothing is banned.
std::optional<std::string> request_table::banned(const submission& what,
                                                 time_point now) const {
  if (bans_.empty())
    return std::nullopt;
  for (auto& record : what.choices)
    if (auto incident =
            bans_.find(fingerprint_of(what.application, record), now))
      return incident;
  return std::nullopt;
}

lane_key request_table::lane_of(const request_state& request,
                                const choice_state& choice) {
  lane_key out;
  out.card_hash = request.card_hash;
  out.suspects = choice.suspect;
  out.again = choice.sendings != 0 && !choice.started;
  if (choice.started)
    out.arithmetic_class = choice.arithmetic_class;
  return out;
}

void request_table::enqueue(choice_key key) {
  auto& request = requests_[key.request];
  auto& choice = request.choices[key.choice];
  auto& model = models_[request.model];
  choice.work = work_left(model, choice.record);
  choice.asked_at = choice.waiting_since;
  model.waiting.add(lane_of(request, choice), key, standing_of(key));
  queued_.insert({choice.asked_at, key});
}

// Nothing happens if it is in no lane.
void request_table::dequeue(choice_key key) {
  auto& request = requests_[key.request];
  auto& choice = request.choices[key.choice];
  queued_.erase({choice.asked_at, key});
  if (auto model = models_.find(request.model); model != models_.end())
    model->second.waiting.remove(lane_of(request, choice), key,
                                 standing_of(key));
}

// The listed replicas that the lane's choices may go to, attached or not. A
// card and a class bind while one of the replicas has it; a class for ever, if
// the deployment wants exactness.
std::vector<std::uint64_t> request_table::allowed(const model_state& model,
                                                  const lane_key& lane) const {
  auto those = [this](const std::vector<std::uint64_t>& from, auto what,
                      const std::string& wanted) {
    std::vector<std::uint64_t> out;
    for (auto incarnation : from)
      if ((*replicas_.at(incarnation).route).*what == wanted)
        out.push_back(incarnation);
    return out;
  };
  auto out = model.replicas;
  if (!lane.card_hash.empty())
    if (auto some =
            those(out, &protocol::replica_route::card_hash, lane.card_hash);
        !some.empty())
      out = std::move(some);
  if (lane.arithmetic_class)
    if (auto some = those(out, &protocol::replica_route::arithmetic_class,
                          *lane.arithmetic_class);
        exact_ || !some.empty())
      out = std::move(some);
  return out;
}

// What it computes at once, and an eighth more, so that its engine finds the
// next ones there. While others' choices wait in it already, no more than it
// has: the queue is here, where it is known whose turn it is.
std::uint32_t request_table::choices_max(const replica_state& replica) {
  constexpr std::uint32_t none = 0xFFFF'FFFF;
  const auto& route = *replica.route;
  auto out =
      route.max_ongoing_requests == 0 ? none : route.max_ongoing_requests;
  if (auto at_once = route.choices_at_once; at_once != 0) {
    auto spare = (at_once + 7) / 8;
    auto has = static_cast<std::uint32_t>(replica.sent.size());
    out = std::min(out, at_once + spare);
    if (replica.waiting > spare)
      out = std::min(out, std::max(has, 1u));
  }
  return out == none ? 0 : out;
}

replica_snapshot request_table::snapshot_of(std::uint64_t incarnation) const {
  auto& replica = replicas_.at(incarnation);
  replica_snapshot out;
  out.choices = static_cast<std::uint32_t>(replica.sent.size());
  out.tokens = replica.tokens + replica.others_tokens;
  out.choices_max = choices_max(replica);
  out.incarnation = incarnation;
  out.name_hash = replica.name_hash;
  return out;
}

// Those that choices may be sent to now; one that keeps failing only if there
// is no other.
std::vector<replica_snapshot>
request_table::trusted(const std::vector<std::uint64_t>& among,
                       time_point now) const {
  std::vector<replica_snapshot> fine, others;
  step_times fastest;
  for (auto incarnation : among) {
    auto& replica = replicas_.at(incarnation);
    if (replica.phase != link_phase::attached)
      continue;
    auto is_fine = replica.health.now() == replica_health::state::fine;
    (is_fine ? fine : others).push_back(snapshot_of(incarnation));
    fastest = fastest_of(fastest, replica.pace.value(now));
  }
  auto& out = fine.empty() ? others : fine;
  for (auto& one : out)
    one.slowness =
        slowness_of(replicas_.at(one.incarnation).pace.value(now), fastest);
  return std::move(out);
}

// One that failed is tried with one choice that has not been anywhere yet.
std::optional<std::uint64_t>
request_table::probe_for(choice_key key,
                         const std::vector<std::uint64_t>& among) const {
  auto& choice = requests_.at(key.request).choices[key.choice];
  if (choice.sendings != 0 || choice.suspect)
    return std::nullopt;
  for (auto incarnation : among) {
    auto& replica = replicas_.at(incarnation);
    if (replica.phase == link_phase::attached && replica.sent.empty() &&
        replica.health.now() == replica_health::state::probed)
      return incarnation;
  }
  return std::nullopt;
}

choice_wish request_table::wish_of(choice_key key,
                                   const replica_chooser& chooser) {
  auto& request = requests_[key.request];
  auto& choice = request.choices[key.choice];
  auto size = chooser.block_size();
  if (choice.block_size != size) {
    choice.blocks = codec::block_names(choice.record.prompt, size);
    choice.block_size = size;
  }
  return {tokens_to_do(choice.record), request.session, choice.blocks, size};
}

// The choice's tenant has as many there as it may have at once.
bool request_table::has_its_own(choice_key key,
                                const replica_state& there) const {
  const auto& request = requests_.at(key.request);
  if (request.choices_per_replica == 0 || request.choices[key.choice].started)
    return false;
  auto own = there.by_tenant.find(request.tenant);
  return own != there.by_tenant.end() &&
         own->second >= request.choices_per_replica;
}

// False if no replica that the choice may go to has room.
bool request_table::find_replica(const model_state& model, destination& of,
                                 time_point now) {
  auto may = allowed(model, of.lane);
  if (auto probe = probe_for(of.key, may)) {
    of.incarnation = *probe;
    return true;
  }
  auto among = trusted(may, now);
  auto none_has_room = [&] {
    return std::none_of(among.begin(), among.end(),
                        [](auto& one) { return one.has_room(); });
  };
  if (none_has_room())
    return false; // the usual case while choices wait: it costs nothing more
  std::erase_if(among, [&](const auto& one) {
    return has_its_own(of.key, replicas_.at(one.incarnation));
  });
  of.limited = none_has_room();
  if (of.limited)
    return false;
  auto chosen =
      model.chooser.choose(wish_of(of.key, model.chooser), among, random_());
  if (!chosen)
    return false;
  of.incarnation = among[chosen->place].incarnation;
  of.predicted = chosen->cached_tokens;
  return true;
}

// What was sent before and has given nothing yet needs a part of the budget.
bool request_table::may_send(const destination& to, model_state& model,
                             time_point now) {
  auto& choice = *find(to.key);
  if (choice.started)
    return true;
  if (choice.sendings == 0) {
    if (choice.charged == 0)
      model.retries.sent(now);
    return true;
  }
  if (model.retries.take(now))
    return true;
  auto when = *model.retries.next(now);
  retry_at_ = std::min(retry_at_.value_or(when), when);
  ++counts_.retries_put_off;
  return false;
}

// The first of those that a replica has room for. Suspects go one at a time.
std::optional<request_table::destination>
request_table::next_to_send(model_state& model, time_point now) {
  if (model.waiting.empty())
    return std::nullopt;
  std::set<std::string> limited; // by their own limits alone
  for (bool again = true; again;) {
    again = false;
    for (auto& one : model.waiting.next(model.shares, limited)) {
      if (one.lane.suspects && model.on_trial)
        continue;
      destination to{one.key, one.lane};
      if (find_replica(model, to, now) && may_send(to, model, now))
        return to;
      if (to.limited)
        again |= limited.insert(requests_.at(one.key.request).tenant).second;
    }
  }
  return std::nullopt;
}

void request_table::pump(const model_key& key, time_point now,
                         command_list& out) {
  auto model = models_.find(key);
  if (model == models_.end())
    return;
  while (auto next = next_to_send(model->second, now)) {
    if (!next->lane.suspects && hold_with_suspects(next->key, now))
      continue;
    if (next->lane.suspects)
      if (auto known = guilty_meanwhile(next->key, now)) {
        fail_request(next->key.request, ended_replicas(*known), out, *known);
        continue;
      }
    if (begins_too_late(next->key, model->second, now)) {
      ++counts_.requests_expired;
      fail_request(next->key.request,
                   unavailable("The request could not be begun in time."), out);
      continue;
    }
    dequeue(next->key);
    send(*next, now, out);
  }
}

void request_table::send(const destination& to, time_point now,
                         command_list& out) {
  auto key = to.key;
  auto incarnation = to.incarnation;
  auto& request = requests_[key.request];
  auto& choice = request.choices[key.choice];
  auto& replica = replicas_[incarnation];
  auto& record = choice.record;
  record.id = ++last_id_;
  record.alone =
      choice.suspect || choice.unexplained >= limits_.unexplained_max;
  choice.incarnation = incarnation;
  choice.cost = tokens_to_do(record);
  choice.fresh = true;
  choice.tried = 0;
  choice.news_at = now;
  choice.predicted = to.predicted;
  auto& model = models_.at(request.model);
  model.chooser.sent(wish_of(key, model.chooser), incarnation);
  // Computing it once more is not its tenant's fault.
  if (choice.charged == 0) {
    choice.charged = choice.work;
    model.shares.charge(request.tenant, choice.charged);
  }
  replica.sent.insert(record.id);
  ++replica.by_tenant[request.tenant];
  replica.tokens += choice.cost;
  sent_[record.id] = key;
  if (choice.suspect)
    model.on_trial = key;
  if (choice.started) {
    ++counts_.streams_moved;
    out.push_back(command::moved{
        record.request_id, key.choice, record.output.size(),
        replica.route->replica, since(choice.waiting_since, now), record.alone,
        replica.route->arithmetic_class != choice.arithmetic_class});
  }
  ++choice.sendings;
  command::generate what{incarnation, record};
  what.record.deadline_ms = time_left(record.deadline_ms, request.since, now);
  out.push_back(std::move(what));
}

void request_table::take(choice_key key, protocol::choice_tokens news,
                         time_point now, replica_state& replica,
                         command_list& out) {
  using protocol::finish;
  auto& choice = *find(key);
  if (news.reason == finish::cancelled)
    give_up(key); // its engine may still be at it
  if (news.reason == finish::error || news.reason == finish::cancelled) {
    refused(key,
            news.reason == finish::error
                ? error{news.code, std::move(news.message)}
                : unavailable("The replica ended the request."),
            now, replica, out);
    return;
  }
  if (news.tokens.empty() && news.reason == finish::none)
    return;
  note_rate(key, news, now, replica);
  note_hits(key, news, replica, out);
  if (choice.started) { // said by the replica that gave the first token
    news.cached_tokens = 0;
    news.prompt_logprobs.clear();
  }
  note_progress(key, news.tokens.size(), replica);
  auto& output = choice.record.output;
  output.insert(output.end(), news.tokens.begin(), news.tokens.end());
  auto ends = news.reason != finish::none;
  clear_if_past(key, ends);
  out.push_back(command::deliver{key.request, key.choice, std::move(news),
                                 replica.route});
  if (!ends)
    return;
  if (auto model = models_.find(replica.model); model != models_.end())
    note_end(choice, model->second);
  close(key, out);
}

// Of a fresh choice the prompt has been computed too, but for what was cached.
void request_table::note_rate(choice_key of,
                              const protocol::choice_tokens& news,
                              time_point now, replica_state& replica) {
  auto& choice = *find(of);
  replica.health.served();
  auto given = choice.fresh ? tokens_given(choice.record) : 0;
  auto computed = given - std::min<std::uint64_t>(given, news.cached_tokens);
  auto work = work_of(computed, news.tokens.size());
  auto spent = now - choice.news_at;
  if (auto model = models_.find(replica.model); model != models_.end()) {
    model->second.rate.note(work, !model->second.waiting.empty(), now);
    // Nobody is refused because a replica stood still for a while.
    auto usual = choice.fresh ? limits_.first_news_max : limits_.news_max;
    auto counted = std::min<time_point::duration>(spent, usual);
    model->second.speed.note(work, counted, now);
    std::chrono::duration<double> seconds = counted;
    if (!choice.fresh)
      model->second.answer_speed.note(static_cast<double>(news.tokens.size()),
                                      counted, now);
    else if (seconds.count() > 0)
      model->second.prompt_speed =
          std::max(model->second.prompt_speed * prompt_speed_kept,
                   static_cast<double>(computed) / seconds.count());
    if (!choice.started)
      count_time(seconds_since(requests_.at(of.request).since, now), 1,
                 model->second.first_tokens);
    else if (!choice.fresh && !news.tokens.empty())
      count_time(std::chrono::duration<double>(spent).count() /
                     static_cast<double>(news.tokens.size()),
                 news.tokens.size(), model->second.next_tokens);
    constexpr double memory = 64; // news
    auto company = static_cast<double>(replica.sent.size());
    model->second.company += (company - model->second.company) / memory;
  }
  choice.news_at = now;
}

// How long answers are, and what this one came to.
void request_table::note_end(choice_state& choice, model_state& model) {
  constexpr double memory = 32; // answers
  auto tokens = static_cast<double>(choice.record.output.size());
  model.answer_mean =
      model.answer_mean == 0
          ? tokens
          : model.answer_mean + (tokens - model.answer_mean) / memory;
}

// A choice that moved says what a replica had of its output too: no measure.
void request_table::note_hits(choice_key key,
                              const protocol::choice_tokens& news,
                              replica_state& replica, command_list& out) {
  auto& choice = *find(key);
  auto model = models_.find(replica.model);
  if (!choice.fresh || choice.started || model == models_.end() ||
      !model->second.chooser.predicts())
    return;
  if (auto* blocks = model->second.chooser.blocks())
    blocks->compare(choice.incarnation, choice.predicted, news.cached_tokens);
  out.push_back(command::measured_hits{choice.incarnation, choice.predicted,
                                       news.cached_tokens});
}

// Replicas of before version 5 tell nothing.
void request_table::ask_for_blocks(std::uint64_t incarnation, time_point now,
                                   command_list& out) {
  constexpr std::uint32_t first_version = 5;
  auto known = replicas_.find(incarnation);
  if (known == replicas_.end())
    return;
  auto& replica = known->second;
  auto* blocks = blocks_of(replica.model);
  if (blocks == nullptr || replica.route->version < first_version ||
      (replica.phase != link_phase::attached &&
       replica.phase != link_phase::resting))
    return;
  blocks->follow(incarnation);
  if (blocks->should_ask(incarnation, now))
    out.push_back(command::follow_blocks{incarnation});
}

// What the replicas of a model tell of their blocks; null if nobody asks.
kv_index* request_table::blocks_of(const model_key& key) {
  auto model = models_.find(key);
  return model == models_.end() ? nullptr : model->second.chooser.blocks();
}

// Another rule begins with nothing known; who told of blocks may stop.
void request_table::follow_rule(model_state& model,
                                const protocol::choice_rule& rule,
                                command_list& out) {
  if (model.chooser.rule() == rule)
    return;
  if (auto* blocks = model.chooser.blocks())
    for (auto incarnation : blocks->followed())
      out.push_back(command::follow_blocks{incarnation, false});
  model.chooser = replica_chooser{rule, random_()};
}

void request_table::note_progress(choice_key key, std::size_t tokens,
                                  replica_state& replica) {
  auto& request = requests_[key.request];
  auto& choice = request.choices[key.choice];
  auto& now_of = replica.route->arithmetic_class;
  if (choice.started && now_of != choice.arithmetic_class)
    ++counts_.streams_class_changed;
  choice.started = true;
  choice.arithmetic_class = now_of;
  choice.tried += static_cast<std::uint32_t>(tokens);
  if (choice.suspect && choice.tried >= trial_of(choice, tokens)) {
    choice.suspect = false;
    end_trial(key);
  }
  if (!choice.fresh)
    return;
  choice.fresh = false;
  auto done = std::min(choice.cost, tokens_given(choice.record));
  choice.cost -= done;
  replica.tokens -= done;
}

// Of a suspect to which so many tokens are being added: until it is past the
// place where an equal one has ended a replica, unless that is far.
std::size_t request_table::trial_of(const choice_state& choice,
                                    std::size_t tokens) const {
  auto began = choice.record.output.size() + tokens - choice.tried;
  auto left = choice.cleared_at - std::min(choice.cleared_at, began);
  return std::clamp<std::size_t>(left, limits_.trial_tokens,
                                 limits_.trial_tokens_max);
}

// A replica that cannot serve now, or has as much as it may (other routers send
// to it too), is left alone for a while, and the choice goes on elsewhere; any
// other error would meet the choice everywhere.
void request_table::refused(choice_key key, const error& why, time_point now,
                            replica_state& replica, command_list& out) {
  auto& choice = *find(key);
  unlink(key);
  end_trial(key);
  if (why.code != errc::unavailable && why.code != errc::limit) {
    fail_request(key.request, why, out);
    return;
  }
  if (why.code == errc::unavailable)
    replica.health.failed(now);
  if (replica.phase == link_phase::attached) {
    replica.phase = link_phase::resting;
    replica.retry_at = now + limits_.rest;
  }
  if (why.code == errc::limit)
    --choice.sendings; // it was not there at all: it waits as before
  else
    choice.waiting_since = now;
  give_back(key, why, out);
}

// The choices of a dead replica, or one of which nothing was heard in time.
void request_table::release_held(std::uint64_t incarnation, time_point now,
                                 command_list& out) {
  std::vector<choice_key> released;
  std::erase_if(held_, [&](const held_choice& one) {
    if (one.incarnation != incarnation)
      return false;
    released.push_back(one.key);
    return true;
  });
  auto* notice = notices_.find(incarnation);
  std::set<model_key> models;
  for (auto key : released) {
    if (auto request = requests_.find(key.request); request != requests_.end())
      models.insert(request->second.model);
    settle(key, notice, now, out);
  }
  for (auto& model : models)
    pump(model, now, out);
}

// What becomes of a choice, unlinked already, whose replica was lost.
void request_table::settle(choice_key key, const protocol::death_notice* notice,
                           time_point now, command_list& out) {
  auto* choice = find(key);
  if (choice == nullptr || !choice->open)
    return; // it has ended meanwhile
  end_trial(key);
  if (notice == nullptr) {
    give_up(key); // a word may come yet
    if (++choice->unexplained >= limits_.unexplained_max && !choice->started)
      return fail_request(key.request, lost_replica(), out);
  }
  if (notice != nullptr &&
      is_blamed(*notice, {incarnation_, choice->record.id})) {
    if (auto known = guilty_meanwhile(key, now))
      return fail_request(key.request, ended_replicas(*known), out, *known);
    auto what = last_sending(key);
    if (weigh(*notice, what, suspicions_, now) == verdict::guilty)
      return convict(what, notice->reason, now, out);
    if (!choice->suspect)
      ++counts_.choices_suspected;
    choice->suspect = true;
    auto noted = suspicions_.find(what.what, now);
    choice->cleared_at =
        (noted ? noted->tokens : what.tokens) + limits_.trial_tokens;
    out.push_back(
        command::suspected{what.request_id, key.choice, notice->reason});
  }
  give_back(key, lost_replica(), out);
}

sending request_table::last_sending(choice_key key) {
  auto& model = requests_[key.request].model;
  auto& choice = *find(key);
  return {model, choice.record.request_id,
          fingerprint_of(model.first, choice.record),
          choice.record.output.size(), choice.cleared_at != 0};
}

// For a choice that has left nobody asks again: it is judged now. For one that
// is still there its request is suspect from now on; it is judged itself when
// its session is lost, with the tokens that are on their way.
void request_table::blame(std::uint64_t record,
                          const protocol::death_notice& notice, time_point now,
                          command_list& out) {
  if (auto known = sent_.find(record); known != sent_.end()) {
    auto what = last_sending(known->second);
    suspicions_.add(what.what, {notice.incarnation, what.tokens, 0}, now);
  } else if (auto gone = given_up_.take(record)) {
    if (!bans_.find(gone->what, now) &&
        weigh(notice, *gone, suspicions_, now) == verdict::guilty) {
      convict(*gone, notice.reason, now, out);
      pump(gone->model, now, out);
    }
  }
}

// Fingerprints cost time: none while nothing is suspect.
bool request_table::hold_with_suspects(choice_key key, time_point now) {
  if (suspicions_.empty())
    return false;
  auto& choice = *find(key);
  auto known = suspicions_.find(last_sending(key).what, now);
  if (!known ||
      choice.record.output.size() >= known->tokens + limits_.trial_tokens)
    return false;
  dequeue(key);
  choice.suspect = true;
  choice.cleared_at = known->tokens + limits_.trial_tokens;
  enqueue(key);
  return true;
}

// A choice that got past the place of the death clears its request; one that
// ends before says nothing.
void request_table::clear_if_past(choice_key key, bool ends) {
  auto& choice = *find(key);
  auto has = choice.record.output.size();
  if (choice.cleared_at == 0 ||
      (has < choice.cleared_at &&
       !(ends && has + limits_.trial_tokens > choice.cleared_at)))
    return;
  choice.cleared_at = 0;
  suspicions_.forget(last_sending(key).what);
}

// The same request may have been sent twice, and one found guilty.
std::optional<std::string> request_table::guilty_meanwhile(choice_key key,
                                                           time_point now) {
  if (bans_.empty())
    return std::nullopt;
  return bans_.find(last_sending(key).what, now);
}

void request_table::convict(const sending& who, const std::string& reason,
                            time_point now, command_list& out) {
  auto incident = hex16(random_());
  bans_.add(who.what, incident, now);
  ++counts_.requests_convicted;
  out.push_back(command::convicted{who.request_id, incident, reason});
  for (auto one : requests_like(who))
    fail_request(one, ended_replicas(incident), out, incident);
}

// It and its equals, but for those that are past the place where it ended a
// replica.
std::vector<std::uint64_t>
request_table::requests_like(const sending& who) const {
  auto end = who.tokens + limits_.trial_tokens;
  auto is_like = [&](const choice_state& one) {
    return one.open && one.record.output.size() < end &&
           fingerprint_of(who.model.first, one.record) == who.what;
  };
  std::vector<std::uint64_t> out;
  for (auto& [id, request] : requests_)
    if (request.model == who.model &&
        std::any_of(request.choices.begin(), request.choices.end(), is_like))
      out.push_back(id);
  return out;
}

// What becomes of a choice that is at no replica and in no lane.
void request_table::give_back(choice_key key, const error& why,
                              command_list& out) {
  auto* choice = find(key);
  if (choice == nullptr)
    return; // its request failed with another choice
  if (choice->sendings > limits_.moves_max ||
      models_.count(requests_[key.request].model) == 0)
    fail_request(key.request, why, out);
  else
    enqueue(key);
}

void request_table::unlink(choice_key key) {
  auto& choice = *find(key);
  if (choice.incarnation == 0)
    return;
  auto& replica = replicas_[choice.incarnation];
  replica.sent.erase(choice.record.id);
  if (auto own = replica.by_tenant.find(requests_.at(key.request).tenant);
      own != replica.by_tenant.end() && --own->second == 0)
    replica.by_tenant.erase(own);
  replica.tokens -= choice.cost;
  sent_.erase(choice.record.id);
  choice.incarnation = 0;
  choice.cost = 0;
}

// The next suspect may be sent. A trial outlasts the loss of its replica: until
// a word on why, another suspect would end one more replica.
void request_table::end_trial(choice_key key) {
  auto model = models_.find(requests_[key.request].model);
  if (model != models_.end() && model->second.on_trial == key)
    model->second.on_trial.reset();
}

void request_table::leave(choice_key key) {
  auto& request = requests_[key.request];
  auto& choice = request.choices[key.choice];
  if (auto model = models_.find(request.model); model != models_.end()) {
    // It was charged for what it was thought to take.
    if (choice.charged != 0)
      model->second.shares.charge(
          request.tenant,
          work_of(choice.record.prompt.size(), choice.record.output.size()) -
              choice.charged);
    model->second.shares.leave(request.tenant);
  }
  choice.open = false;
  --choices_;
  prompt_tokens_ -= choice.record.prompt.size();
  choice.record = {};
  choice.blocks = {};
}

// As far as is known this sending is over; its replica may die of it yet, or
// has died and nobody has said why.
void request_table::give_up(choice_key key) {
  if (auto record = find(key)->record.id; record != 0)
    given_up_.add(record, last_sending(key));
}

void request_table::close(choice_key key, command_list& out) {
  auto& request = requests_[key.request];
  dequeue(key);
  unlink(key);
  end_trial(key);
  leave(key);
  if (--request.open != 0)
    return;
  until_.erase({request.until, key.request});
  requests_.erase(key.request);
  out.push_back(command::release{key.request});
}

void request_table::fail_request(std::uint64_t request, const error& why,
                                 command_list& out, std::string incident) {
  out.push_back(command::fail{request, why, std::move(incident)});
  drop_request(request, out);
}

void request_table::drop_request(std::uint64_t id, command_list& out) {
  auto& request = requests_[id];
  for (std::uint32_t i = 0; i < request.choices.size(); ++i) {
    auto& choice = request.choices[i];
    if (!choice.open)
      continue;
    if (choice.incarnation != 0)
      out.push_back(command::cancel{choice.incarnation, choice.record.id});
    give_up({id, i});
    dequeue({id, i});
    unlink({id, i});
    end_trial({id, i});
    leave({id, i});
  }
  until_.erase({request.until, id});
  requests_.erase(id);
  out.push_back(command::release{id});
}

void request_table::list_replica(const protocol::replica_route& route,
                                 const model_key& key, command_list& out) {
  auto incarnation = route.where.incarnation;
  if (incarnation == 0)
    return;
  auto [place, fresh] = replicas_.try_emplace(incarnation);
  auto& replica = place->second;
  if (!fresh && replica.listed)
    return; // listed twice: the first one counts
  replica.listed = true;
  replica.model = key;
  replica.name_hash = hash_of(route.replica);
  replica.route = std::make_shared<const protocol::replica_route>(route);
  models_[key].replicas.push_back(incarnation);
  if (fresh)
    out.push_back(command::attach{route.where});
}

void request_table::drop_unlisted(command_list& out) {
  for (auto i = replicas_.begin(); i != replicas_.end();) {
    auto& [incarnation, replica] = *i;
    if (replica.listed || !replica.sent.empty()) {
      ++i;
      continue;
    }
    if (replica.phase == link_phase::attached ||
        replica.phase == link_phase::resting)
      out.push_back(command::detach{incarnation});
    if (auto model = models_.find(replica.model); model != models_.end())
      model->second.chooser.forget(incarnation);
    i = replicas_.erase(i);
  }
}

void request_table::link_down(std::uint64_t incarnation, time_point now,
                              command_list& out) {
  auto known = replicas_.find(incarnation);
  if (known == replicas_.end())
    return;
  auto& replica = known->second;
  // One that cannot be reached for long was not tried so often.
  if (replica.phase != link_phase::connecting ||
      replica.health.now() == replica_health::state::fine)
    replica.health.failed(now);
  replica.phase = link_phase::pausing;
  replica.waiting = 0;
  replica.others_tokens = 0;
  if (auto* blocks = blocks_of(replica.model))
    blocks->forget(incarnation);
  replica.pause = std::clamp(replica.pause * 2, limits_.attach_pause,
                             limits_.attach_pause_max);
  replica.retry_at = now + replica.pause;
  std::vector<choice_key> orphans;
  for (auto id : replica.sent)
    orphans.push_back(sent_[id]);
  for (auto key : orphans) {
    auto& choice = *find(key);
    unlink(key);
    choice.waiting_since = now;
    held_.push_back({now + limits_.notice_wait, incarnation, key});
  }
  if (notices_.find(incarnation) != nullptr)
    release_held(incarnation, now, out);
  pump(model_key{replica.model}, now, out);
  drop_unlisted(out);
}

// The end of a model that has left the table.
void request_table::fail_waiting(const model_key& key, command_list& out) {
  while (auto one = models_[key].waiting.any())
    fail_request(one->request, unavailable("The model was removed."), out);
  models_.erase(key);
}

// Whether a replica is there that takes the likes of it, if it has room.
bool request_table::is_served(choice_key key) {
  auto& request = requests_[key.request];
  auto model = models_.find(request.model);
  if (model == models_.end())
    return false;
  auto may =
      allowed(model->second, lane_of(request, request.choices[key.choice]));
  return std::any_of(may.begin(), may.end(), [this](auto incarnation) {
    auto phase = replicas_.at(incarnation).phase;
    return phase == link_phase::attached || phase == link_phase::resting;
  });
}

void request_table::expire_waiting(time_point now, command_list& out) {
  while (!queued_.empty() && queued_.begin()->first + limits_.wait_max <= now) {
    auto key = queued_.begin()->second;
    if (is_served(key)) {
      queued_.erase(queued_.begin());
      find(key)->asked_at = now;
      queued_.insert({now, key});
    } else {
      fail_request(key.request,
                   unavailable("No replica of the model was free in time."),
                   out);
    }
  }
}

// Who is begun goes on: to end it in time is for whoever set the limit.
void request_table::expire_late(time_point now, command_list& out) {
  while (!until_.empty() && until_.begin()->first <= now) {
    auto id = until_.begin()->second;
    until_.erase(until_.begin());
    auto& request = requests_[id];
    if (is_begun(request))
      continue;
    ++counts_.requests_expired;
    fail_request(id, unavailable("The request could not be begun in time."),
                 out);
  }
}

} // namespace troupe::router
