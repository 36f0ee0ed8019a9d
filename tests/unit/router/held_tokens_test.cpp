#include "router/held_tokens.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::router;
using protocol::finish;

namespace {

held_tokens::route of_class(std::string name) {
  protocol::replica_route route;
  route.arithmetic_class = std::move(name);
  return std::make_shared<const protocol::replica_route>(std::move(route));
}

protocol::choice_tokens token(token_id id, finish reason = finish::none) {
  protocol::choice_tokens out;
  out.tokens = {id};
  out.logprobs = {{{id, -0.5f}}};
  out.reason = reason;
  return out;
}

const auto here = of_class("a");

} // namespace

TEST_CASE("what comes of a choice is joined to what waits of it, in order") {
  held_tokens held;
  CHECK(held.empty());
  auto first = token(1);
  first.cached_tokens = 7;
  first.prompt_logprobs = {{}, {{3, -1.0f}}};
  held.add(0, first, here);
  held.add(1, token(10), here);
  held.add(0, token(2), here);
  auto last = token(3, finish::stop);
  last.stop_token = 3;
  held.add(0, last, here);

  auto zero = held.take();
  CHECK(zero.choice == 0);
  CHECK(zero.news.tokens == std::vector<token_id>{1, 2, 3});
  CHECK(zero.news.logprobs.size() == 3);
  CHECK(zero.news.logprobs[2][0].id == 3);
  CHECK(zero.news.cached_tokens == 7);
  CHECK(zero.news.prompt_logprobs == first.prompt_logprobs);
  CHECK(zero.news.reason == finish::stop);
  CHECK(zero.news.stop_token == 3);
  CHECK(!held.empty());
  auto one = held.take();
  CHECK(one.choice == 1);
  CHECK(one.news.tokens == std::vector<token_id>{10});
  CHECK(held.empty());
}

TEST_CASE("a frame's worth waits together, no more, and no choice overtakes "
          "another for ever") {
  held_tokens held;
  std::vector<std::vector<token_id>> given(2);
  std::vector<std::vector<token_id>> came(2);
  for (token_id id = 0; id < 100; ++id)
    for (std::uint32_t choice : {0u, 1u}) {
      held.add(choice, token(id), here);
      given[choice].push_back(id);
    }
  std::vector<std::uint32_t> order;
  std::size_t most = 0;
  while (!held.empty()) {
    auto next = held.take();
    auto& ids = next.news.tokens;
    most = std::max(most, ids.size());
    came[next.choice].insert(came[next.choice].end(), ids.begin(), ids.end());
    order.push_back(next.choice);
  }
  CHECK(came == given);
  CHECK(most == 8);
  for (std::size_t i = 0; i < order.size(); ++i)
    CHECK(order[i] == i % 2);
}

TEST_CASE("news that were taken are not added to") {
  held_tokens held;
  for (token_id id = 0; id < 30; ++id) {
    held.add(0, token(id), here);
    held.add(1, token(id), here);
    auto next = held.take();
    CHECK(next.news.tokens.back() <= id);
  }
  std::size_t left = 0;
  while (!held.empty())
    left += held.take().news.tokens.size();
  // 60 were added; 30 entries have left, and never twice the same.
  CHECK(left <= 30);
}

TEST_CASE("tokens of two classes are never in one frame") {
  held_tokens held;
  held.add(0, token(1), here);
  held.add(0, token(2), of_class("b"));
  held.add(0, token(3), of_class("b"));
  CHECK(held.take().from->arithmetic_class == "a");
  auto second = held.take();
  CHECK(second.from->arithmetic_class == "b");
  CHECK(second.news.tokens == std::vector<token_id>{2, 3});
  CHECK(held.empty());
}
