#include "router/request_table.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <map>
#include <random>
#include <set>

using namespace troupe;
using namespace troupe::router;
using namespace std::chrono_literals;
using protocol::finish;

namespace {

const time_point start{1'000'000s};

protocol::replica_route replica(std::uint64_t incarnation,
                                std::uint32_t ongoing_max = 0) {
  protocol::replica_route route;
  route.replica = "m#" + std::to_string(incarnation);
  route.where = {"127.0.0.1", 1, 2, incarnation};
  route.max_ongoing_requests = ongoing_max;
  route.version = protocol::protocol_version;
  return route;
}

protocol::routing_table
table_of(std::uint64_t version, std::vector<protocol::replica_route> replicas) {
  protocol::model_route model;
  model.application = "app";
  model.model = "m";
  model.status = "RUNNING";
  model.replicas = std::move(replicas);
  return {version, {model}, {}};
}

submission ask(std::uint64_t request, std::size_t choices = 1) {
  submission what{request, "app", "m", {}, {}};
  for (std::uint32_t i = 0; i < choices; ++i) {
    protocol::request_record record;
    record.prompt = {1, 2, 3};
    record.params.choice = i;
    what.choices.push_back(record);
  }
  return what;
}

protocol::token_batch news(std::uint64_t incarnation, std::uint64_t id,
                           std::vector<token_id> tokens,
                           finish reason = finish::none,
                           errc code = errc::internal) {
  protocol::token_batch batch;
  batch.incarnation = incarnation;
  protocol::choice_tokens choice;
  choice.id = id;
  choice.tokens = std::move(tokens);
  choice.reason = reason;
  choice.code = code;
  batch.choices = {choice};
  return batch;
}

template <class T>
std::vector<T> all(const command_list& commands) {
  std::vector<T> found;
  for (auto& one : commands)
    if (auto* match = std::get_if<T>(&one))
      found.push_back(*match);
  return found;
}

/// A table with attached replicas.
struct fixture {
  request_table table{limits(), 42, 4711};
  time_point now = start;
  std::uint64_t version = 0;

  static table_limits limits() {
    table_limits some;
    some.choices_max = 20;
    some.waiting_max = 4;
    some.prompt_tokens_max = 1000;
    return some;
  }

  command_list list(std::vector<protocol::replica_route> replicas) {
    auto out = table.route_by(table_of(++version, std::move(replicas)), now);
    for (auto& attach : all<command::attach>(out))
      for (auto& more : table.attached(attach.where.incarnation, now))
        out.push_back(more);
    return out;
  }
};

} // namespace

TEST_CASE_METHOD(fixture, "a choice goes to the replica and back, and ends") {
  list({replica(7)});
  auto sent = all<command::generate>(table.submit(ask(1), now));
  REQUIRE(sent.size() == 1);
  CHECK(sent[0].incarnation == 7);
  CHECK(sent[0].record.prompt == std::vector<token_id>{1, 2, 3});
  auto id = sent[0].record.id;
  auto first = table.tokens(news(7, id, {5}), now);
  REQUIRE(all<command::deliver>(first).size() == 1);
  CHECK(all<command::deliver>(first)[0].request == 1);
  CHECK(all<command::deliver>(first)[0].from->replica == "m#7");
  CHECK(all<command::release>(first).empty());
  auto last = table.tokens(news(7, id, {6}, finish::length), now);
  CHECK(all<command::deliver>(last)[0].news.tokens == std::vector<token_id>{6});
  CHECK(all<command::release>(last).size() == 1);
  CHECK(table.requests() == 0);
  CHECK(table.outstanding(7) == 0);
}

