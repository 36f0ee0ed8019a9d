#include "router/exchange.hpp"
#include "router/policy/deadline_rule.hpp"
#include "router/policy/fair_shares.hpp"
#include "router/policy/rate_limit.hpp"
#include "router/policy/retry_budget.hpp"
#include "router/policy/saturated_rate.hpp"
#include "router/tenants.hpp"
#include "router/waiting_room.hpp"

#include <catch2/catch.hpp>

#include <map>
#include <random>
#include <string>
#include <vector>

using namespace troupe;
using namespace troupe::router;
using namespace std::chrono_literals;

namespace {

using time_point = std::chrono::steady_clock::time_point;

const time_point start = time_point{} + 1000s;

standing of(const std::string& tenant, int second, double work = 10,
            std::int32_t priority = 0) {
  return {tenant, priority, start + std::chrono::seconds{second}, work};
}

/// One that serves whoever is next, each with all that it asks for, and counts.
struct server {
  waiting_room room;
  fair_shares shares;
  std::map<choice_key, standing> who;
  std::uint64_t last = 0;
  std::map<std::string, double> served;

  void come(const std::string& tenant, double weight, double work,
            std::int32_t priority = 0) {
    auto number = ++last;
    choice_key key{number, 0};
    who[key] = of(tenant, static_cast<int>(number), work, priority);
    shares.enter(tenant, weight);
    room.add({}, key, who[key]);
  }

  std::string serve_one() {
    auto next = room.next(shares).at(0);
    auto one = who.at(next.key);
    room.remove(next.lane, next.key, one);
    shares.charge(one.tenant, one.work);
    shares.leave(one.tenant);
    served[one.tenant] += one.work;
    who.erase(next.key);
    return one.tenant;
  }
};

protocol::router_settings with_limits(std::uint32_t requests,
                                      std::uint64_t tokens) {
  protocol::router_settings out;
  out.api_keys = {"sk-one", "sk-two"};
  out.tenants.push_back({"one", "sk-one", 1, 0, requests, tokens});
  out.tenants.push_back({"two", "sk-two"});
  return out;
}

http::request bearing(const std::string& key) {
  http::request out;
  out.headers.emplace_back("authorization", "Bearer " + key);
  return out;
}

std::string header_of(const http::header_list& all, std::string_view name) {
  for (const auto& [key, value] : all)
    if (key == name)
      return value;
  return "";
}

/// Reads the books when an answer is handed over to be sent.
struct books_reader final : http::reply {
  explicit books_reader(std::shared_ptr<metrics> books)
      : books(std::move(books)) {
  }

  void respond(int, http::header_list, std::string) override {
    seen = books->text({}, 0, {});
  }
  void finish() override {
    seen = books->text({}, 0, {});
  }
  void abort() override {
    seen = books->text({}, 0, {});
  }
  void start_stream(int, http::header_list) override {
  }
  bool write(std::string) override {
    return true;
  }
  bool has_room() const override {
    return true;
  }
  void on_room(std::function<void()>) override {
  }
  void on_client_gone(std::function<void()>) override {
  }

  std::shared_ptr<metrics> books;
  std::string seen;
};

} // namespace

TEST_CASE("tenants that always have something waiting get shares by weight, "
          "whatever the size of their requests") {
  server all;
  std::mt19937 random{3};
  auto refill = [&](const std::string& tenant, double weight, int work_max) {
    while (all.room.size_of(tenant) < 5)
      all.come(tenant, weight, 1 + random() % work_max);
  };
  for (int i = 0; i < 20'000; ++i) {
    refill("small", 1, 20);
    refill("large", 1, 400);
    refill("heavy", 2, 100);
    all.serve_one();
  }
  auto whole = all.served["small"] + all.served["large"] + all.served["heavy"];
  CHECK(all.served["small"] / whole == Approx(0.25).margin(0.01));
  CHECK(all.served["large"] / whole == Approx(0.25).margin(0.01));
  CHECK(all.served["heavy"] / whole == Approx(0.5).margin(0.01));
}

TEST_CASE("one who comes while another floods is next") {
  server all;
  for (int i = 0; i < 500; ++i)
    all.come("flood", 1, 100);
  for (int i = 0; i < 50; ++i)
    all.serve_one();
  all.come("quiet", 1, 100);
  auto first = all.serve_one();
  auto second = all.serve_one();
  CHECK((first == "quiet" || second == "quiet"));
}

