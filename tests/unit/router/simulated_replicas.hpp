#pragma once

#include "router/request_table.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

/// A request table with replicas around it that compute the one right answer:
/// each token is a function of the record alone. Time stands still unless
/// moved.
namespace troupe::test {

using namespace std::chrono_literals;

class simulated_replicas {
public:
  using choice_name = std::pair<std::uint64_t, std::uint32_t>;
  using members = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

  static constexpr std::uint64_t router = 4711;

  /// A choice that is alone is so for one token here.
  static router::table_limits one_token_trials() {
    router::table_limits out;
    out.trial_tokens = 1;
    return out;
  }

  explicit simulated_replicas(router::table_limits limits = one_token_trials())
      : table(limits, 42, router) {
    // nop
  }

  router::request_table table;
  router::time_point now{1'000'000s};
  bool exact = false;                  ///< router_settings::failover_exact
  std::uint32_t choices_at_once = 0;   ///< that each replica tells
  std::uint32_t queue_max = 0;         ///< 0: as the router has it
  std::uint32_t waiting_in_engine = 0; ///< likewise, with its steps

  std::size_t refused = 0;
  std::map<std::uint64_t, std::uint32_t> retry_after; ///< of failed requests
  std::map<choice_name, std::vector<token_id>> given;
  std::map<choice_name, protocol::finish> ended;
  std::map<choice_name, std::vector<std::string>> classes;  ///< token by token
  std::map<choice_name, std::vector<std::uint32_t>> cached; ///< news by news
  std::map<std::uint64_t, error> failed;
  std::map<std::uint64_t, std::string> incidents;
  std::set<std::uint64_t> released;
  std::uint64_t poison = 0;  ///< its request ends the replica that computes it
  std::uint64_t deaths = 0;  ///< by poison
  std::size_t alone_max = 0; ///< choices alone at replicas at one time, most