TEST_CASE_METHOD(fixture,
                 "batches of unknown choices and of other incarnations "
                 "are dropped") {
  list({replica(7), replica(8)});
  auto sent = all<command::generate>(table.submit(ask(1), now))[0];
  auto other = sent.incarnation == 7 ? 8u : 7u;
  CHECK(table.tokens(news(other, sent.record.id, {5}), now).empty());
  CHECK(table.tokens(news(99, sent.record.id, {5}), now).empty());
  CHECK(table.tokens(news(sent.incarnation, 12345, {5}), now).empty());
  CHECK(table.requests() == 1);
}

TEST_CASE_METHOD(fixture, "a choice without a token moves to another replica "
                          "under a new id when its own is lost") {
  list({replica(7), replica(8)});
  auto sent = all<command::generate>(table.submit(ask(1), now))[0];
  auto other = sent.incarnation == 7 ? 8u : 7u;
  CHECK(table.lost(sent.incarnation, now).empty()); // until there is word
  auto moved = all<command::generate>(table.tick(now + 300ms));
  REQUIRE(moved.size() == 1);
  CHECK(moved[0].incarnation == other);
  CHECK(moved[0].record.id != sent.record.id);
  CHECK(table.tokens(news(sent.incarnation, sent.record.id, {5}), now).empty());
}

TEST_CASE_METHOD(fixture, "a choice without a token waits for its replica to "
                          "come back when there is no other") {
  list({replica(7)});
  table.submit(ask(1), now);
  CHECK(all<command::fail>(table.lost(7, now)).empty());
  CHECK(table.choices_waiting() == 1);
  REQUIRE(table.next_deadline().has_value());
  now = *table.next_deadline();
  auto again = all<command::attach>(table.tick(now));
  REQUIRE(again.size() == 1);
  CHECK(all<command::generate>(table.attached(7, now)).empty());
  now += 300ms;
  CHECK(all<command::generate>(table.tick(now)).size() == 1);
  CHECK(table.choices_waiting() == 0);
}

TEST_CASE_METHOD(fixture, "max_ongoing_requests is honoured and the oldest "
                          "waiting choice goes next") {
  list({replica(7, 1)});
  auto first = all<command::generate>(table.submit(ask(1), now));
  REQUIRE(first.size() == 1);
  CHECK(all<command::generate>(table.submit(ask(2), now)).empty());
  CHECK(all<command::generate>(table.submit(ask(3), now)).empty());
  auto end = table.tokens(news(7, first[0].record.id, {5}, finish::stop), now);
  REQUIRE(all<command::generate>(end).size() == 1);
  CHECK(table.choices_waiting() == 1);
  auto second = all<command::generate>(end)[0].record.id;
  auto answer = table.tokens(news(7, second, {5}), now);
  CHECK(all<command::deliver>(answer)[0].request == 2);
}

TEST_CASE_METHOD(fixture, "a full queue refuses at once and a full table too") {
  list({replica(7, 1)});
  for (std::uint64_t i = 1; i <= 5; ++i)
    CHECK(all<command::fail>(table.submit(ask(i), now)).empty());
  auto over = table.submit(ask(6), now);
  REQUIRE(all<command::fail>(over).size() == 1);
  CHECK(all<command::fail>(over)[0].what.code == errc::limit);
  CHECK(all<command::release>(over).size() == 1);
  CHECK(table.requests() == 5);
  CHECK(all<command::fail>(table.submit(ask(7, 16), now)).size() == 1);
  CHECK(table.requests() == 5);
}

TEST_CASE_METHOD(fixture, "prompt tokens in flight are bounded, whoever holds "
                          "them") {
  list({replica(7)});
  auto many = ask(1, 3);
  many.choices[0].prompt.assign(900, 1);
  CHECK(all<command::fail>(table.submit(many, now)).empty());
  auto more = ask(2);
  more.choices[0].prompt.assign(200, 1);
  CHECK(all<command::fail>(table.submit(more, now))[0].what.code ==
        errc::limit);
  table.cancel_choice(1, 0, now);
  CHECK(all<command::fail>(table.submit(more, now)).empty());
}