TEST_CASE("time away is not saved up") {
  server all;
  all.come("away", 1, 10);
  all.serve_one();
  for (int i = 0; i < 1000; ++i) {
    all.come("busy", 1, 100);
    all.come("busy", 1, 100);
    all.serve_one();
  }
  for (int i = 0; i < 200; ++i)
    all.come("away", 1, 100);
  int away = 0;
  for (int i = 0; i < 100; ++i)
    away += all.serve_one() == "away" ? 1 : 0;
  CHECK(away <= 51);
  CHECK(away >= 49);
}

TEST_CASE("what a tenant lags behind while it is inside is bounded") {
  fair_shares shares;
  shares.enter("slow", 1);
  shares.enter("fast", 1);
  shares.charge("fast", 1'000'000);
  auto floor = shares.floor();
  CHECK(shares.had("fast", floor) - shares.had("slow", floor) ==
        Approx(fair_shares::credit_max));
  CHECK(shares.share("slow", 1) == Approx(0.5));
  CHECK(shares.share("new", 2) == Approx(0.5));
}

TEST_CASE("the more urgent goes first, of equals the older one") {
  server all;
  all.come("a", 1, 1);
  all.come("a", 1, 1, -5);
  all.come("b", 1, 1, 3);
  all.come("a", 1, 1);
  CHECK(all.room.next(all.shares).at(0).key.request == 2);
  std::vector<std::uint64_t> order;
  while (!all.room.empty()) {
    order.push_back(all.room.next(all.shares).at(0).key.request);
    all.serve_one();
  }
  CHECK(order == std::vector<std::uint64_t>{2, 1, 4, 3});
}

TEST_CASE("a waiting room forgets whoever leaves, wherever they stood") {
  waiting_room room;
  std::mt19937 random{5};
  std::map<choice_key, std::pair<lane_key, standing>> inside;
  for (std::uint64_t i = 0; i < 2000; ++i) {
    lane_key lane;
    lane.suspects = random() % 8 == 0;
    lane.card_hash = std::string(1, static_cast<char>('a' + random() % 3));
    auto who = of(std::string(1, static_cast<char>('A' + random() % 4)),
                  static_cast<int>(i), 1, static_cast<int>(random() % 3));
    inside[{i, 0}] = {lane, who};
    room.add(lane, {i, 0}, who);
    while (inside.size() > 100 || (random() % 3 == 0 && !inside.empty())) {
      auto one = std::next(inside.begin(),
                           static_cast<long>(random() % inside.size()));
      room.remove(one->second.first, one->first, one->second.second);
      room.remove(one->second.first, one->first, one->second.second);
      inside.erase(one);
    }
    REQUIRE(room.size() == inside.size());
    std::size_t of_a = 0;
    for (auto& [key, place] : inside)
      of_a += place.second.tenant == "A" ? 1 : 0;
    REQUIRE(room.size_of("A") == of_a);
  }
  for (auto& [key, place] : inside)
    room.remove(place.first, key, place.second);
  CHECK(room.empty());
  CHECK(!room.any());
  CHECK(room.next({}).empty());
  CHECK(room.ahead_of(of("A", 0), 1) == Approx(0).margin(1e-9));
}

TEST_CASE("what is ahead is the whole queue, or one's own over one's share") {
  waiting_room room;
  room.add({}, {1, 0}, of("flood", 1, 900));
  room.add({}, {2, 0}, of("own", 2, 50));
  room.add({}, {3, 0}, of("flood", 3, 30, -1));  // more urgent
  room.add({}, {4, 0}, of("flood", 4, 7000, 1)); // less
  CHECK(room.ahead_of(of("own", 9), 0.5) == Approx(160));
  CHECK(room.ahead_of(of("own", 9), 0.01) == Approx(980));
  CHECK(room.ahead_of(of("flood", 9), 1) == Approx(930));
}

