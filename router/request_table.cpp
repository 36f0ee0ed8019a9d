#include "router/request_table.hpp"

#include "router/policy/power_of_two.hpp"

#include <algorithm>

namespace troupe::router {

namespace {

// Output that a choice is expected to give, however much it may.
constexpr std::uint32_t expected_output_max = 256;

std::uint64_t expected_cost(const protocol::request_record& record) {
  return record.prompt.size() +
         std::min(record.params.max_tokens, expected_output_max);
}

error unavailable(std::string message) {
  return {errc::unavailable, std::move(message)};
}

} // namespace

request_table::request_table(table_limits limits, std::uint64_t random_seed)
    : limits_(limits), random_(random_seed) {
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
  auto& request = requests_[what.request];
  request.model = key;
  request.since = now;
  request.open = count;
  for (auto& record : what.choices)
    request.choices.push_back({.record = std::move(record)});
  choices_ += count;
  prompt_tokens_ += tokens;
  for (std::uint32_t i = 0; i < count; ++i)
    enqueue({what.request, i}, now);
  pump(key, out);
  // What is left over waits; it must fit.
  if (model->second.waiting.size() > waiting_max(key) &&
      model->second.waiting.back().key.request == what.request)
    fail_request(what.request, {errc::limit, "Too many requests are waiting."},
                 out);
  pump(key, out);
  return out;
}

command_list request_table::tokens(protocol::token_batch batch,
                                   time_point now) {
  command_list out;
  auto replica = replicas_.find(batch.incarnation);
  if (replica == replicas_.end())
    return out;
  auto model = replica->second.model;
  for (auto& news : batch.choices) {
    auto known = sent_.find(news.id);
    if (known == sent_.end() || !replica->second.sent.count(news.id))
      continue;
    take(known->second, std::move(news), now, replica->second, out);
  }
  pump(model, out);
  drop_unlisted(out);
  return out;
}

command_list request_table::attached(std::uint64_t incarnation, time_point) {
  command_list out;
  auto replica = replicas_.find(incarnation);
  if (replica == replicas_.end()) {
    out.push_back(command::detach{incarnation});
    return out;
  }
  replica->second.phase = link_phase::attached;
  replica->second.pause = {};
  pump(replica->second.model, out);
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

command_list request_table::route_by(const protocol::routing_table& table,
                                     time_point) {
  command_list out;
  if (table.version <= version_)
    return out;
  version_ = table.version;
  for (auto& [key, model] : models_) {
    model.listed = false;
    model.replicas.clear();
  }
  for (auto& [incarnation, replica] : replicas_)
    replica.listed = false;
  for (auto& model : table.models) {
    model_key key{model.application, model.model};
    models_[key].listed = true;
    for (auto& replica : model.replicas)
      list_replica(replica, key, out);
  }
  drop_unlisted(out);
  std::vector<model_key> keys;
  for (auto& [key, model] : models_)
    keys.push_back(key);
  for (auto& key : keys) {
    auto& model = models_[key];
    if (model.listed) {
      pump(key, out);
      continue;
    }
    while (!model.waiting.empty())
      fail_request(model.waiting.front().key.request,
                   unavailable("The model was removed."), out);
    models_.erase(key);
  }
  return out;
}

command_list request_table::cancel_request(std::uint64_t request, time_point) {
  command_list out;
  auto known = requests_.find(request);
  if (known == requests_.end())
    return out;
  auto model = known->second.model;
  drop_request(request, out);
  pump(model, out);
  drop_unlisted(out);
  return out;
}

command_list request_table::cancel_choice(std::uint64_t request,
                                          std::uint32_t choice, time_point) {
  command_list out;
  auto* state = find({request, choice});
  if (state == nullptr || !state->open)
    return out;
  auto model = requests_[request].model;
  if (state->incarnation != 0)
    out.push_back(command::cancel{state->incarnation, state->record.id});
  close({request, choice}, out);
  pump(model, out);
  drop_unlisted(out);
  return out;
}

command_list request_table::tick(time_point now) {
  command_list out;
  expire_waiting(now, out);
  for (auto& [incarnation, replica] : replicas_) {
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
    pump(key, out);
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
  for (auto& [key, model] : models_)
    if (!model.waiting.empty())
      consider(model.waiting.front().since + limits_.wait_max);
  for (auto& [incarnation, replica] : replicas_)
    if (replica.phase == link_phase::pausing ||
        replica.phase == link_phase::resting)
      consider(replica.retry_at);
  return first;
}

std::size_t request_table::choices_waiting() const {
  std::size_t count = 0;
  for (auto& [key, model] : models_)
    count += model.waiting.size();
  return count;
}

std::size_t request_table::outstanding(std::uint64_t incarnation) const {
  auto replica = replicas_.find(incarnation);
  return replica == replicas_.end() ? 0 : replica->second.sent.size();
}

std::size_t request_table::waiting_max(const model_key& model) const {
  auto own = limits_.waiting_max_of.find(model);
  return own == limits_.waiting_max_of.end() ? limits_.waiting_max
                                             : own->second;
}

request_table::choice_state* request_table::find(choice_key key) {
  auto request = requests_.find(key.request);
  if (request == requests_.end() ||
      key.choice >= request->second.choices.size())
    return nullptr;
  return &request->second.choices[key.choice];
}

void request_table::enqueue(choice_key key, time_point since) {
  auto& waiting = models_[requests_[key.request].model].waiting;
  auto later = [](time_point when, const waiting_choice& other) {
    return when < other.since;
  };
  auto place = std::upper_bound(waiting.begin(), waiting.end(), since, later);
  waiting.insert(place, {since, key});
}

void request_table::pump(const model_key& key, command_list& out) {
  auto known = models_.find(key);
  if (known == models_.end())
    return;
  auto& model = known->second;
  std::vector<std::uint64_t> incarnations;
  std::vector<replica_snapshot> snapshots;
  while (!model.waiting.empty()) {
    incarnations.clear();
    snapshots.clear();
    for (auto incarnation : model.replicas) {
      auto& replica = replicas_[incarnation];
      if (replica.phase != link_phase::attached)
        continue;
      incarnations.push_back(incarnation);
      snapshots.push_back({static_cast<std::uint32_t>(replica.sent.size()),
                           replica.tokens,
                           replica.route->max_ongoing_requests});
    }
    auto pick = power_of_two(snapshots, random_());
    if (!pick)
      return;
    auto next = model.waiting.front().key;
    model.waiting.pop_front();
    send(next, incarnations[*pick], out);
  }
}

void request_table::send(choice_key key, std::uint64_t incarnation,
                         command_list& out) {
  auto& choice = *find(key);
  auto& replica = replicas_[incarnation];
  choice.record.id = ++last_id_;
  choice.incarnation = incarnation;
  choice.cost = expected_cost(choice.record);
  ++choice.attempts;
  replica.sent.insert(choice.record.id);
  replica.tokens += choice.cost;
  sent_[choice.record.id] = key;
  out.push_back(command::generate{incarnation, choice.record});
}

void request_table::take(choice_key key, protocol::choice_tokens news,
                         time_point now, replica_state& replica,
                         command_list& out) {
  using protocol::finish;
  auto& choice = *find(key);
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
  if (!choice.started) {
    choice.started = true;
    auto done =
        std::min<std::uint64_t>(choice.cost, choice.record.prompt.size());
    choice.cost -= done;
    replica.tokens -= done;
  }
  auto& output = choice.record.output;
  output.insert(output.end(), news.tokens.begin(), news.tokens.end());
  auto ends = news.reason != finish::none;
  out.push_back(command::deliver{key.request, key.choice, std::move(news),
                                 replica.route});
  if (ends)
    close(key, out);
}

// A replica that cannot serve now is left alone for a while, and the choice
// goes on elsewhere; any other error would meet the choice everywhere.
void request_table::refused(choice_key key, const error& why, time_point now,
                            replica_state& replica, command_list& out) {
  unlink(*find(key));
  if (why.code != errc::unavailable) {
    fail_request(key.request, why, out);
    return;
  }
  if (replica.phase == link_phase::attached) {
    replica.phase = link_phase::resting;
    replica.retry_at = now + limits_.rest;
  }
  give_back(key, why, out);
}

// What becomes of a choice, unlinked already, whose replica is gone.
void request_table::give_back(choice_key key, const error& why,
                              command_list& out) {
  auto* choice = find(key);
  if (choice == nullptr)
    return; // its request failed with another choice
  auto& request = requests_[key.request];
  if (choice->started || choice->attempts >= limits_.attempts_max ||
      models_.count(request.model) == 0)
    fail_request(key.request, why, out);
  else
    enqueue(key, request.since);
}

void request_table::unlink(choice_state& choice) {
  if (choice.incarnation == 0)
    return;
  auto& replica = replicas_[choice.incarnation];
  replica.sent.erase(choice.record.id);
  replica.tokens -= choice.cost;
  sent_.erase(choice.record.id);
  choice.incarnation = 0;
  choice.cost = 0;
}

void request_table::leave(choice_state& choice) {
  choice.open = false;
  --choices_;
  prompt_tokens_ -= choice.record.prompt.size();
  choice.record = {};
}

void request_table::close(choice_key key, command_list& out) {
  auto& request = requests_[key.request];
  auto& choice = request.choices[key.choice];
  if (choice.incarnation == 0) {
    auto same = [&](const waiting_choice& other) {
      return other.key.request == key.request && other.key.choice == key.choice;
    };
    std::erase_if(models_[request.model].waiting, same);
  }
  unlink(choice);
  leave(choice);
  if (--request.open != 0)
    return;
  requests_.erase(key.request);
  out.push_back(command::release{key.request});
}

void request_table::fail_request(std::uint64_t request, const error& why,
                                 command_list& out) {
  out.push_back(command::fail{request, why});
  drop_request(request, out);
}

void request_table::drop_request(std::uint64_t id, command_list& out) {
  auto& request = requests_[id];
  auto model = models_.find(request.model);
  if (model != models_.end())
    std::erase_if(model->second.waiting, [id](const waiting_choice& other) {
      return other.key.request == id;
    });
  for (auto& choice : request.choices) {
    if (!choice.open)
      continue;
    if (choice.incarnation != 0)
      out.push_back(command::cancel{choice.incarnation, choice.record.id});
    unlink(choice);
    leave(choice);
  }
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
    i = replicas_.erase(i);
  }
}

void request_table::link_down(std::uint64_t incarnation, time_point now,
                              command_list& out) {
  auto known = replicas_.find(incarnation);
  if (known == replicas_.end())
    return;
  auto& replica = known->second;
  replica.phase = link_phase::pausing;
  replica.pause = std::clamp(replica.pause * 2, limits_.attach_pause,
                             limits_.attach_pause_max);
  replica.retry_at = now + replica.pause;
  auto why = unavailable("The replica that served the request was lost.");
  std::vector<choice_key> orphans;
  for (auto id : replica.sent)
    orphans.push_back(sent_[id]);
  for (auto key : orphans)
    unlink(*find(key));
  for (auto key : orphans)
    give_back(key, why, out);
  pump(model_key{replica.model}, out);
  drop_unlisted(out);
}

void request_table::expire_waiting(time_point now, command_list& out) {
  for (auto& [key, model] : models_)
    while (!model.waiting.empty() &&
           model.waiting.front().since + limits_.wait_max <= now)
      fail_request(model.waiting.front().key.request,
                   unavailable("No replica of the model was free in time."),
                   out);
}

} // namespace troupe::router
