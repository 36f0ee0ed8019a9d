#include "actors/protocol/request_record.hpp"
#include "router/router_actor.hpp"
#include "tests/actors/deterministic.hpp"

#include <catch2/catch.hpp>

#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <spdlog/spdlog.h>

#include <optional>

using namespace troupe;
using namespace std::chrono_literals;
using protocol::finish;

namespace {

/// What a fake replica was asked.
struct replica_log {
  std::uint64_t incarnation = 0;
  bool silent = false; ///< never answers an attach
  std::uint32_t version = protocol::protocol_version;
  std::vector<protocol::request_record> asked;
  std::vector<std::uint64_t> cancelled;
  protocol::token_sink_actor sink;
  int sessions = 0;
};

protocol::replica_actor::behavior_type
fake_replica(protocol::replica_actor::pointer self,
             std::shared_ptr<replica_log> log) {
  return {
      [=](protocol::attach_atom, std::uint64_t, std::uint32_t,
          const protocol::token_sink_actor& sink)
          -> caf::typed_response_promise<std::uint64_t, std::uint32_t> {
        auto answer =
            self->make_response_promise<std::uint64_t, std::uint32_t>();
        ++log->sessions;
        log->sink = sink;
        if (!log->silent)
          answer.deliver(log->incarnation, log->version);
        return answer;
      },
      [=](protocol::generate_atom, std::uint64_t, const codec::bytes& bytes) {
        log->asked.push_back(
            *protocol::decode_request_record(bytes, log->version));
      },
      [=](protocol::cancel_atom, std::uint64_t, std::uint64_t id) {
        log->cancelled.push_back(id);
      },
      [](protocol::drain_atom, std::uint32_t) {},
      [](protocol::tune_atom, const codec::bytes&) {},
  };
}

struct sink_log : router::reply_sink {
  void
  on_tokens(std::uint32_t, protocol::choice_tokens news,
            std::shared_ptr<const protocol::replica_route> route) override {
    tokens.insert(tokens.end(), news.tokens.begin(), news.tokens.end());
    reason = news.reason;
    from = route->replica;
  }

  void on_failed(router::command::fail end) override {
    ++failures;
    failure = std::move(end.what);
    incident = std::move(end.incident);
  }

  std::vector<token_id> tokens;
  finish reason = finish::none;
  std::string from;
  int failures = 0;
  error failure;
  std::string incident;
};

struct fixture : test::deterministic {
  std::map<std::uint64_t, std::shared_ptr<replica_log>> logs;
  std::map<std::uint64_t, protocol::replica_actor> replicas;
  std::shared_ptr<router::dispatcher> inbox =
      std::make_shared<router::dispatcher>();
  std::shared_ptr<const protocol::routing_table> seen;
  std::shared_ptr<router::router_gauges> gauges =
      std::make_shared<router::router_gauges>();
  router::local_router_actor router;
  std::uint64_t version = 0;

  fixture() {
    spdlog::set_level(spdlog::level::off);
    router::router_arguments args;
    args.incarnation = 77;
    args.inbox = inbox;
    args.on_table = [this](auto table) { seen = table; };
    args.connect = [this](auto, const protocol::endpoint& where, auto,
                          auto done) {
      if (replicas.count(where.incarnation) != 0)
        done(replicas[where.incarnation]);
      else
        done(error{errc::unavailable, "nobody there"});
    };
    router = system.spawn(router::router_actor, args, gauges);
    settle();
  }

  ~fixture() {
    caf::anon_send_exit(router, caf::exit_reason::kill);
    for (auto& [incarnation, replica] : replicas)
      caf::anon_send_exit(replica, caf::exit_reason::kill);
    for (auto& [incarnation, log] : logs)
      log->sink = nullptr;
    settle();
  }

  replica_log& start(std::uint64_t incarnation) {
    auto log = std::make_shared<replica_log>();
    log->incarnation = incarnation;
    logs[incarnation] = log;
    replicas[incarnation] = system.spawn(fake_replica, log);
    return *log;
  }

