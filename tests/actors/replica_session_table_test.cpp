#include "actors/protocol/routing_table.hpp"
#include "actors/replica/session_table.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <iterator>
#include <map>
#include <optional>

using namespace troupe;
using namespace troupe::replica;
using namespace std::chrono_literals;
using protocol::finish;

namespace {

constexpr std::uint64_t router_a = 100;
constexpr std::uint64_t router_b = 200;
const replica::clock::time_point start{};

codec::bytes record(std::uint64_t id, std::uint64_t deadline_ms = 0) {
  protocol::request_record x;
  x.id = id;
  x.prompt = {1, 2};
  x.output = {3};
  x.deadline_ms = deadline_ms;
  return encode(x);
}

struct table_with_two_routers : session_table {
  explicit table_with_two_routers(session_limits limits = {})
      : session_table("m#1", 7, limits) {
    open();
    REQUIRE(attach(router_a, protocol::protocol_version)->empty());
    REQUIRE(attach(router_b, protocol::protocol_version)->empty());
  }

  /// Starts a choice and returns the engine's id of it.
  std::uint64_t run(std::uint64_t router, std::uint64_t id) {
    auto out = generate(router, record(id), start);
    REQUIRE_FALSE(out.empty()); // the other router may hear of it too
    return std::get<submit_choice>(out[0]).request.id;
  }
};

engine::output
output(std::uint64_t id, token_id token,
       engine::finish_reason reason = engine::finish_reason::none) {
  engine::output x;
  x.id = id;
  x.tokens = {token};
  x.finish = reason;
  return x;
}

engine::step_result step_of(std::vector<engine::output> outputs) {
  engine::step_result x;
  x.outputs = std::move(outputs);
  x.now.steps = 5;
  return x;
}

/// The single refusal in `commands`.
protocol::choice_tokens refusal(const session_commands& commands) {
  REQUIRE(commands.size() == 1);
  const auto& batch = std::get<send_tokens>(commands[0]).batch;
  REQUIRE(batch.choices.size() == 1);
  CHECK(batch.choices[0].reason == finish::error);
  return batch.choices[0];
}

} // namespace

TEST_CASE("a choice goes to the engine under an id of the replica's own") {
  table_with_two_routers table;
  auto out = table.generate(router_a, record(9), start);
  REQUIRE(out.size() == 1);
  const auto& request = std::get<submit_choice>(out[0]).request;
  CHECK(request.prompt == std::vector<token_id>{1, 2});
  CHECK(request.resume == std::vector<token_id>{3});
  CHECK(table.run(router_b, 9) != request.id);
  CHECK(table.running() == 2);
}

TEST_CASE("one step gives one batch per router") {
  table_with_two_routers table;
  auto a1 = table.run(router_a, 1);
  auto a2 = table.run(router_a, 2);
  auto b1 = table.run(router_b, 1);
  auto out =
      table.step(step_of({output(b1, 30), output(a1, 10), output(a2, 20)}));
  REQUIRE(out.size() == 2);
  const auto& to_a = std::get<send_tokens>(out[0]);
  CHECK(to_a.router == router_a);
  CHECK(to_a.batch.replica == "m#1");
  CHECK(to_a.batch.incarnation == 7);
  CHECK(to_a.batch.step == 5);
  REQUIRE(to_a.batch.choices.size() == 2);
  CHECK(to_a.batch.choices[0].id == 1);
  CHECK(to_a.batch.choices[0].tokens == std::vector<token_id>{10});
  const auto& to_b = std::get<send_tokens>(out[1]);
  CHECK(to_b.router == router_b);
  CHECK(to_b.batch.choices[0].tokens == std::vector<token_id>{30});
}

TEST_CASE("all that an output says reaches the router") {
  table_with_two_routers table;
  auto id = table.run(router_a, 1);
  auto x = output(id, 10, engine::finish_reason::stop);
  x.logprobs = {{{10, -1.f}, {11, -2.f}}};
  x.prompt_logprobs = {{}, {{2, -3.f}}};
  x.cached_tokens = 16;
  x.stop_token = 10;
  auto out = table.step(step_of({x}));
  const auto& news = std::get<send_tokens>(out[0]).batch.choices[0];
  CHECK(news.reason == finish::stop);
  CHECK(news.stop_token == 10);
  CHECK(news.cached_tokens == 16);
  REQUIRE(news.logprobs.size() == 1);
  CHECK(news.logprobs[0][1] == protocol::token_logprob{11, -2.f});
  REQUIRE(news.prompt_logprobs.size() == 2);
  CHECK(news.prompt_logprobs[0].empty());
  CHECK(table.running() == 0);
  // Its id may be used again.
  table.run(router_a, 1);
}