TEST_CASE_METHOD(fixture, "a model may have a queue of its own length, and "
                          "lose it again") {
  auto routes = table_of(1, {});
  routes.models[0].max_queued_requests = 1;
  table.route_by(routes, now);
  CHECK(all<command::fail>(table.submit(ask(1), now)).empty());
  CHECK(all<command::fail>(table.submit(ask(2), now)).size() == 1);
  table.route_by(table_of(2, {}), now);
  CHECK(all<command::fail>(table.submit(ask(3), now)).empty());
}

TEST_CASE_METHOD(fixture, "the last place of a queue, however short, is for "
                          "who has none") {
  auto refused = [&](const std::string& tenant, std::uint64_t request) {
    auto what = ask(request);
    what.tenant = tenant;
    return !all<command::fail>(table.submit(what, now)).empty();
  };
  auto routes = table_of(1, {});
  routes.models[0].max_queued_requests = 3;
  table.route_by(routes, now);
  CHECK_FALSE(refused("loud", 1));
  CHECK_FALSE(refused("loud", 2));
  CHECK(refused("loud", 3));
  CHECK_FALSE(refused("quiet", 4));
  CHECK(refused("another", 5));
  routes = table_of(2, {});
  routes.models[0].max_queued_requests = 1;
  table.route_by(routes, now);
  table.cancel_request(1, now);
  table.cancel_request(2, now);
  table.cancel_request(4, now);
  CHECK_FALSE(refused("loud", 6)); // there is no other place
}

TEST_CASE_METHOD(fixture, "waiting ends after the limit, with an error") {
  list({});
  table.submit(ask(1), now);
  CHECK(table.next_deadline() == now + 30s);
  CHECK(table.tick(now + 29s).empty());
  auto end = table.tick(now + 30s);
  REQUIRE(all<command::fail>(end).size() == 1);
  CHECK(all<command::fail>(end)[0].what.code == errc::unavailable);
  CHECK(!table.next_deadline());
}

TEST_CASE_METHOD(fixture, "a replica that refuses as unavailable rests while "
                          "the choice goes on elsewhere") {
  list({replica(7), replica(8)});
  auto sent = all<command::generate>(table.submit(ask(1), now))[0];
  auto moved = all<command::generate>(
      table.tokens(news(sent.incarnation, sent.record.id, {}, finish::error,
                        errc::unavailable),
                   now));
  REQUIRE(moved.size() == 1);
  CHECK(moved[0].incarnation != sent.incarnation);
  for (std::uint64_t i = 2; i < 8; ++i)
    CHECK(all<command::generate>(table.submit(ask(i), now))[0].incarnation ==
          moved[0].incarnation);
  table.tick(now + 1s);
  CHECK(all<command::generate>(table.submit(ask(9), now))[0].incarnation ==
        sent.incarnation);
}

TEST_CASE_METHOD(fixture, "another error of a replica fails the request with "
                          "its words") {
  list({replica(7)});
  auto sent = all<command::generate>(table.submit(ask(1), now))[0];
  auto batch = news(7, sent.record.id, {}, finish::error, errc::unsupported);
  batch.choices[0].message = "No.";
  auto end = table.tokens(batch, now);
  REQUIRE(all<command::fail>(end).size() == 1);
  CHECK(all<command::fail>(end)[0].what.message == "No.");
  CHECK(all<command::fail>(end)[0].what.code == errc::unsupported);
  CHECK(all<command::cancel>(end).empty());
}

TEST_CASE_METHOD(fixture, "a client that leaves cancels all choices silently") {
  list({replica(7, 1)});
  table.submit(ask(1, 3), now);
  auto end = table.cancel_request(1, now);
  CHECK(all<command::cancel>(end).size() == 1);
  CHECK(all<command::fail>(end).empty());
  CHECK(all<command::release>(end).size() == 1);
  CHECK(table.choices_waiting() == 0);
  CHECK(table.cancel_request(1, now).empty());
}