  void list(std::vector<std::uint64_t> incarnations) {
    protocol::model_route model;
    model.application = "app";
    model.model = "m";
    model.status = "RUNNING";
    for (auto incarnation : incarnations) {
      protocol::replica_route route;
      route.replica = "m#" + std::to_string(incarnation);
      route.where = {"127.0.0.1", 1, 2, incarnation};
      model.replicas.push_back(route);
    }
    self->send(
        router, protocol::table_atom::value,
        protocol::encode(protocol::routing_table{++version, {model}, {}}));
    settle();
  }

  std::pair<std::uint64_t, std::shared_ptr<sink_log>> ask() {
    auto sink = std::make_shared<sink_log>();
    auto request = inbox->next_request();
    protocol::request_record record;
    record.model = "m";
    record.prompt = {1, 2, 3};
    inbox->submit({request, "app", "m", {}, {record}}, sink);
    settle();
    return {request, sink};
  }

  void end(std::uint64_t incarnation) {
    caf::anon_send_exit(replicas[incarnation], caf::exit_reason::kill);
    replicas.erase(incarnation);
    settle();
  }

  void give_notice(std::uint64_t incarnation, bool own_fault,
                   std::vector<std::uint64_t> running) {
    protocol::death_notice notice;
    notice.incarnation = incarnation;
    notice.own_fault = own_fault;
    for (auto id : running)
      notice.running.push_back({77, id});
    self->send(router, protocol::death_atom::value, protocol::encode(notice));
    settle();
  }

  void tell(replica_log& replica, std::uint64_t id,
            std::vector<token_id> tokens, finish reason = finish::none) {
    protocol::token_batch batch;
    batch.incarnation = replica.incarnation;
    protocol::choice_tokens choice;
    choice.id = id;
    choice.tokens = std::move(tokens);
    choice.reason = reason;
    batch.choices = {choice};
    self->send(replica.sink, protocol::tokens_atom::value,
               protocol::encode(batch));
    settle();
  }
};

} // namespace

TEST_CASE_METHOD(fixture, "the router attaches to the replicas of its table "
                          "and passes tokens on") {
  auto& replica = start(5);
  list({5});
  CHECK(replica.sessions == 1);
  REQUIRE(seen);
  CHECK(seen->version == 1);
  auto [request, sink] = ask();
  REQUIRE(replica.asked.size() == 1);
  CHECK(replica.asked[0].prompt == std::vector<token_id>{1, 2, 3});
  CHECK(gauges->choices_sent == 1);
  tell(replica, replica.asked[0].id, {10});
  tell(replica, replica.asked[0].id, {11}, finish::stop);
  CHECK(sink->tokens == std::vector<token_id>{10, 11});
  CHECK(sink->reason == finish::stop);
  CHECK(sink->from == "m#5");
  CHECK(gauges->choices_sent == 0);
  CHECK(sink.use_count() == 1);
}

TEST_CASE_METHOD(fixture, "a client that leaves is cancelled at the replica") {
  auto& replica = start(5);
  list({5});
  auto [request, sink] = ask();
  inbox->cancel_request(request);
  settle();
  CHECK(replica.cancelled == std::vector{replica.asked[0].id});
  CHECK(sink.use_count() == 1);
  tell(replica, replica.asked[0].id, {10});
  CHECK(sink->tokens.empty());
}

TEST_CASE_METHOD(fixture, "when a replica ends its choices go on at another, "
                          "with what they have") {
  start(5);
  list({5});
  auto [one, streaming] = ask();
  tell(*logs[5], logs[5]->asked[0].id, {10});
  auto [two, waiting] = ask();
  auto& other = start(6);
  list({5, 6});
  end(5);
  CHECK(other.asked.empty()); // until there is word of why
  advance(400ms);
  REQUIRE(other.asked.size() == 2);
  CHECK(other.asked[0].output == std::vector<token_id>{10});
  CHECK(other.asked[1].output.empty());
  tell(other, other.asked[0].id, {11}, finish::length);
  tell(other, other.asked[1].id, {4}, finish::length);
  CHECK(streaming->tokens == std::vector<token_id>{10, 11});
  CHECK(waiting->tokens == std::vector<token_id>{4});
  CHECK(gauges->streams_moved == 1);
}

TEST_CASE_METHOD(fixture, "a word on the death lets them go on at once") {
  start(5);
  list({5});
  auto [request, sink] = ask();
  auto& other = start(6);
  list({5, 6});
  end(5);
  give_notice(5, false, {});
  CHECK(other.asked.size() == 1);
}