TEST_CASE("a cancelled choice is told once more, as cancelled") {
  table_with_two_routers table;
  auto id = table.run(router_a, 1);
  auto out = table.cancel(router_a, 1);
  REQUIRE(out.size() == 1);
  CHECK(std::get<cancel_choice>(out[0]).engine_id == id);
  CHECK(table.running() == 1); // until the engine says so
  out = table.step(step_of({output(id, 4, engine::finish_reason::cancelled)}));
  REQUIRE(out.size() == 1);
  CHECK(std::get<send_tokens>(out[0]).batch.choices[0].reason ==
        finish::cancelled);
  CHECK(table.running() == 0);
  CHECK(table.cancel(router_a, 1).empty());
  CHECK(table.cancel(router_b, 1).empty());
}

TEST_CASE("a router that is gone takes its choices with it") {
  table_with_two_routers table;
  auto a1 = table.run(router_a, 1);
  auto a2 = table.run(router_a, 2);
  auto b1 = table.run(router_b, 1);
  auto out = table.router_gone(router_a);
  REQUIRE(out.size() == 2);
  CHECK(std::get<cancel_choice>(out[0]).engine_id == a1);
  CHECK(std::get<cancel_choice>(out[1]).engine_id == a2);
  out = table.step(step_of({output(a1, 1), output(b1, 2)}));
  REQUIRE(out.size() == 1);
  CHECK(std::get<send_tokens>(out[0]).router == router_b);
  CHECK(table.generate(router_a, record(3), start).empty());
  table.step(step_of({output(a1, 1, engine::finish_reason::cancelled),
                      output(a2, 1, engine::finish_reason::cancelled)}));
  CHECK(table.running() == 1);
}

TEST_CASE("attaching again replaces the session") {
  table_with_two_routers table;
  auto old = table.run(router_a, 1);
  auto out = table.attach(router_a, protocol::protocol_version);
  REQUIRE(out.has_value());
  REQUIRE(out->size() == 2);
  CHECK(std::get<cancel_choice>((*out)[0]).engine_id == old);
  auto& told = std::get<send_tokens>((*out)[1]);
  CHECK(told.router == router_a);
  REQUIRE(told.batch.choices.size() == 1);
  CHECK(told.batch.choices[0].id == 1);
  CHECK(told.batch.choices[0].reason == protocol::finish::cancelled);
  auto fresh = table.run(router_a, 1);
  auto tokens = table.step(step_of({output(old, 1), output(fresh, 2)}));
  REQUIRE(tokens.size() == 1);
  const auto& choices = std::get<send_tokens>(tokens[0]).batch.choices;
  REQUIRE(choices.size() == 1);
  CHECK(choices[0].tokens == std::vector<token_id>{2});
}

TEST_CASE("who has no session is told so for each record") {
  table_with_two_routers table;
  auto said = table.without_session(record(9));
  REQUIRE(said.has_value());
  CHECK(said->incarnation == 7);
  CHECK(said->no_session);
  REQUIRE(said->choices.size() == 1);
  CHECK(said->choices[0].id == 9);
  CHECK(said->choices[0].reason == protocol::finish::cancelled);
  CHECK_FALSE(table.without_session(codec::bytes{1, 2}).has_value());
}

TEST_CASE("a router of a far protocol version is refused by name") {
  for (std::uint32_t own : {4, 9}) {
    session_table table{"m#1", 7, {}, own};
    CHECK(table.attach(1, own - 1).has_value());
    CHECK(table.attach(2, own).has_value());
    CHECK(table.attach(3, own + 1).has_value());
    for (auto far : {own - 2, own + 2, 0u, UINT32_MAX}) {
      auto out = table.attach(4, far);
      REQUIRE_FALSE(out.has_value());
      CHECK(out.error().code == errc::unsupported);
      CHECK(out.error().message.find("version " + std::to_string(far)) !=
            std::string::npos);
      CHECK(out.error().message.find("m#1 " + std::to_string(own)) !=
            std::string::npos);
    }
  }
}