TEST_CASE(
    "a request is taken if it can be served in time, as far as is known") {
  deadline_view view;
  view.left = 10s;
  CHECK(!deadline_rule(view)); // nothing measured yet
  view.service_s = 5;
  CHECK(!deadline_rule(view));
  view.ahead = 200;
  CHECK(!deadline_rule(view)); // the queue's rate is not known
  view.drain = 100;            // 2 s more
  CHECK(!deadline_rule(view));
  view.ahead = 300; // 8 s in all, of which 7.5 may be used
  auto refused = deadline_rule(view);
  REQUIRE(refused);
  CHECK(refused->expected.count() == Approx(8));
  CHECK(refused->retry_after_s == 1);
  view.ahead = 100'000;
  CHECK(deadline_rule(view)->retry_after_s == 60);
  view.ahead = 0;
  CHECK(!ends_too_late(view));
  view.left = 4s;
  CHECK(ends_too_late(view));
  view.service_s = 0;
  CHECK(!ends_too_late(view));
}

TEST_CASE("only what is done while choices wait says how much can be done") {
  saturated_rate rate;
  auto now = start;
  for (int i = 0; i < 100; ++i)
    rate.note(5, false, now += 100ms);
  CHECK(!rate.value(now));
  rate.note(1000, true, now += 100ms); // the first of them begins the count
  for (int i = 0; i < 9; ++i)
    rate.note(30, true, now += 100ms);
  CHECK(!rate.value(now)); // less than a second
  for (int i = 0; i < 10; ++i)
    rate.note(30, true, now += 100ms);
  CHECK(*rate.value(now) == Approx(300));
  for (int i = 0; i < 200; ++i)
    rate.note(60, true, now += 100ms);
  CHECK(*rate.value(now) == Approx(600).epsilon(0.05));
  for (int i = 0; i < 100; ++i)
    rate.note(1, false, now += 100ms);
  CHECK(*rate.value(now) == Approx(600).epsilon(0.05)); // kept
  CHECK(!rate.value(now + 11min));
  rate.note(60, true, now += 100ms);
  rate.note(60, true, now += 30s); // nothing came: an outage
  CHECK(*rate.value(now) == Approx(600).epsilon(0.05));
}

TEST_CASE("repetitions are a fifth of what is sent, and a few a second") {
  retry_budget budget;
  auto now = start;
  int taken = 0;
  while (budget.take(now))
    ++taken;
  CHECK(taken == 256);
  REQUIRE(budget.next(now));
  auto when = *budget.next(now);
  CHECK(when > now);
  CHECK(budget.take(when));
  CHECK(!budget.take(when));
  now = when;
  for (int i = 0; i < 50; ++i)
    budget.sent(now);
  taken = 0;
  while (budget.take(now))
    ++taken;
  CHECK(taken == 10);
  now += 1h;
  CHECK(!budget.next(now));
  taken = 0;
  while (budget.take(now))
    ++taken;
  CHECK(taken == 256);
}

TEST_CASE(
    "a limit per minute lets a minute's worth through, and fills evenly") {
  rate_limit limit{60};
  auto now = start;
  for (int i = 0; i < 60; ++i)
    CHECK(limit.take(1, now).taken);
  auto verdict = limit.take(1, now);
  CHECK(!verdict.taken);
  CHECK(*verdict.wait == 1s);
  CHECK(limit.full_in(now) == 60s);
  CHECK(limit.take(1, now + 1s).taken);
  CHECK(!limit.take(1, now + 1s).taken);
  CHECK(limit.left(now + 31s) == 30);
  CHECK(!limit.take(61, now + 1h).wait); // never
  limit.charge(100, now + 1h);           // owed: 40
  CHECK(limit.left(now + 1h) == 0);
  CHECK(*limit.take(1, now + 1h).wait == 41s);
  limit.change(120, now + 1h); // what is owed stays owed
  CHECK(*limit.take(20, now + 1h).wait == 30s);
  limit.change(0, now + 1h);
  CHECK(limit.take(1'000'000, now + 1h).taken);
}