TEST_CASE_METHOD(fixture, "a request that ends two replicas fails with an "
                          "incident, and so does the next of its kind") {
  for (auto incarnation : {5u, 6u})
    start(incarnation);
  list({5});
  auto [one, sink] = ask();
  list({5, 6});
  auto id = logs[5]->asked[0].id;
  end(5);
  give_notice(5, true, {id});
  REQUIRE(logs[6]->asked.size() == 1);
  CHECK(logs[6]->asked[0].alone);
  CHECK(gauges->streams_suspected == 1);
  id = logs[6]->asked[0].id;
  end(6);
  give_notice(6, true, {id});
  CHECK(sink->failures == 1);
  CHECK(sink->incident.size() == 16);
  auto [two, again] = ask();
  CHECK(again->failures == 1);
  CHECK(again->incident == sink->incident);
  CHECK(gauges->poison_requests == 1);
  CHECK(gauges->poison_requests_refused == 1);
}

TEST_CASE_METHOD(fixture, "a replica one protocol version behind is served in "
                          "its own, one two ahead is refused") {
  start(5).version = protocol::protocol_version - 1;
  start(6).version = protocol::protocol_version + 2;
  start(7);
  list({5, 6});
  auto [request, sink] = ask();
  CHECK(logs[6]->sessions >= 1);
  CHECK(logs[6]->asked.empty());
  REQUIRE(logs[5]->asked.size() == 1); // decoded as of its version
  tell(*logs[5], logs[5]->asked[0].id, {10});
  list({5, 7});
  auto id = logs[5]->asked[0].id;
  end(5);
  give_notice(5, true, {id});
  REQUIRE(logs[7]->asked.size() == 1);
  CHECK(logs[7]->asked[0].alone);
  start(8).version = protocol::protocol_version - 1;
  list({8});
  end(7);
  give_notice(7, false, {});
  REQUIRE(logs[8]->asked.size() == 1);
  CHECK(logs[8]->asked[0].alone); // a field that both versions have
  tell(*logs[8], logs[8]->asked[0].id, {11}, finish::length);
  CHECK(sink->tokens == std::vector<token_id>{10, 11});
}

TEST_CASE_METHOD(fixture, "a lost replica is attached to again after a pause, "
                          "and what waits for it goes on") {
  start(5);
  list({5});
  caf::anon_send_exit(replicas[5], caf::exit_reason::kill);
  replicas.erase(5);
  settle();
  auto [request, sink] = ask();
  auto& again = start(5);
  settle();
  CHECK(again.sessions == 0);
  advance(200ms);
  CHECK(again.sessions == 1);
  CHECK(again.asked.size() == 1);
  CHECK(sink->failures == 0);
}

TEST_CASE_METHOD(fixture, "a replica that has no session any more is attached "
                          "to again") {
  auto& replica = start(5);
  list({5});
  auto [one, sink] = ask();
  tell(replica, replica.asked[0].id, {10});
  auto say_so = [&](std::uint64_t id) {
    protocol::token_batch batch;
    batch.incarnation = 5;
    batch.choices.resize(1);
    batch.choices[0].id = id;
    batch.no_session = true;
    self->send(replica.sink, protocol::tokens_atom::value,
               protocol::encode(batch));
    settle();
    advance(400ms);
  };
  say_so(replica.asked[0].id + 100); // of a session before
  CHECK(replica.sessions == 1);
  CHECK(replica.asked.size() == 1);
  say_so(replica.asked[0].id);
  CHECK(replica.sessions == 2);
  REQUIRE(replica.asked.size() == 2);
  CHECK(replica.asked[1].output == std::vector<token_id>{10});
  tell(replica, replica.asked[1].id, {11}, finish::length);
  CHECK(sink->tokens == std::vector<token_id>{10, 11});
}

TEST_CASE_METHOD(fixture, "a replica whose news cannot be read is attached to "
                          "again") {
  auto& replica = start(5);
  list({5});
  auto [one, sink] = ask();
  codec::writer newer;
  newer.put(2, std::uint64_t{5});
  newer.put(999, true);
  caf::send_as(replicas[5], replica.sink, protocol::tokens_atom::value,
               newer.take());
  settle();
  advance(400ms);
  CHECK(replica.sessions == 2);
  CHECK(replica.asked.size() == 2);
}