TEST_CASE_METHOD(fixture, "a cancelled choice leaves the others alone") {
  list({replica(7)});
  auto sent = all<command::generate>(table.submit(ask(1, 2), now));
  auto one = table.cancel_choice(1, 0, now);
  REQUIRE(all<command::cancel>(one).size() == 1);
  CHECK(all<command::cancel>(one)[0].id == sent[0].record.id);
  CHECK(all<command::release>(one).empty());
  CHECK(table.cancel_choice(1, 0, now).empty());
  auto end = table.tokens(news(7, sent[1].record.id, {4}, finish::stop), now);
  CHECK(all<command::release>(end).size() == 1);
}

TEST_CASE_METHOD(fixture, "a replica that left the table finishes its choices "
                          "and gets no new ones") {
  list({replica(7)});
  auto sent = all<command::generate>(table.submit(ask(1), now))[0];
  CHECK(all<command::detach>(list({replica(8)})).empty());
  CHECK(all<command::generate>(table.submit(ask(2), now))[0].incarnation == 8);
  auto end = table.tokens(news(7, sent.record.id, {5}, finish::stop), now);
  CHECK(all<command::deliver>(end).size() == 1);
  REQUIRE(all<command::detach>(end).size() == 1);
  CHECK(all<command::detach>(end)[0].incarnation == 7);
}

TEST_CASE_METHOD(fixture, "an older routing table is ignored") {
  list({replica(7)});
  CHECK(table.route_by(table_of(1, {}), now).empty());
  CHECK(all<command::generate>(table.submit(ask(1), now)).size() == 1);
}

TEST_CASE_METHOD(fixture, "a model that leaves the table fails what waits for "
                          "it, and a later loss fails what it still runs") {
  list({replica(7, 1)});
  table.submit(ask(1), now);
  table.submit(ask(2), now);
  auto gone = table.route_by({++version, {}, {}}, now);
  REQUIRE(all<command::fail>(gone).size() == 1);
  CHECK(all<command::fail>(gone)[0].request == 2);
  CHECK(all<command::fail>(table.submit(ask(3), now))[0].what.code ==
        errc::not_found);
  table.lost(7, now);
  CHECK(all<command::fail>(table.tick(now + 300ms))[0].request == 1);
  CHECK(table.requests() == 0);
}

TEST_CASE_METHOD(fixture, "a session that opens after its replica left the "
                          "table is closed") {
  auto out = table.route_by(table_of(++version, {replica(7)}), now);
  CHECK(all<command::attach>(out).size() == 1);
  table.route_by(table_of(++version, {}), now);
  CHECK(all<command::detach>(table.attached(7, now)).size() == 1);
}

namespace {

/// Throws events at a table and keeps the books on every request.
struct storm {
  request_table table;
  std::mt19937_64 random;
  time_point now = start;
  std::uint64_t version = 0;
  std::uint64_t requests = 0;

  struct book {
    std::set<std::uint32_t> open; // choices without an end
    bool failed = false;
    bool cancelled = false;
    bool released = false;
    std::map<std::uint32_t, std::size_t> given; // tokens by choice
  };
  std::map<std::uint64_t, book> books;
  std::map<std::uint64_t, std::uint64_t> live; // record id -> incarnation
  std::map<std::uint64_t, protocol::request_record> records; // by id, all
  std::set<std::uint64_t> connecting;
  std::set<std::uint64_t> sessions;
  std::map<std::uint64_t, std::uint32_t> ongoing_max;
  protocol::choice_policy policy = protocol::choice_policy::power_of_two;

  explicit storm(std::uint64_t seed)
      : table(fixture::limits(), seed, 4711), random(seed) {
    // nop
  }

  std::uint64_t draw(std::uint64_t below) {
    return random() % below;
  }