  /// What an undisturbed replica gives.
  static token_id token(const protocol::request_record& record,
                        std::size_t position) {
    auto x = record.params.seed * 1'000'003u + record.params.choice * 7'919u +
             position * 104'729u + record.prompt.size();
    for (auto id : record.prompt)
      x = x * 31 + static_cast<std::uint64_t>(id);
    return static_cast<token_id>((x ^ (x >> 17)) % 50'000);
  }

  static std::vector<token_id> whole(const protocol::request_record& record) {
    std::vector<token_id> out;
    while (out.size() < record.params.max_tokens)
      out.push_back(token(record, out.size()));
    return out;
  }

  static router::submission ask(std::uint64_t request, std::uint32_t tokens,
                                std::uint32_t choices = 1) {
    router::submission what{request, "app", "m", {}, {}};
    for (std::uint32_t i = 0; i < choices; ++i) {
      protocol::request_record record;
      record.request_id = "r" + std::to_string(request);
      record.model = "m";
      record.prompt = {1, 2, static_cast<token_id>(request)};
      record.params.choice = i;
      record.params.seed = request;
      record.params.max_tokens = tokens;
      what.choices.push_back(record);
    }
    return what;
  }

  void start(std::uint64_t incarnation, std::string arithmetic_class = "A",
             std::uint32_t ongoing_max = 0, std::string card = "") {
    auto& fresh = replicas_[incarnation];
    fresh.arithmetic_class = std::move(arithmetic_class);
    fresh.ongoing_max = ongoing_max;
    fresh.card = std::move(card);
    publish();
  }

  void list(std::uint64_t incarnation, bool listed) {
    replicas_.at(incarnation).listed = listed;
    publish();
  }

  void publish() {
    protocol::model_route model;
    model.application = "app";
    model.model = "m";
    model.max_queued_requests = queue_max;
    for (auto& [incarnation, one] : replicas_) {
      if (!one.listed)
        continue;
      protocol::replica_route route;
      route.replica = "m#" + std::to_string(incarnation);
      route.where = {"127.0.0.1", 1, 2, incarnation};
      route.arithmetic_class = one.arithmetic_class;
      route.card_hash = one.card;
      route.max_ongoing_requests = one.ongoing_max;
      route.choices_at_once = choices_at_once;
      model.replicas.push_back(route);
    }
    protocol::routing_table routes{++version_, {model}, {}};
    routes.settings.failover_exact = exact;
    obey(table.route_by(routes, now));
  }

  void submit(router::submission what) {
    obey(table.submit(std::move(what), now));
  }

  /// One token for each choice at this replica; one that is alone, alone.
  void step(std::uint64_t incarnation) {
    auto& replica = replicas_.at(incarnation);
    auto chosen = next_step(replica);
    protocol::token_batch batch;
    batch.incarnation = incarnation;
    batch.waiting = waiting_in_engine;
    for (auto id : chosen) {
      auto& record = replica.running.at(id);
      if (poison != 0 && is_poison(record)) {
        die_of(incarnation, chosen);
        return;
      }
      protocol::choice_tokens news;
      news.id = id;
      news.cached_tokens = replica.told.insert(id).second ? 2 : 0;
      news.tokens = {token(record, record.output.size())};
      record.output.push_back(news.tokens[0]);
      if (record.output.size() >= record.params.max_tokens)
        news.reason = protocol::finish::length;
      batch.choices.push_back(news);
    }
    for (auto& one : batch.choices)
      if (one.reason != protocol::finish::none)
        replica.running.erase(one.id);
    obey(table.tokens(std::move(batch), now));
  }

  /// Every replica refuses what it has, as one that cannot serve.
  void refuse_all() {
    for (auto& [incarnation, replica] : replicas_) {
      protocol::token_batch batch;
      batch.incarnation = incarnation;
      for (auto& [id, record] : replica.running) {
        protocol::choice_tokens news;
        news.id = id;
        news.reason = protocol::finish::error;
        news.code = errc::unavailable;
        batch.choices.push_back(news);
      }
      replica.running.clear();
      refused += batch.choices.size();
      obey(table.tokens(std::move(batch), now));
    }
  }

  void step_all() {
    std::vector<std::uint64_t> all;
    for (auto& [incarnation, replica] : replicas_)
      if (replica.session)
        all.push_back(incarnation);
    for (auto incarnation : all)
      if (replicas_.count(incarnation) != 0)
        step(incarnation);
  }

  /// The session breaks; the process, its choices and its place in the table
  /// stay.
  void cut(std::uint64_t incarnation) {
    replicas_.at(incarnation).session = false;
    obey(table.lost(incarnation, now));
  }

  /// The process is gone, and with it its place in the table.
  void kill(std::uint64_t incarnation) {
    replicas_.erase(incarnation);
    obey(table.lost(incarnation, now));
    publish();
  }

  void notice(std::uint64_t incarnation, bool own_fault = false,
              members running = {}) {
    protocol::death_notice what;
    what.replica = "m#" + std::to_string(incarnation);
    what.incarnation = incarnation;
    what.own_fault = own_fault;
    what.running = std::move(running);
    what.reason = own_fault ? "killed by SIGSEGV" : "killed by SIGKILL";
    obey(table.death(what, now));
  }

  void advance(std::chrono::milliseconds by) {
    now += by;
    obey(table.tick(now));
  }

  /// The replica has ended a choice by itself.
  void drop(std::uint64_t incarnation, std::uint64_t id) {
    replicas_.at(incarnation).running.erase(id);
  }

  /// Record ids at a replica, as its journal would have them.
  members running(std::uint64_t incarnation) const {
    members out;
    for (auto& [id, record] : replicas_.at(incarnation).running)
      out.push_back({router, id});
    return out;
  }

  const std::map<std::uint64_t, protocol::request_record>&
  records(std::uint64_t incarnation) const {
    return replicas_.at(incarnation).running;
  }

  /// The replica that has the choice; 0 = none.
  std::uint64_t home(std::uint64_t request, std::uint32_t choice = 0) const {
    for (auto& [incarnation, replica] : replicas_)
      for (auto& [id, record] : replica.running)
        if (replica.session &&
            record.request_id == "r" + std::to_string(request) &&
            record.params.choice == choice)
          return incarnation;
    return 0;
  }

  bool whole(std::uint64_t request, std::uint32_t tokens,
             std::uint32_t choices = 1) const {
    auto asked = ask(request, tokens, choices);
    for (std::uint32_t i = 0; i < choices; ++i) {
      auto found = given.find({request, i});
      if (found == given.end() || found->second != whole(asked.choices[i]) ||
          ended.count({request, i}) == 0)
        return false;
    }
    return released.count(request) != 0 && failed.count(request) == 0;
  }

  void obey(const router::command_list& commands) {
    for (auto& one : commands)
      std::visit([this](auto& what) { take(what); }, one);
  }

  /// How the death of a poisoned replica becomes known.
  enum class word { after, before, never } poison_word = word::after;

private:
  struct replica {
    std::string arithmetic_class;
    std::string card;
    std::uint32_t ongoing_max = 0;
    bool listed = true;
    bool session = false;
    std::map<std::uint64_t, protocol::request_record> running; // by record id
    std::set<std::uint64_t> told; // that had their first news
  };

  bool is_poison(const protocol::request_record& record) const {
    return record.request_id == "r" + std::to_string(poison);
  }

  static std::vector<std::uint64_t> next_step(const replica& from) {
    std::vector<std::uint64_t> together;
    for (auto& [id, record] : from.running) {
      if (record.alone && from.told.count(id) == 0)
        return {id};
      together.push_back(id);
    }
    return together;
  }

  void die_of(std::uint64_t incarnation, const std::vector<std::uint64_t>& at) {
    ++deaths;
    members running;
    for (auto id : at)
      running.push_back({router, id});
    auto arithmetic_class = replicas_.at(incarnation).arithmetic_class;
    if (poison_word == word::before)
      notice(incarnation, true, running);
    kill(incarnation);
    start(incarnation + 1000, arithmetic_class);
    if (poison_word == word::after)
      notice(incarnation, true, running);
  }

  void take(const router::command::attach& what) {
    auto known = replicas_.find(what.where.incarnation);
    if (known == replicas_.end()) {
      obey(table.attach_failed(what.where.incarnation, now));
      return;
    }
    // A new session ends what the old one had.
    known->second.running.clear();
    known->second.session = true;
    obey(table.attached(what.where.incarnation, now));
  }

  void take(const router::command::detach& what) {
    auto known = replicas_.find(what.incarnation);
    if (known != replicas_.end()) {
      REQUIRE(known->second.running.empty());
      known->second.session = false;
    }
  }

  void take(const router::command::generate& what) {
    auto& replica = replicas_.at(what.incarnation);
    REQUIRE(replica.session);
    REQUIRE(ids_.insert(what.record.id).second);
    replica.running[what.record.id] = what.record;
    if (what.record.alone)
      note_alone();
  }

  void note_alone() {
    std::size_t count = 0;
    for (auto& [incarnation, replica] : replicas_)
      for (auto& [id, record] : replica.running)
        count += record.alone && replica.told.count(id) == 0;
    alone_max = std::max(alone_max, count);
  }

  void take(const router::command::cancel& what) {
    auto known = replicas_.find(what.incarnation);
    if (known != replicas_.end())
      known->second.running.erase(what.id);
  }

  void take(const router::command::deliver& what) {
    choice_name name{what.request, what.choice};
    REQUIRE(released.count(what.request) == 0);
    REQUIRE(ended.count(name) == 0);
    auto& so_far = given[name];
    so_far.insert(so_far.end(), what.news.tokens.begin(),
                  what.news.tokens.end());
    for (std::size_t i = 0; i < what.news.tokens.size(); ++i)
      classes[name].push_back(what.from->arithmetic_class);
    cached[name].push_back(what.news.cached_tokens);
    if (what.news.reason != protocol::finish::none)
      ended[name] = what.news.reason;
  }

  void take(const router::command::fail& what) {
    REQUIRE(failed.emplace(what.request, what.what).second);
    if (!what.incident.empty())
      incidents[what.request] = what.incident;
    retry_after[what.request] = what.retry_after_s;
  }

  void take(const router::command::moved&) {
  }

  void take(const router::command::suspected&) {
  }

  void take(const router::command::convicted&) {
  }

  void take(const router::command::follow_blocks&) {
  }

  void take(const router::command::measured_hits&) {
  }

  void take(const router::command::release& what) {
    REQUIRE(released.insert(what.request).second);
  }

  std::map<std::uint64_t, replica> replicas_;
  std::set<std::uint64_t> ids_;
  std::uint64_t version_ = 0;
};

} // namespace troupe::test