TEST_CASE("tokens are written for the older one of router and replica") {
  session_table table{"m#1", 7, {}, 5};
  table.open();
  for (std::uint32_t version : {4, 5, 6}) {
    REQUIRE(table.attach(version, version).has_value());
    auto out = table.generate(version, record(1), start);
    auto id = std::get<submit_choice>(out.at(0)).request.id;
    out = table.step(step_of({output(id, 1)}));
    CHECK(std::get<send_tokens>(out.at(0)).version == std::min(version, 5u));
    auto refused = table.generate(version, record(1), start); // in use
    CHECK(std::get<send_tokens>(refused.at(0)).version ==
          std::min(version, 5u));
  }
}

TEST_CASE("a replica reads records as one of its version does") {
  protocol::request_record newer;
  newer.id = 3;
  newer.prompt = {1};
  newer.alone = true;
  session_table old{"m#1", 7, {}, 1};
  old.open();
  REQUIRE(old.attach(router_a, 2).has_value());
  CHECK(refusal(old.generate(router_a, encode(newer, 2), start)).code ==
        errc::unsupported);
  CHECK(old.generate(router_a, encode(newer, 1), start).size() == 1);
  CHECK(old.running() == 1);
}

TEST_CASE("the engine is told whose a choice is and whether it is alone") {
  table_with_two_routers table;
  protocol::request_record x;
  x.id = 9;
  x.prompt = {1};
  for (bool is_alone : {false, true}) {
    x.alone = is_alone;
    auto out = table.generate(is_alone ? router_a : router_b, encode(x), start);
    const auto& request = std::get<submit_choice>(out.at(0)).request;
    CHECK(request.alone == (is_alone ? protocol::alone_tokens : 0));
    CHECK(request.whose == engine::owner{is_alone ? router_a : router_b, 9});
  }
}

TEST_CASE("the bound on choices can be changed while they run") {
  session_limits limits;
  limits.choices_max = 2;
  table_with_two_routers table{limits};
  table.run(router_a, 1);
  table.run(router_a, 2);
  table.limit_choices(3);
  table.run(router_a, 3);
  table.limit_choices(1); // nobody is sent away
  CHECK(table.running() == 3);
  CHECK(refusal(table.generate(router_a, record(4), start)).code ==
        errc::limit);
  table.limit_choices(0); // the table's own bound
  table.run(router_a, 4);
}

TEST_CASE("sessions and choices are bounded") {
  session_limits limits;
  limits.routers_max = 2;
  limits.choices_max = 2;
  table_with_two_routers table{limits};
  CHECK_FALSE(table.attach(300, protocol::protocol_version).has_value());
  auto first = table.run(router_a, 1);
  table.run(router_a, 2);
  CHECK(refusal(table.generate(router_b, record(1), start)).code ==
        errc::limit);
  table.step(step_of({output(first, 1, engine::finish_reason::length)}));
  table.run(router_b, 1);
}

TEST_CASE("a cancelled choice makes room for another one at once") {
  session_limits limits;
  limits.choices_max = 2;
  table_with_two_routers table{limits};
  auto first = table.run(router_a, 1);
  table.run(router_a, 2);
  table.cancel(router_a, 1);
  table.cancel(router_a, 1); // twice is no more than once
  table.run(router_a, 3);    // no step has come between them
  CHECK(refusal(table.generate(router_a, record(4), start)).code ==
        errc::limit);
  table.step(step_of({output(first, 1, engine::finish_reason::cancelled)}));
  CHECK(refusal(table.generate(router_a, record(4), start)).code ==
        errc::limit);
}

TEST_CASE("a closed replica refuses new choices and finishes running ones") {
  session_table loading{"m#1", 7, {}};
  REQUIRE(loading.attach(router_a, protocol::protocol_version).has_value());
  CHECK(refusal(loading.generate(router_a, record(1), start)).code ==
        errc::unavailable);
  table_with_two_routers table;
  auto id = table.run(router_a, 1);
  table.close("the replica is draining");
  auto news = refusal(table.generate(router_a, record(2), start));
  CHECK(news.code == errc::unavailable);
  CHECK(news.message == "the replica is draining");
  CHECK(table.step(step_of({output(id, 1)})).size() == 1);
}