  void apply(const command_list& commands) {
    for (auto& one : commands)
      std::visit([this](auto& what) { take(what); }, one);
    std::map<std::uint64_t, std::uint32_t> load;
    for (auto& [id, incarnation] : live)
      ++load[incarnation];
    for (auto [incarnation, count] : load) {
      REQUIRE(table.outstanding(incarnation) == count);
      auto bound = ongoing_max[incarnation];
      REQUIRE((bound == 0 || count <= bound));
    }
    REQUIRE(table.choices_sent() == live.size());
  }

  void take(const command::attach& what) {
    connecting.insert(what.where.incarnation);
  }

  void take(const command::detach& what) {
    sessions.erase(what.incarnation);
    for (auto& [id, incarnation] : live)
      REQUIRE(incarnation != what.incarnation);
  }

  void take(const command::generate& what) {
    REQUIRE(sessions.count(what.incarnation) == 1);
    REQUIRE(live.emplace(what.record.id, what.incarnation).second);
    REQUIRE(records.emplace(what.record.id, what.record).second);
  }

  void take(const command::moved&) {
  }

  void take(const command::suspected&) {
  }

  void take(const command::convicted&) {
  }

  void take(const command::follow_blocks& what) {
    REQUIRE(sessions.count(what.incarnation) == 1);
  }

  void take(const command::measured_hits& what) {
    REQUIRE(what.predicted <= 32);
  }