TEST_CASE("a tenant's limits are told as OpenAI tells them") {
  tenants all;
  all.follow(with_limits(2, 100));
  auto now = std::chrono::steady_clock::now();
  CHECK(all.several());
  CHECK(all.find(bearing("sk-three")) == nullptr);
  auto one = all.find(bearing("sk-one"));
  REQUIRE(one);
  CHECK(one->name() == "one");
  CHECK(!one->take_request(now));
  CHECK(!one->take_prompt(30, now));
  auto headers = one->headers(now);
  CHECK(header_of(headers, "x-ratelimit-limit-requests") == "2");
  CHECK(header_of(headers, "x-ratelimit-remaining-requests") == "1");
  CHECK(header_of(headers, "x-ratelimit-reset-requests") == "30s");
  CHECK(header_of(headers, "x-ratelimit-limit-tokens") == "100");
  CHECK(header_of(headers, "x-ratelimit-remaining-tokens") == "70");
  CHECK(header_of(headers, "x-ratelimit-reset-tokens") == "18s");
  CHECK(!one->take_request(now));
  auto refused = one->take_request(now);
  REQUIRE(refused);
  CHECK(refused->status == 429);
  CHECK(refused->code == "rate_limit_exceeded");
  CHECK(refused->type == "requests");
  CHECK(refused->retry_after_s == 30);
  one->charge(70, now); // the answer
  refused = one->take_prompt(60, now);
  REQUIRE(refused);
  CHECK(refused->type == "tokens");
  CHECK(refused->retry_after_s == 36);
  CHECK(one->take_prompt(101, now)->retry_after_s == 0);
  CHECK(one->refused() == 3);
  CHECK(one->used() == protocol::tenant_use{"one", 2, 100});
  auto two = all.find(bearing("sk-two"));
  REQUIRE(two);
  CHECK(two->headers(now).empty());
  CHECK(all.used() == std::vector{protocol::tenant_use{"one", 2, 100}});

  SECTION("who stays keeps its books") {
    all.follow(with_limits(4, 100));
    CHECK(all.find(bearing("sk-one")) == one);
    CHECK(one->take_request(now));
    all.follow({});
    CHECK(!all.several());
    CHECK(all.find(bearing("whatever"))->name() == "");
  }
  SECTION("what it has elsewhere counts, once") {
    auto later = [&](std::uint64_t life, std::uint64_t tokens) {
      all.used_elsewhere({life, {}, {{"one", 5, tokens}}});
      auto left = one->headers(std::chrono::steady_clock::now());
      return header_of(left, "x-ratelimit-remaining-tokens");
    };
    two.reset();
    all.follow(with_limits(2, 0));
    all.follow(with_limits(2, 1'000'000)); // full again
    CHECK(later(7, 600'000) == "1000000"); // says where to count from
    auto before = std::stoul(later(7, 900'000));
    CHECK(before >= 700'000);
    CHECK(before < 720'000);
    CHECK(std::stoul(later(7, 900'000)) >= before);
    CHECK(std::stoul(later(8, 50'000'000)) >= before); // another life
    CHECK(later(8, 60'000'000) == "0");
    // No more than a minute's worth is owed.
    CHECK(
        one->take_prompt(1, std::chrono::steady_clock::now())->retry_after_s <=
        61);
  }
}

TEST_CASE("a key of an older controller is a tenant without limits") {
  tenants all;
  protocol::router_settings old;
  old.api_keys = {"sk-one"};
  all.follow(old);
  CHECK(all.find(bearing("sk-one"))->name() == "key-1");
  CHECK(!all.several());
  CHECK(all.find(bearing("sk-two")) == nullptr);
}

TEST_CASE("of shared places one group leaves some for another") {
  auto places = std::make_shared<admission>(10);
  std::vector<admission::ticket> flood;
  for (;;) {
    auto ticket = admission::enter(places);
    REQUIRE(ticket);
    if (!ticket.join("key a"))
      break;
    flood.push_back(std::move(ticket));
  }
  CHECK(flood.size() == 8);
  auto other = admission::enter(places);
  CHECK(other.join("key b"));
  flood.clear();
  CHECK(places->inside() == 1);
  for (int i = 0; i < 5; ++i) {
    flood.push_back(admission::enter(places));
    CHECK(flood.back().join("key a"));
  }
}

TEST_CASE("an answer is in the books before it is sent") {
  exchange::context about;
  about.method = "POST";
  about.route = "/x";
  about.counters = std::make_shared<metrics>();
  auto reply = std::make_shared<books_reader>(about.counters);
  exchange one{reply, about};
  std::string status = "200";
  SECTION("a whole one") {
    one.respond(200, "text/plain", "fine");
  }
  SECTION("a stream") {
    one.begin_stream();
    one.finish();
  }
  SECTION("a stream that is cut") {
    one.begin_stream();
    one.abort(500);
    status = "500";
  }
  CHECK(reply->seen.find("ray_serve_num_http_requests{route=\"/x\",method="
                         "\"POST\",status_code=\"" +
                         status + "\"} 1\n") != std::string::npos);
}