TEST_CASE("a broken record is refused if its id can be read") {
  table_with_two_routers table;
  auto bytes = record(42);
  auto cut = bytes;
  cut.pop_back();
  auto news = refusal(table.generate(router_a, cut, start));
  CHECK(news.id == 42);
  CHECK(news.code == errc::corrupt);
  CHECK(table.generate(router_a, codec::bytes{1, 2, 3}, start).empty());
  CHECK(table.running() == 0);
}

TEST_CASE("an id that is in use is refused") {
  table_with_two_routers table;
  table.run(router_a, 1);
  CHECK(refusal(table.generate(router_a, record(1), start)).code ==
        errc::invalid_argument);
}

TEST_CASE("a choice past its deadline is cancelled and told so once") {
  table_with_two_routers table;
  auto out = table.generate(router_a, record(1, 500), start);
  auto id = std::get<submit_choice>(out[0]).request.id;
  CHECK(table.tick(start + 499ms).empty());
  REQUIRE(table.tick(start + 500ms).size() == 1);
  CHECK(table.tick(start + 501ms).empty());
  out = table.step(step_of({output(id, 1, engine::finish_reason::cancelled)}));
  const auto& news = std::get<send_tokens>(out[0]).batch.choices[0];
  CHECK(news.reason == finish::error);
  CHECK(news.code == errc::cancelled);
  // The longest deadline that can be sent is far away, not in the past.
  table.generate(router_a, record(2, UINT64_MAX), start);
  CHECK(table.tick(start + 24h).empty());
}

TEST_CASE("outputs that nobody waits for are dropped") {
  table_with_two_routers table;
  CHECK(table.step(step_of({output(999, 1)})).empty());
}

namespace {

engine::step_result changed(std::vector<std::uint64_t> stored,
                            std::vector<std::uint64_t> dropped,
                            std::vector<engine::output> outputs = {}) {
  auto x = step_of(std::move(outputs));
  x.blocks = {16, std::move(stored), std::move(dropped)};
  return x;
}

protocol::kv_events events(const session_commands& commands,
                           std::size_t index = 0) {
  REQUIRE(commands.size() > index);
  return std::get<send_tokens>(commands[index]).batch.blocks;
}

} // namespace

TEST_CASE("who asks hears of all blocks, then of changes, in order") {
  table_with_two_routers table;
  CHECK(table.step(changed({1, 2}, {})).empty()); // nobody asked
  auto first = table.follow_blocks(router_a, true);
  CHECK(std::get<send_tokens>(first[0]).router == router_a);
  auto all = events(first);
  std::sort(all.stored.begin(), all.stored.end());
  CHECK(all == protocol::kv_events{1, true, 16, {1, 2}, {}});
  CHECK(events(table.step(changed({3}, {1}))) ==
        protocol::kv_events{2, false, 16, {3}, {1}});

  SECTION("in the batch of its tokens, if it has any; others get none") {
    auto a = table.run(router_a, 1);
    auto b = table.run(router_b, 1);
    auto out = table.step(changed({4}, {}, {output(a, 9), output(b, 8)}));
    REQUIRE(out.size() == 2);
    CHECK(events(out, 0).sequence == 3);
    CHECK(std::get<send_tokens>(out[0]).batch.choices.size() == 1);
    CHECK(events(out, 1) == protocol::kv_events{});
  }
  SECTION("a step without changes is no event") {
    auto a = table.run(router_a, 1);
    CHECK(events(table.step(step_of({output(a, 9)}))).sequence == 0);
  }
  SECTION("asking again brings all again") {
    auto again = events(table.follow_blocks(router_a, true));
    CHECK(again.all);
    CHECK(again.stored.size() == 2);
    CHECK(events(table.step(changed({5}, {}))).sequence == again.sequence + 1);
  }
  SECTION("who no longer wants it, is gone or attaches again is told no more") {
    auto what = GENERATE(0, 1, 2);
    if (what == 0)
      CHECK(table.follow_blocks(router_a, false).empty());
    else if (what == 1)
      table.router_gone(router_a);
    else
      REQUIRE(table.attach(router_a, protocol::protocol_version).has_value());
    CHECK(table.step(changed({6}, {})).empty());
  }
  SECTION("a router without a session gets no answer") {
    CHECK(table.follow_blocks(300, true).empty());
    CHECK(table.step(changed({6}, {})).size() == 1);
  }
}

