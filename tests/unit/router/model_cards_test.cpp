#include "router/model_cards.hpp"
#include "tests/unit/router/byte_model.hpp"

#include <catch2/catch.hpp>

#include <spdlog/spdlog.h>

#include <future>

using namespace troupe;
using namespace troupe::router;
using namespace troupe::test;

namespace {

protocol::routing_table table_of(std::string hash,
                                 std::vector<std::uint64_t> replicas) {
  protocol::model_route model;
  model.application = "app";
  model.model = "m";
  for (auto incarnation : replicas) {
    protocol::replica_route route;
    route.card_hash = hash;
    route.where.incarnation = incarnation;
    model.replicas.push_back(route);
  }
  return {1, {model}, {}};
}

std::string card_bytes() {
  auto bytes = text::encode(byte_model_card());
  return {bytes.begin(), bytes.end()};
}

model_cards::text_result wait_for(model_cards& cards, const std::string& hash) {
  auto answer = std::make_shared<std::promise<model_cards::text_result>>();
  auto future = answer->get_future();
  cards.get(hash, [answer](auto text) { answer->set_value(text); });
  REQUIRE(future.wait_for(std::chrono::seconds{10}) ==
          std::future_status::ready);
  return future.get();
}

} // namespace

TEST_CASE("a card is fetched once and from another replica if one fails") {
  spdlog::set_level(spdlog::level::off);
  std::atomic<int> fetched = 0;
  model_cards cards{[&](const protocol::endpoint& where,
                        const std::string&) -> result<std::string> {
    ++fetched;
    if (where.incarnation == 1)
      return error{errc::unavailable, "gone"};
    return card_bytes();
  }};
  cards.follow(table_of("h", {1, 2}));
  CHECK(wait_for(cards, "h").has_value());
  CHECK(wait_for(cards, "h").has_value());
  cards.follow(table_of("h", {1, 2}));
  CHECK(fetched == 2);
  CHECK(cards.find("app", "m")->max_model_len == 256);
}

TEST_CASE("a card stays while its model has no replica and goes with it") {
  model_cards cards{[&](const protocol::endpoint&, const std::string&) {
    return result<std::string>{card_bytes()};
  }};
  cards.follow(table_of("h", {1}));
  CHECK(wait_for(cards, "h").has_value());
  cards.follow(table_of("h", {}));
  CHECK(cards.find("app", "m"));
  CHECK(cards.find("h"));
  cards.follow({2, {}, {}});
  CHECK(!cards.find("app", "m"));
  CHECK(!cards.find("h"));
  CHECK(!wait_for(cards, "h"));
}

TEST_CASE("a card that is not one is not fetched again") {
  spdlog::set_level(spdlog::level::off);
  std::atomic<int> fetched = 0;
  model_cards cards{[&](const protocol::endpoint&, const std::string&) {
    ++fetched;
    return result<std::string>{"junk"};
  }};
  cards.follow(table_of("h", {1}));
  CHECK(!wait_for(cards, "h"));
  CHECK(!wait_for(cards, "h"));
  CHECK(fetched == 1);
}

TEST_CASE("whoever waits for a card is told when the router stops") {
  spdlog::set_level(spdlog::level::off);
  std::promise<void> release;
  auto released = release.get_future().share();
  model_cards cards{[released](const protocol::endpoint&,
                               const std::string&) -> result<std::string> {
    released.wait();
    return error{errc::unavailable, "late"};
  }};
  cards.follow(table_of("h", {1}));
  auto told = std::make_shared<std::promise<bool>>();
  auto answer = told->get_future();
  cards.get("h", [told](auto text) { told->set_value(text.has_value()); });
  auto stopped = std::async(std::launch::async, [&] { cards.stop(); });
  CHECK(!answer.get());
  release.set_value();
  stopped.get();
}