TEST_CASE_METHOD(fixture, "what no replica takes fails after the limit") {
  list({});
  auto [request, sink] = ask();
  advance(29s);
  CHECK(sink->failures == 0);
  advance(2s);
  CHECK(sink->failures == 1);
  CHECK(sink.use_count() == 1);
}

TEST_CASE_METHOD(fixture, "a replica that never answers the attach is tried "
                          "again, not waited for") {
  start(5).silent = true;
  list({5});
  advance(5s);
  advance(1s);
  CHECK(logs[5]->sessions >= 2);
}

TEST_CASE_METHOD(fixture, "another process at a replica's port gets no "
                          "session") {
  auto& other = start(5);
  other.incarnation = 6;
  list({5});
  auto [request, sink] = ask();
  CHECK(other.sessions >= 1);
  CHECK(other.asked.empty());
}

TEST_CASE_METHOD(fixture, "closing the dispatcher ends all that is under way "
                          "and refuses the rest") {
  auto& replica = start(5);
  list({5});
  auto [one, before] = ask();
  inbox->close({errc::unavailable, "Shutting down."});
  settle();
  CHECK(before->failures == 1);
  CHECK(replica.cancelled.size() == 1);
  auto [two, after] = ask();
  CHECK(after->failures == 1);
}

TEST_CASE_METHOD(fixture,
                 "when the router dies its waiting requests are told") {
  list({});
  auto [request, sink] = ask();
  caf::anon_send_exit(router, caf::exit_reason::kill);
  settle();
  CHECK(sink->failures == 1);
}

TEST_CASE_METHOD(fixture, "broken bytes from a peer change nothing") {
  auto& replica = start(5);
  list({5});
  auto [request, sink] = ask();
  self->send(replica.sink, protocol::tokens_atom::value, codec::bytes{1, 2, 3});
  self->send(router, protocol::table_atom::value, codec::bytes{9});
  self->send(router, protocol::death_atom::value, codec::bytes{7, 7});
  settle();
  tell(replica, replica.asked[0].id, {10}, finish::length);
  CHECK(sink->tokens == std::vector<token_id>{10});
}

TEST_CASE_METHOD(fixture, "whoever watches hears what is held, when it changes "
                          "and from time to time") {
  std::vector<protocol::router_report> heard;
  auto watcher = system.spawn([&](protocol::load_sink_actor::pointer)
                                  -> protocol::load_sink_actor::behavior_type {
    return {[&](protocol::load_atom, const codec::bytes& report) {
      heard.push_back(*protocol::decode_router_report(report));
    }};
  });
  self->send(router, protocol::watch_atom::value, watcher);
  settle();
  REQUIRE(heard.size() == 1);
  CHECK(heard[0].incarnation == 77);
  CHECK(heard[0].models.empty());
  auto& replica = start(5);
  list({});
  ask();
  advance(100ms);
  REQUIRE(heard.size() == 2);
  CHECK(heard[1].sequence > heard[0].sequence);
  REQUIRE(heard[1].models.size() == 1);
  CHECK(heard[1].models[0].model == "m");
  CHECK(heard[1].models[0].waiting == 1);
  CHECK(heard[1].models[0].sent == 0);
  CHECK(heard[1].models[0].oldest_ms == 100);
  list({5});
  REQUIRE(replica.asked.size() == 1);
  advance(100ms);
  REQUIRE(heard.size() == 3);
  CHECK(heard[2].models ==
        std::vector<protocol::router_load>{{"app", "m", 0, 1}});
  advance(100ms);
  CHECK(heard.size() == 3); // nothing changed
  for (int i = 0; i < 10; ++i)
    advance(100ms);
  CHECK(heard.size() == 4); // it could have been lost
  CHECK(heard[3].models == heard[2].models);
  tell(replica, replica.asked[0].id, {1}, finish::length);
  advance(100ms);
  REQUIRE(heard.size() == 5);
  CHECK(heard[4].models.empty());
  caf::anon_send_exit(watcher, caf::exit_reason::kill);
}