namespace {

/// Of so many prompt tokens and so many that may come.
codec::bytes long_record(std::uint64_t id, std::size_t prompt,
                         std::uint32_t max_tokens) {
  protocol::request_record x;
  x.id = id;
  x.prompt.assign(prompt, 1);
  x.params.max_tokens = max_tokens;
  return encode(x);
}

/// What `router` is told of others in `commands`; nothing = it is not told.
std::optional<std::uint64_t> others_of(const session_commands& commands,
                                       std::uint64_t router) {
  std::optional<std::uint64_t> out;
  for (const auto& one : commands)
    if (auto* sent = std::get_if<send_tokens>(&one);
        sent != nullptr && sent->router == router)
      out = sent->batch.others_tokens;
  return out;
}

} // namespace

TEST_CASE("a router hears of much work of others at once, of little with its "
          "tokens") {
  table_with_two_routers table;
  auto out = table.generate(router_a, long_record(1, 1000, 10'000), start);
  auto engine_id = std::get<submit_choice>(out[0]).request.id;
  CHECK(others_of(out, router_b) == 1256); // 256 at most
  CHECK_FALSE(others_of(out, router_a));
  // Twenty tokens more are not worth a message.
  out = table.generate(router_a, long_record(2, 10, 10), start);
  CHECK_FALSE(others_of(out, router_b));
  auto b = table.run(router_b, 1);
  out = table.step(step_of({output(b, 9)}));
  CHECK(others_of(out, router_b) == 1276);
  // The prompt of the first one is done.
  out = table.step(step_of({output(engine_id, 9)}));
  CHECK(others_of(out, router_b) == 276);
  // Another token of it changes nothing.
  out = table.step(step_of({output(engine_id, 9)}));
  CHECK_FALSE(others_of(out, router_b));
  SECTION("it ends") {
    out = table.step(
        step_of({output(engine_id, 9, engine::finish_reason::stop)}));
    CHECK(others_of(out, router_b) == 20);
  }
  SECTION("it is cancelled: that is told with the next step") {
    table.cancel(router_a, 1);
    out = table.step(step_of({}));
    CHECK(others_of(out, router_b) == 20);
    out = table.step(
        step_of({output(engine_id, 9, engine::finish_reason::cancelled)}));
    CHECK_FALSE(others_of(out, router_b)); // it was taken out once
  }
  SECTION("its router is gone") {
    out = table.router_gone(router_a);
    CHECK(others_of(out, router_b) == 0);
  }
  SECTION("its router begins anew") {
    auto again = table.attach(router_a, protocol::protocol_version);
    REQUIRE(again.has_value());
    out = table.step(step_of({}));
    CHECK(others_of(out, router_b) == 0);
  }
}

TEST_CASE("a router of before version 6 hears of no others") {
  session_table table{"m#1", 7, {}, 6};
  table.open();
  REQUIRE(table.attach(router_a, 6).has_value());
  REQUIRE(table.attach(router_b, 5).has_value());
  auto out = table.generate(router_a, long_record(1, 1000, 100), start);
  CHECK_FALSE(others_of(out, router_b));
}

TEST_CASE("work of others adds up whatever happens") {
  table_with_two_routers table;
  std::map<std::uint64_t, std::uint64_t> tokens; // by engine id, router b's
  std::uint64_t seed = 7;
  auto random = [&](std::uint64_t n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed >> 33) % n;
  };
  std::uint64_t id = 100;
  for (int i = 0; i < 500; ++i) {
    if (random(2) == 0 || tokens.empty()) {
      auto prompt = 1 + random(300), more = 1 + random(300);
      auto out = table.generate(
          router_b, long_record(++id, prompt, static_cast<std::uint32_t>(more)),
          start);
      tokens[std::get<submit_choice>(out[0]).request.id] =
          prompt + std::min<std::uint64_t>(more, 256);
    } else {
      auto one = std::next(tokens.begin(),
                           static_cast<std::ptrdiff_t>(random(tokens.size())));
      table.step(
          step_of({output(one->first, 9, engine::finish_reason::length)}));
      tokens.erase(one);
    }
    std::uint64_t all = 0;
    for (auto& [which, of] : tokens)
      all += of;
    auto own = table.run(router_a, 1);
    auto out =
        table.step(step_of({output(own, 9, engine::finish_reason::stop)}));
    REQUIRE(others_of(out, router_a) == all);
  }
}