  /// The one right token at a position of a choice.
  static token_id right(const protocol::request_record& record,
                        std::size_t position) {
    return static_cast<token_id>(record.params.choice * 1'000 + position);
  }

  void take(const command::cancel& what) {
    REQUIRE(live.count(what.id) == 1);
    REQUIRE(live[what.id] == what.incarnation);
    live.erase(what.id);
  }

  void take(const command::deliver& what) {
    auto& book = books.at(what.request);
    REQUIRE(!book.released);
    REQUIRE(!book.cancelled);
    REQUIRE(book.open.count(what.choice) == 1);
    auto& position = book.given[what.choice];
    for (auto id : what.news.tokens)
      REQUIRE(id == right(records.at(what.news.id), position++));
    if (what.news.reason != finish::none) {
      book.open.erase(what.choice);
      live.erase(what.news.id);
    }
  }

  void take(const command::fail& what) {
    auto& book = books.at(what.request);
    REQUIRE(!book.failed);
    REQUIRE(!book.released);
    REQUIRE(!book.cancelled);
    REQUIRE(!book.open.empty());
    book.failed = true;
  }

  void take(const command::release& what) {
    auto& book = books.at(what.request);
    REQUIRE(!book.released);
    REQUIRE((book.open.empty() || book.failed || book.cancelled));
    book.released = true;
  }

  std::uint64_t any_request() {
    return requests == 0 ? 1 : 1 + draw(requests);
  }

  void routes() {
    std::vector<protocol::replica_route> replicas;
    for (std::uint64_t i = 1; i <= 5; ++i) {
      if (draw(2) == 0)
        continue;
      ongoing_max.try_emplace(i, static_cast<std::uint32_t>(draw(4)));
      replicas.push_back(replica(i, ongoing_max[i]));
      replicas.back().arithmetic_class = i % 2 == 0 ? "A" : "B";
    }
    auto fresh = table_of(++version, replicas);
    fresh.settings.failover_exact = draw(2) == 0;
    if (draw(5) == 0)
      policy = static_cast<protocol::choice_policy>(draw(5));
    fresh.models[0].choice.policy = policy;
    if (draw(10) == 0)
      fresh.models.clear();
    apply(table.route_by(fresh, now));
  }

  void submit() {
    auto count = 1 + draw(4);
    auto& book = books[++requests];
    for (std::uint32_t i = 0; i < count; ++i)
      book.open.insert(i);
    auto what = ask(requests, count);
    for (auto& record : what.choices)
      record.prompt.assign(1 + draw(40), static_cast<token_id>(draw(3)));
    if (draw(2) == 0)
      what.session = std::to_string(draw(4));
    apply(table.submit(what, now));
  }

  /// Of blocks, in order or not.
  void tell() {
    protocol::token_batch batch;
    batch.incarnation = 1 + draw(5);
    auto names = codec::block_names(
        std::vector<token_id>(33, static_cast<token_id>(draw(3))), 16);
    batch.blocks = {1 + draw(4), draw(2) == 0, 16, names, {names[draw(2)]}};
    apply(table.tokens(batch, now));
  }

  void end_link(std::uint64_t incarnation) {
    protocol::death_notice notice;
    notice.incarnation = incarnation;
    notice.own_fault = draw(2) == 0;
    for (auto& [id, at] : live)
      if (at == incarnation && draw(2) == 0)
        notice.running.push_back({4711, id});
    auto word = draw(4);
    if (word == 0)
      apply(table.death(notice, now));
    sessions.erase(incarnation);
    std::erase_if(live, [&](auto& one) { return one.second == incarnation; });
    apply(table.lost(incarnation, now));
    if (word == 1)
      apply(table.death(notice, now));
  }

  void connect() {
    if (connecting.empty())
      return;
    auto incarnation = *connecting.begin();
    connecting.erase(incarnation);
    if (draw(4) == 0) {
      apply(table.attach_failed(incarnation, now));
      return;
    }
    // A second session replaces the first: its choices are gone.
    if (sessions.count(incarnation) != 0)
      end_link(incarnation);
    sessions.insert(incarnation);
    apply(table.attached(incarnation, now));
  }

  void step() {
    if (live.empty())
      return;
    auto one = live.begin();
    std::advance(one, draw(live.size()));
    auto [id, incarnation] = *one;
    auto kind = draw(8);
    auto& record = records.at(id);
    auto token = right(record, record.output.size());
    auto reason = kind == 0   ? finish::stop
                  : kind == 1 ? finish::length
                  : kind == 2 ? finish::cancelled
                  : kind == 3 ? finish::error
                              : finish::none;
    if (reason == finish::cancelled || reason == finish::error)
      live.erase(id);
    else
      record.output.push_back(token);
    apply(table.tokens(news(incarnation, id, {token}, reason,
                            draw(2) == 0 ? errc::unavailable : errc::internal),
                       now));
  }

  void cancel() {
    auto request = any_request();
    auto known = books.find(request);
    if (known == books.end() || known->second.released)
      return;
    if (draw(2) == 0) {
      known->second.cancelled = true;
      apply(table.cancel_request(request, now));
      return;
    }
    auto choice = static_cast<std::uint32_t>(draw(4));
    known->second.open.erase(choice);
    apply(table.cancel_choice(request, choice, now));
  }

  void event() {
    now += std::chrono::milliseconds{draw(400)};
    switch (draw(10)) {
    case 0:
      return routes();
    case 1:
    case 2:
      return submit();
    case 3:
      return connect();
    case 4:
      if (!sessions.empty())
        end_link(*sessions.begin());
      return;
    case 5:
      return cancel();
    case 6:
      return apply(table.tick(now));
    case 7:
      return tell();
    default:
      return step();
    }
  }
};

} // namespace

TEST_CASE(
    "whatever happens, every choice ends exactly once and nothing stays") {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    storm run{seed};
    CAPTURE(seed);
    run.routes();
    for (int i = 0; i < 400; ++i)
      run.event();
    run.now += 60s;
    run.apply(run.table.tick(run.now));
    run.apply(run.table.fail_all({errc::unavailable, "The end."}, run.now));
    CHECK(run.table.requests() == 0);
    CHECK(run.table.choices_waiting() == 0);
    CHECK(run.table.choices_sent() == 0);
    CHECK(run.table.prompt_tokens() == 0);
    for (auto& [request, book] : run.books)
      REQUIRE(book.released);
  }
}
