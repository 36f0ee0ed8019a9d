#include "actors/protocol/load_messages.hpp"
#include "actors/protocol/request_record.hpp"
#include "actors/runtime/authority.hpp"
#include "actors/runtime/blob_listener.hpp"
#include "actors/runtime/link.hpp"
#include "actors/runtime/stop_actor.hpp"
#include "actors/runtime/system_config.hpp"
#include "router/service.hpp"
#include "tests/actors/http_client.hpp"
#include "tests/actors/temporary_directory.hpp"
#include "tests/unit/router/byte_model.hpp"

#include <catch2/catch.hpp>

#include <boost/asio/ip/host_name.hpp>
#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/send.hpp>
#include <simdjson.h>
#include <spdlog/spdlog.h>

#include <condition_variable>
#include <filesystem>
#include <future>
#include <mutex>
#include <optional>
#include <thread>

using namespace troupe;
using namespace troupe::test;
using namespace std::chrono_literals;
using protocol::finish;

namespace {

constexpr auto patience = 10s;

/// A replica in the test's hands: it shows what it was asked, and says what the
/// test tells it to. Any thread.
class fake_replica {
public:
  explicit fake_replica(caf::actor_system& system, std::uint64_t incarnation)
      : incarnation_(incarnation) {
    actor_ = system.spawn([this](protocol::replica_actor::pointer)
                              -> protocol::replica_actor::behavior_type {
      return {
          [this](protocol::attach_atom, std::uint64_t router, std::uint32_t,
                 const protocol::token_sink_actor& sink) {
            std::lock_guard lock{mutex_};
            router_ = router;
            sink_ = sink;
            return std::make_tuple(incarnation_, protocol::protocol_version);
          },
          [this](protocol::generate_atom, std::uint64_t,
                 const codec::bytes& bytes) {
            auto record = *protocol::decode_request_record(bytes);
            if (answer_) {
              say(record.id, *answer_, finish::length);
              return;
            }
            std::lock_guard lock{mutex_};
            asked_.push_back(std::move(record));
            changed_.notify_all();
          },
          [this](protocol::cancel_atom, std::uint64_t, std::uint64_t id) {
            std::lock_guard lock{mutex_};
            cancelled_.push_back(id);
            changed_.notify_all();
          },
          [](protocol::drain_atom, std::uint32_t) {},
          [](protocol::tune_atom, const codec::bytes&) {},
      };
    });
  }

  ~fake_replica() {
    kill();
    std::lock_guard lock{mutex_};
    sink_ = nullptr;
  }

  void kill() {
    caf::anon_send_exit(actor_, caf::exit_reason::kill);
    actor_ = nullptr;
  }

  const protocol::replica_actor& actor() const {
    return actor_;
  }

  /// The next request that has not been looked at.
  protocol::request_record next() {
    std::unique_lock lock{mutex_};
    REQUIRE(changed_.wait_for(lock, patience,
                              [this] { return seen_ < asked_.size(); }));
    return asked_[seen_++];
  }

  /// The incarnation of the router that has attached.
  std::uint64_t router() {
    std::lock_guard lock{mutex_};
    return router_;
  }

  bool was_cancelled(std::uint64_t id) {
    std::unique_lock lock{mutex_};
    return changed_.wait_for(lock, patience, [&] {
      return std::find(cancelled_.begin(), cancelled_.end(), id) !=
             cancelled_.end();
    });
  }

  void say(std::uint64_t id, std::string_view text,
           finish reason = finish::none) {
    protocol::choice_tokens news;
    news.id = id;
    news.tokens = ids_of(text);
    news.reason = reason;
    tell(std::move(news));
  }

  void tell(protocol::choice_tokens news) {
    protocol::token_batch batch;
    batch.incarnation = incarnation_;
    batch.choices.push_back(std::move(news));
    protocol::token_sink_actor sink;
    {
      std::lock_guard lock{mutex_};
      sink = sink_;
    }
    caf::anon_send(sink, protocol::tokens_atom::value, protocol::encode(batch));
  }

  /// From now on every request is answered with this.
  void answer_with(std::string text) {
    answer_ = std::move(text);
  }

private:
  const std::uint64_t incarnation_;
  protocol::replica_actor actor_;
  std::mutex mutex_;
  std::condition_variable changed_;
  protocol::token_sink_actor sink_;
  std::uint64_t router_ = 0;
  std::vector<protocol::request_record> asked_;
  std::vector<std::uint64_t> cancelled_;
  std::size_t seen_ = 0;
  std::optional<std::string> answer_;
};

struct actor_config : caf::actor_system_config {
  actor_config() {
    add_message_types<caf::id_block::troupe>();
    set("scheduler.max-threads", 2u);
    set("scheduler.policy", caf::atom("sharing"));
    set("logger.console", caf::atom("none"));
  }
};

/// A service on real sockets, with one fake replica behind the model "m", and a
/// second one for those who list it.
struct fixture {
  actor_config config;
  caf::actor_system system{config};
  fake_replica replica{system, 5};
  fake_replica second{system, 6};
  std::unique_ptr<router::service> service;
  std::uint64_t version = 0;
  protocol::router_settings settings; ///< of the tables that are published
  std::atomic<bool> cards_there = true;
  std::atomic<bool> cards_held = false; ///< fetching one takes until it is not
  simdjson::dom::parser parser;

  static router::options plain() {
    spdlog::set_level(spdlog::level::off);
    router::options some;
    some.port = some.admin_port = 0;
    some.access_log = false;
    some.table.wait_max = patience;
    return some;
  }

  explicit fixture(router::options some = plain()) {
    router::replica_access access;
    access.connect = [this](auto, const protocol::endpoint& where, auto,
                            auto done) {
      if (where.incarnation == 5 && replica.actor())
        done(replica.actor());
      else if (where.incarnation == 6 && second.actor())
        done(second.actor());
      else
        done(error{errc::unavailable, "nobody there"});
    };
    access.fetch_card = [this](const protocol::endpoint&,
                               const std::string&) -> result<std::string> {
      while (cards_held)
        std::this_thread::sleep_for(1ms);
      if (!cards_there)
        return error{errc::unavailable, "not yet"};
      auto bytes = text::encode(byte_model_card());
      return std::string{bytes.begin(), bytes.end()};
    };
    settings.access_log = false;
    service = *router::service::start(std::move(some), system, access);
    REQUIRE(service->open_public().has_value());
  }

  ~fixture() {
    cards_held = false;
    service.reset();
  }

  static protocol::model_route model(std::string name, std::string prefix = "/",
                                     bool running = true) {
    protocol::model_route route;
    route.application = prefix == "/" ? "app" : prefix.substr(1);
    route.route_prefix = prefix;
    route.model = std::move(name);
    route.created = 1'700'000'000;
    route.status = running ? "RUNNING" : "PENDING";
    route.reason = running ? "" : "no node has a GPU";
    if (!running)
      return route;
    protocol::replica_route one;
    one.replica = route.model + "#1";
    one.where = {"127.0.0.1", 1, 2, 5};
    one.arithmetic_class = "00112233aabbccdd";
    one.card_hash = "card";
    route.replicas.push_back(one);
    return route;
  }

  void publish(std::vector<protocol::model_route> models) {
    caf::anon_send(service->actor(), protocol::table_atom::value,
                   protocol::encode(protocol::routing_table{
                       ++version, std::move(models), settings}));
  }

  /// The model "m" with both replicas.
  static protocol::model_route both(std::string class_of_second) {
    auto out = model("m");
    auto two = out.replicas.front();
    two.replica = "m#2";
    two.where.incarnation = 6;
    two.arithmetic_class = std::move(class_of_second);
    out.replicas.push_back(two);
    return out;
  }

  /// Publishes the table and waits until it is served.
  void serve(std::vector<protocol::model_route> models = {model("m")}) {
    publish(std::move(models));
    auto end = std::chrono::steady_clock::now() + patience;
    while (!service->ready() && std::chrono::steady_clock::now() < end)
      std::this_thread::sleep_for(1ms);
    REQUIRE(service->ready());
  }

  /// Until so many choices, or requests for models that sleep, wait.
  bool wait_for_waiting(std::uint32_t count) {
    auto said = std::make_shared<std::promise<void>>();
    auto watcher =
        system.spawn([=](protocol::load_sink_actor::pointer)
                         -> protocol::load_sink_actor::behavior_type {
          return {[=, done = false](protocol::load_atom,
                                    const codec::bytes& bytes) mutable {
            std::uint32_t waiting = 0;
            const auto report = protocol::decode_router_report(bytes);
            for (const auto& one : report->models)
              waiting += one.waiting;
            if (waiting == count && !std::exchange(done, true))
              said->set_value();
          }};
        });
    caf::anon_send(service->actor(), protocol::watch_atom::value, watcher);
    auto out = said->get_future().wait_for(patience);
    caf::anon_send_exit(watcher, caf::exit_reason::kill);
    return out == std::future_status::ready;
  }

  http_client start(std::string_view method, std::string_view target,
                    std::string_view body = {}, std::string_view headers = {}) {
    http_client client{service->port()};
    client.send(method, target, body, headers);
    return client;
  }

  http_client whole(std::string_view method, std::string_view target,
                    std::string_view body = {}, std::string_view headers = {}) {
    auto client = start(method, target, body, headers);
    client.read_all();
    return client;
  }

  std::string error_code(const http_client& client) {
    auto body = client.body();
    auto code = parser.parse(body)["error"]["code"];
    return code.is_null() ? "" : std::string{std::string_view(code)};
  }
};

/// For tests that wait in vain.
struct impatient_fixture : fixture {
  impatient_fixture() : fixture(impatient()) {
  }

  static router::options impatient() {
    auto some = plain();
    some.table.wait_max = 500ms;
    return some;
  }
};

constexpr std::string_view chat = "/v1/chat/completions";
constexpr std::string_view completions = "/v1/completions";
constexpr std::string_view hello =
    R"({"model":"m","messages":[{"role":"user","content":"Hello"}]})";
constexpr std::string_view hello_stream =
    R"({"model":"m","messages":[{"role":"user","content":"Hello"}],)"
    R"("stream":true})";

/// A request whose frames are long, and news for it.
std::string chat_with_candidates(std::uint32_t n, std::size_t max_tokens) {
  return R"({"model":"m","messages":[{"role":"user","content":"Hello"}],)"
         R"("stream":true,"logprobs":true,"top_logprobs":20,"n":)" +
         std::to_string(n) + ",\"max_tokens\":" + std::to_string(max_tokens) +
         "}";
}

protocol::choice_tokens token_with_candidates(std::uint64_t id, char letter,
                                              finish reason) {
  protocol::choice_tokens news;
  news.id = id;
  news.tokens = ids_of({&letter, 1});
  news.logprobs.emplace_back();
  for (auto candidate : ids_of("abcdefghijklmnopqrstu"))
    news.logprobs[0].push_back({candidate, -1.0f});
  news.reason = reason;
  return news;
}

/// By choice: the text, and for how many tokens candidates came.
struct told_by_stream {
  std::vector<std::string> texts;
  std::vector<std::size_t> candidates;
  std::size_t frames = 0;
  std::size_t longest = 0; ///< bytes of a frame
};

told_by_stream read_chat_stream(const std::string& body) {
  told_by_stream out;
  simdjson::dom::parser parser;
  for (std::size_t at = 0; (at = body.find("data: {", at)) != body.npos;) {
    auto end = body.find("\n\n", at);
    auto json = body.substr(at + 6, end - at - 6);
    auto choice = parser.parse(json)["choices"].at(0);
    std::uint64_t index = choice["index"];
    out.texts.resize(std::max(out.texts.size(), index + 1));
    out.candidates.resize(out.texts.size());
    out.texts[index] += std::string_view(choice["delta"]["content"]);
    simdjson::dom::array shown;
    if (choice["logprobs"]["content"].get(shown) == simdjson::SUCCESS)
      out.candidates[index] += shown.size();
    out.longest = std::max(out.longest, end - at);
    ++out.frames;
    at = end;
  }
  return out;
}

std::vector<token_id> joined(std::initializer_list<std::vector<token_id>> of) {
  std::vector<token_id> out;
  for (auto& part : of)
    out.insert(out.end(), part.begin(), part.end());
  return out;
}

} // namespace

TEST_CASE_METHOD(fixture, "health is open and says when a model can be asked") {
  CHECK(whole("GET", "/-/healthz").status() == 503);
  CHECK(whole("POST", chat, hello).status() == 503);
  serve();
  auto answer = whole("GET", "/-/healthz");
  CHECK(answer.status() == 200);
  CHECK(answer.body() == "success");
  CHECK(whole("POST", "/-/healthz").status() == 405);
}

TEST_CASE_METHOD(fixture,
                 "a chat goes through template, tokenizer, replica and "
                 "back") {
  serve();
  auto client = start("POST", chat, hello, "X-Request-Id: my-1\r\n");
  auto asked = replica.next();
  CHECK(asked.prompt == joined({{im_start},
                                ids_of("user\nHello"),
                                {im_end},
                                ids_of("\n"),
                                {im_start},
                                ids_of("assistant\n")}));
  CHECK(asked.request_id == "my-1");
  CHECK(asked.params.max_tokens == 256 - asked.prompt.size());
  replica.say(asked.id, "Hi");
  replica.say(asked.id, " you", finish::length);
  client.read_all();
  CHECK(client.status() == 200);
  CHECK(client.header("x-request-id") == "my-1");
  CHECK(client.header("content-type") == "application/json");
  auto body = client.body();
  auto json = parser.parse(body);
  CHECK(std::string_view(json["id"]) == "chatcmpl-my-1");
  CHECK(std::string_view(json["system_fingerprint"]) == "00112233aabbccdd");
  auto choice = json["choices"].at(0);
  CHECK(std::string_view(choice["message"]["content"]) == "Hi you");
  CHECK(std::string_view(choice["finish_reason"]) == "length");
  CHECK(std::uint64_t(json["usage"]["completion_tokens"]) == 6);
}

TEST_CASE_METHOD(fixture, "a stream's first token is sent before the second is "
                          "known") {
  serve();
  auto client = start("POST", chat, hello_stream);
  auto asked = replica.next();
  replica.say(asked.id, "A");
  CHECK(client.wait_for("\"content\":\"A\""));
  CHECK(client.header("content-type") == "text/event-stream; charset=utf-8");
  CHECK(!client.header("x-request-id").empty());
  replica.say(asked.id, "B", finish::length);
  client.read_all();
  CHECK(client.body().ends_with("data: [DONE]\n\n"));
  CHECK(client.whole());
}

TEST_CASE_METHOD(fixture, "content never yields special tokens, raw prompts "
                          "do") {
  serve();
  auto one = start("POST", chat,
                   R"({"messages":[{"role":"user","content":"<|im_end|>"}]})");
  auto asked = replica.next();
  CHECK(std::count(asked.prompt.begin(), asked.prompt.end(), im_end) == 1);
  replica.say(asked.id, "x", finish::length);
  one.read_all();
  auto two = start("POST", completions, R"({"prompt":"<|im_end|>"})");
  asked = replica.next();
  CHECK(asked.prompt == std::vector<token_id>{im_end});
  replica.say(asked.id, "x", finish::length);
  two.read_all();
}

TEST_CASE_METHOD(fixture, "several prompts and n make choices with numbers and "
                          "one seed") {
  serve();
  auto client = start("POST", completions,
                      R"({"prompt":["ab","cd"],"n":2,"max_tokens":4})");
  std::optional<std::uint64_t> seed;
  for (int i = 0; i < 4; ++i) {
    auto asked = replica.next();
    auto choice = asked.params.choice;
    CHECK(asked.prompt == ids_of(choice < 2 ? "ab" : "cd"));
    CHECK(asked.params.seed == seed.value_or(asked.params.seed));
    seed = asked.params.seed;
    replica.say(asked.id, std::string(1, static_cast<char>('0' + choice)),
                finish::length);
  }
  client.read_all();
  auto body = client.body();
  auto choices = parser.parse(body)["choices"];
  REQUIRE(choices.get_array().size() == 4);
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(std::string_view(choices.at(i)["text"]) == std::to_string(i));
}

TEST_CASE_METHOD(fixture, "a given seed is passed on, a missing one is drawn") {
  serve();
  auto one = start("POST", completions, R"({"prompt":"a","seed":99})");
  auto asked = replica.next();
  CHECK(asked.params.seed == 99);
  auto two = start("POST", completions, R"({"prompt":"a"})");
  auto three = start("POST", completions, R"({"prompt":"a"})");
  CHECK(replica.next().params.seed != replica.next().params.seed);
}

TEST_CASE_METHOD(fixture, "a stop string ends the choice and cancels it at the "
                          "replica") {
  serve();
  auto client =
      start("POST", completions,
            R"({"prompt":"a","stop":"END","max_tokens":50,"stream":true})");
  auto asked = replica.next();
  replica.say(asked.id, "xENDy");
  CHECK(replica.was_cancelled(asked.id));
  client.read_all();
  CHECK(client.raw().find("\"finish_reason\":\"stop\"") != std::string::npos);
  CHECK(client.raw().find('y' + std::string{"\""}) == std::string::npos);
  CHECK(client.whole());
}

TEST_CASE_METHOD(fixture, "a connection that closes cancels its request") {
  serve();
  auto streaming = start("POST", chat, hello_stream);
  auto asked = replica.next();
  replica.say(asked.id, "A");
  CHECK(streaming.wait_for("\"A\""));
  streaming.close();
  replica.say(asked.id, "B"); // what is sent tells that nobody takes it
  CHECK(replica.was_cancelled(asked.id));
  auto waiting = start("POST", chat, hello);
  asked = replica.next();
  waiting.close();
  CHECK(replica.was_cancelled(asked.id));
}

TEST_CASE_METHOD(fixture, "a client that only ends its sending is answered, "
                          "streamed or not") {
  serve();
  for (auto body : {hello_stream, hello}) {
    auto client = start("POST", chat, body);
    auto asked = replica.next();
    client.end_sending();
    replica.say(asked.id, "A");
    if (body == hello_stream)
      CHECK(client.wait_for("\"content\":\"A\""));
    else
      CHECK(client.wait_for("H")); // the server has seen it
    replica.say(asked.id, "B", finish::length);
    client.read_all();
    CHECK(client.status() == 200);
    CHECK(client.raw().find("\"finish_reason\":\"length\"") !=
          std::string::npos);
  }
}

TEST_CASE_METHOD(fixture, "a reader that falls behind by megabytes misses "
                          "nothing and is given it in fewer frames") {
  serve();
  constexpr std::uint32_t choices = 8;
  constexpr std::size_t length = 200;
  http_client client{service->port(), 4096};
  client.send("POST", chat, chat_with_candidates(choices, length));
  std::vector<std::uint64_t> ids(choices);
  for (std::uint32_t i = 0; i < choices; ++i) {
    auto asked = replica.next();
    ids[asked.params.choice] = asked.id;
  }
  std::string expected;
  for (std::size_t at = 0; at < length; ++at) {
    expected += static_cast<char>('a' + at % 21);
    for (auto id : ids)
      replica.tell(token_with_candidates(id, expected.back(),
                                         at + 1 == length ? finish::length
                                                          : finish::none));
  }
  // The replica has done its part, and others are served.
  auto another = start("POST", completions, R"({"prompt":"a"})");
  replica.say(replica.next().id, "x", finish::length);
  another.read_all();
  CHECK(another.status() == 200);

  client.read_all();
  CHECK(client.whole());
  CHECK(client.body().ends_with("data: [DONE]\n\n"));
  auto told = read_chat_stream(client.body());
  CHECK(told.texts == std::vector<std::string>(choices, expected));
  CHECK(told.candidates == std::vector<std::size_t>(choices, length));
  CHECK(told.frames < choices * length);
  CHECK(told.longest < 32 * 1024);
}

TEST_CASE_METHOD(fixture, "an error comes behind the tokens that a slow reader "
                          "has not taken yet") {
  serve();
  auto client = start("POST", chat, chat_with_candidates(1, 200));
  auto asked = replica.next();
  constexpr std::size_t length = 190;
  for (std::size_t at = 0; at < length; ++at)
    replica.tell(token_with_candidates(asked.id, 'b', finish::none));
  protocol::choice_tokens last;
  last.id = asked.id;
  last.reason = finish::error;
  last.code = errc::invalid_argument;
  last.message = "no more";
  replica.tell(std::move(last));
  client.read_all();
  auto body = client.body();
  auto wrong = body.find("data: {\"error\"");
  REQUIRE(wrong != std::string::npos);
  CHECK(body.find("\n\n", wrong) + 2 == body.size());
  CHECK(!client.whole());
  auto told = read_chat_stream(body.substr(0, wrong));
  CHECK(told.texts == std::vector<std::string>{std::string(length, 'b')});
}

TEST_CASE_METHOD(fixture,
                 "a stream whose replica is lost goes on elsewhere and "
                 "its client sees nothing of it") {
  serve();
  auto client =
      start("POST", chat,
            R"({"model":"m","messages":[{"role":"user","content":"Hello"}],)"
            R"("stream":true,"stream_options":{"include_usage":true}})");
  auto asked = replica.next();
  replica.say(asked.id, "A");
  CHECK(client.wait_for("\"A\""));
  publish({both("00112233aabbccdd")});
  replica.kill();
  auto moved = second.next();
  CHECK(moved.output == ids_of("A"));
  second.say(moved.id, "B", finish::length);
  client.read_all();
  CHECK(client.whole());
  auto body = client.body();
  CHECK(body.find("\"error\"") == std::string::npos);
  CHECK(body.find("\"content\":\"B\"") != std::string::npos);
  CHECK(body.find("\"completion_tokens\":2") != std::string::npos);
  CHECK(body.ends_with("data: [DONE]\n\n"));
}

TEST_CASE_METHOD(fixture, "a stream that goes on in another arithmetic class "
                          "bears its fingerprint from then on") {
  serve();
  auto client = start("POST", chat, hello_stream);
  auto asked = replica.next();
  replica.say(asked.id, "A");
  CHECK(client.wait_for("\"A\""));
  auto other = both("other");
  other.replicas.erase(other.replicas.begin());
  publish({other});
  replica.kill();
  second.say(second.next().id, "B", finish::length);
  client.read_all();
  CHECK(client.whole());
  auto body = client.body();
  auto change = body.find("\"system_fingerprint\":\"other\"");
  CHECK(change != std::string::npos);
  CHECK(change > body.rfind("\"system_fingerprint\":\"00112233aabbccdd\""));
}

TEST_CASE_METHOD(impatient_fixture,
                 "a stream that nobody can go on with ends with an error and "
                 "without [DONE]") {
  serve();
  auto client = start("POST", chat, hello_stream);
  auto asked = replica.next();
  replica.say(asked.id, "A");
  CHECK(client.wait_for("\"A\""));
  replica.kill();
  client.read_all();
  CHECK(client.body().find("\"error\"") != std::string::npos);
  CHECK(client.body().find("[DONE]") == std::string::npos);
  CHECK(!client.whole());
}

TEST_CASE_METHOD(fixture, "a request that ends its replicas is told the "
                          "incident, not the reason") {
  serve();
  auto client = start("POST", chat, hello, "X-Request-Id: my-1\r\n");
  auto notice = [&](std::uint64_t incarnation, std::uint64_t id) {
    protocol::death_notice what;
    what.incarnation = incarnation;
    what.own_fault = true;
    what.running = {{replica.router(), id}};
    what.reason = "killed by SIGSEGV";
    caf::anon_send(service->actor(), protocol::death_atom::value,
                   protocol::encode(what));
  };
  auto asked = replica.next();
  publish({both("00112233aabbccdd")});
  notice(5, asked.id);
  replica.kill();
  asked = second.next();
  CHECK(asked.alone);
  notice(6, asked.id);
  second.kill();
  client.read_all();
  CHECK(client.status() == 500);
  CHECK(error_code(client) == "request_ends_replicas");
  CHECK(client.body().find("incident ") != std::string::npos);
  CHECK(client.body().find("SIGSEGV") == std::string::npos);
}

TEST_CASE_METHOD(fixture, "an error before the first token is a plain answer, "
                          "also for a stream") {
  serve();
  auto client = start("POST", chat, hello_stream);
  protocol::choice_tokens news;
  news.id = replica.next().id;
  news.reason = finish::error;
  news.code = errc::cancelled;
  news.message = "The replica gave it up.";
  replica.tell(news);
  client.read_all();
  CHECK(client.status() == 503);
  CHECK(client.header("retry-after") == "1");
  CHECK(client.header("content-type") == "application/json");
  auto body = client.body();
  CHECK(std::string_view(parser.parse(body)["error"]["message"]) ==
        "The replica gave it up.");
}

TEST_CASE_METHOD(fixture, "what is internal stays internal") {
  serve();
  auto client = start("POST", chat, hello);
  protocol::choice_tokens news;
  news.id = replica.next().id;
  news.reason = finish::error;
  news.code = errc::internal;
  news.message = "assertion failed in /secret/place";
  replica.tell(news);
  client.read_all();
  CHECK(client.status() == 500);
  CHECK(client.body().find("secret") == std::string::npos);
}

TEST_CASE_METHOD(fixture, "wrong paths, methods and types are told apart") {
  serve();
  CHECK(whole("GET", "/v1/nope").status() == 404);
  CHECK(whole("GET", "/").status() == 404);
  CHECK(whole("GET", "/metrics").status() == 404);
  CHECK(whole("GET", "/-/routes").status() == 404);
  CHECK(whole("POST", "/V1/completions", "{}").status() == 404);
  auto wrong = whole("GET", chat);
  CHECK(wrong.status() == 405);
  CHECK(wrong.header("allow") == "POST");
  CHECK(whole("OPTIONS", chat).status() == 405);
  wrong = whole("POST", "/v1/models", "{}");
  CHECK(wrong.status() == 405);
  CHECK(wrong.header("allow") == "GET");
  CHECK(whole("HEAD", "/v1/models").status() == 405);
  auto moved = whole("POST", "/v1/chat/completions/?a=1", hello);
  CHECK(moved.status() == 307);
  CHECK(moved.header("location") == "/v1/chat/completions?a=1");
  CHECK(whole("POST", chat, hello, "Content-Type: text/plain\r\n").status() ==
        415);
  // No answer says that another origin's page may read it, and a browser asks
  // (OPTIONS) before it sends JSON there.
  auto foreign =
      whole("GET", "/v1/models", "", "Origin: http://other.example\r\n");
  CHECK(foreign.status() == 200);
  CHECK(foreign.header("access-control-allow-origin").empty());
  CHECK(whole("POST", chat, "{").status() == 400);
}

TEST_CASE_METHOD(fixture,
                 "models are listed, with slashes in their names, each "
                 "under its application") {
  serve({model("a/b"), model("c"), model("d", "/other")});
  auto all = whole("GET", "/v1/models").body();
  auto data = parser.parse(all)["data"];
  REQUIRE(data.get_array().size() == 2);
  CHECK(std::string_view(data.at(0)["id"]) == "a/b");
  CHECK(whole("GET", "/v1/models/a/b").status() == 200);
  CHECK(whole("GET", "/v1/models/a%2Fb").status() == 200);
  CHECK(whole("GET", "/v1/models/d").status() == 404);
  CHECK(whole("GET", "/other/v1/models/d").status() == 200);
  CHECK(whole("GET", "/otherv1/models/d").status() == 404);
  CHECK(error_code(whole("GET", "/v1/models/nope")) == "model_not_found");
}

TEST_CASE_METHOD(fixture, "the model of a request is found, or it is said why "
                          "not") {
  serve({model("m"), model("gpu", "/", false)});
  auto unknown = whole("POST", completions, R"({"model":"x","prompt":"a"})");
  CHECK(unknown.status() == 404);
  CHECK(error_code(unknown) == "model_not_found");
  auto adapter = whole("POST", completions, R"({"model":"m:a","prompt":"a"})");
  CHECK(adapter.status() == 404);
  auto missing = whole("POST", completions, R"({"prompt":"a"})");
  CHECK(missing.status() == 400);
  CHECK(missing.body().find("m, gpu") != std::string::npos);
  auto pending = whole("POST", completions, R"({"model":"gpu","prompt":"a"})");
  CHECK(pending.status() == 503);
  CHECK(pending.body().find("cannot answer now") != std::string::npos);
  // Names of nodes and files are for `troupe status`, not for clients.
  CHECK(pending.body().find("no node has a GPU") == std::string::npos);
  CHECK(!pending.header("retry-after").empty());
}

TEST_CASE_METHOD(fixture,
                 "what does not fit the model is refused at the edge") {
  serve();
  auto prompt = [](std::size_t size, std::string_view more) {
    return R"({"prompt":")" + std::string(size, 'a') + "\"" +
           std::string{more} + "}";
  };
  CHECK(
      whole("POST", completions, prompt(256, R"(,"max_tokens":1)")).status() ==
      400);
  CHECK(
      whole("POST", completions, prompt(255, R"(,"max_tokens":2)")).status() ==
      400);
  auto exact = start("POST", completions, prompt(255, R"(,"max_tokens":1)"));
  replica.say(replica.next().id, "x", finish::length);
  exact.read_all();
  CHECK(exact.status() == 200);
  CHECK(whole("POST", completions, R"({"prompt":[258]})").status() == 400);
  CHECK(whole("POST", completions, R"({"prompt":[-1]})").status() == 400);
  CHECK(whole("POST", completions, R"({"prompt":"a","logit_bias":{"258":1}})")
            .status() == 400);
}

TEST_CASE_METHOD(fixture, "who waits for a model to wake goes on waiting when "
                          "it is deployed anew, unless that fails") {
  auto asleep = [](std::string name) {
    auto route = model(std::move(name), "/", false);
    route.status = "RUNNING";
    route.without_replica = protocol::waking::wakes;
    return route;
  };
  auto deployed = [](std::string name, std::string status) {
    auto route = model(std::move(name), "/", false); // with min_replicas: 1
    route.status = std::move(status);
    return route;
  };
  serve({asleep("m"), asleep("n")});
  auto one = start("POST", completions, R"({"model":"m","prompt":"a"})");
  auto other = start("POST", completions, R"({"model":"n","prompt":"a"})");
  REQUIRE(wait_for_waiting(2));
  publish({deployed("m", "DEPLOYING"), deployed("n", "DEPLOYING")});
  publish({deployed("m", "PENDING"), deployed("n", "PENDING")});
  publish({model("m"), deployed("n", "DEPLOY_FAILED")});
  auto asked = replica.next();
  replica.say(asked.id, "b", finish::length);
  one.read_all();
  CHECK(one.status() == 200);
  other.read_all();
  CHECK(other.status() == 503);
  CHECK(other.body().find("DEPLOY_FAILED") != std::string::npos);
}

TEST_CASE_METHOD(fixture, "the last message is continued where it ends") {
  serve();
  auto client = start("POST", chat,
                      R"({"messages":[{"role":"user","content":"Q"},)"
                      R"({"role":"assistant","content":"It is "}],)"
                      R"("add_generation_prompt":false,)"
                      R"("continue_final_message":true})");
  auto asked = replica.next();
  CHECK(asked.prompt == joined({{im_start},
                                ids_of("user\nQ"),
                                {im_end},
                                ids_of("\n"),
                                {im_start},
                                ids_of("assistant\nIt is ")}));
}

TEST_CASE_METHOD(fixture, "echo without tokens shows the prompt") {
  serve();
  auto client = start("POST", completions,
                      R"({"prompt":"abc","echo":true,"max_tokens":0})");
  auto asked = replica.next();
  CHECK(asked.params.max_tokens == 1);
  replica.say(asked.id, "x");
  client.read_all();
  auto body = client.body();
  auto json = parser.parse(body);
  CHECK(std::string_view(json["choices"].at(0)["text"]) == "abc");
  CHECK(std::uint64_t(json["usage"]["completion_tokens"]) == 0);
}

TEST_CASE("with keys every path but health needs one") {
  fixture with;
  with.settings.api_keys = {"sesame"};
  with.serve();
  CHECK(with.whole("GET", "/-/healthz").status() == 200);
  for (auto target : {"/v1/models", "/v1/nope", "/", "/v1/models/"}) {
    auto refused = with.whole("GET", target);
    CHECK(refused.status() == 401);
    CHECK(refused.header("www-authenticate") == "Bearer");
    CHECK(!refused.header("x-request-id").empty());
  }
  CHECK(with.whole("GET", "/v1/models", "", "Authorization: Bearer no\r\n")
            .status() == 401);
  CHECK(with.whole("GET", "/v1/models?api_key=sesame").status() == 401);
  CHECK(with.whole("GET", "/v1/models", "", "Authorization: Bearer sesame\r\n")
            .status() == 200);
}

TEST_CASE("the root path is taken off paths and put before redirects") {
  fixture with;
  with.settings.root_path = "/serve";
  with.serve();
  CHECK(with.whole("GET", "/serve/v1/models").status() == 200);
  CHECK(with.whole("GET", "/v1/models").status() == 200);
  CHECK(with.whole("GET", "/servev1/models").status() == 404);
  CHECK(with.whole("GET", "/v1/models/").header("location") ==
        "/serve/v1/models");
  CHECK(with.whole("GET", "/serve/v1/models/").header("location") ==
        "/serve/v1/models");
}

TEST_CASE("past the requests in flight the answer is 503 at once") {
  fixture with;
  with.settings.requests_max = 1;
  with.serve();
  auto first = with.start("POST", chat, hello);
  auto asked = with.replica.next();
  auto second = with.whole("POST", chat, hello);
  CHECK(second.status() == 503);
  CHECK(second.header("retry-after") == "1");
  with.replica.say(asked.id, "x", finish::length);
  first.read_all();
  CHECK(first.status() == 200);
  auto third = with.start("POST", chat, hello);
  with.replica.say(with.replica.next().id, "x", finish::length);
  third.read_all();
  CHECK(third.status() == 200);
}

TEST_CASE("the time limit is a 408 before the first byte and a cut after it") {
  fixture with;
  with.settings.request_timeout_ms = 1500;
  with.serve();
  auto silent = with.start("POST", chat, hello_stream);
  auto silent_id = with.replica.next().id;
  auto begun = with.start("POST", chat, hello_stream);
  auto begun_id = with.replica.next().id;
  with.replica.say(begun_id, "A");
  silent.read_all();
  CHECK(silent.status() == 408);
  CHECK(with.replica.was_cancelled(silent_id));
  begun.read_all();
  CHECK(begun.status() == 200);
  CHECK(!begun.whole());
  CHECK(with.replica.was_cancelled(begun_id));
}

TEST_CASE_METHOD(fixture,
                 "a model that was there and comes back is waited for, "
                 "another one is not") {
  serve();
  auto away = model("m");
  away.replicas.clear();
  away.status = "UNHEALTHY";
  publish({away});
  while (service->ready())
    std::this_thread::sleep_for(1ms);
  auto client = start("POST", chat, hello);
  REQUIRE(wait_for_waiting(1));
  publish({model("m")});
  replica.say(replica.next().id, "x", finish::length);
  client.read_all();
  CHECK(client.status() == 200);
  away.status = "PENDING";
  publish({away});
  while (service->ready())
    std::this_thread::sleep_for(1ms);
  CHECK(error_code(whole("POST", chat, hello)) == "model_not_ready");
}

TEST_CASE("time limit and departure count while a request waits to be read") {
  fixture with;
  with.cards_held = true;
  with.settings.request_timeout_ms = 200;
  with.settings.requests_max = 1;
  with.publish({fixture::model("m")});
  while (with.whole("GET", "/v1/models").status() != 200)
    std::this_thread::sleep_for(1ms);
  CHECK(with.whole("POST", chat, hello).status() == 408);
  with.settings.request_timeout_ms = 0;
  with.settings.root_path = "/now";
  with.publish({fixture::model("m")});
  while (with.whole("GET", "/v1/models/").header("location") !=
         "/now/v1/models")
    std::this_thread::sleep_for(1ms);
  auto wait_for_inside = [&](int count) {
    auto line = "\ntroupe_requests_in_flight " + std::to_string(count) + "\n";
    for (;;) {
      http_client admin{with.service->admin_port()};
      admin.send("GET", "/metrics");
      admin.read_all();
      if (admin.body().find(line) != std::string::npos)
        return;
      std::this_thread::sleep_for(1ms);
    }
  };
  auto leaving = with.start("POST", chat, hello);
  wait_for_inside(1);
  leaving.close();
  wait_for_inside(0);
  auto next = with.start("POST", chat, hello);
  with.cards_held = false;
  with.replica.say(with.replica.next().id, "x", finish::length);
  next.read_all();
  CHECK(next.status() == 200);
}

TEST_CASE_METHOD(impatient_fixture,
                 "a model whose card cannot be fetched is not ready, until it "
                 "can") {
  cards_there = false;
  replica.answer_with("x");
  publish({model("m")});
  while (whole("POST", chat, hello).body().find("starting") !=
         std::string::npos)
    std::this_thread::sleep_for(1ms);
  CHECK(whole("POST", chat, hello).status() == 503);
  CHECK(!service->ready());
  cards_there = true;
  auto end = std::chrono::steady_clock::now() + patience;
  while (!service->ready() && std::chrono::steady_clock::now() < end)
    whole("POST", chat, hello);
  CHECK(whole("POST", chat, hello).status() == 200);
}

TEST_CASE_METHOD(fixture, "the admin side has routes, metrics and what is "
                          "added") {
  serve({model("m"), model("d", "/other")});
  replica.answer_with("xy");
  CHECK(
      whole("POST", completions, R"({"model":"m","prompt":"abc"})").status() ==
      200);
  service->add_admin_route(
      "GET", "/api/status",
      [](http::request, std::shared_ptr<http::reply> reply) {
        reply->respond(200, {{"content-type", "text/plain"}}, "fine");
      });
  auto get = [&](std::string_view target, std::string_view headers = {}) {
    http_client client{service->admin_port()};
    client.send("GET", target, {}, headers);
    client.read_all();
    return client;
  };
  CHECK(get("/-/healthz").body() == "success");
  CHECK(get("/-/routes").body() == R"({"/":"app","/other":"other"})");
  CHECK(get("/api/status").body() == "fine");
  auto metrics = get("/metrics").body();
  auto labels = std::string{"{application=\"app\",model_name=\"m\"} "};
  for (auto& line : std::vector<std::string>{
           "ray_vllm_prompt_tokens_total" + labels + "3\n",
           "ray_vllm_generation_tokens_total" + labels + "2\n",
           "ray_vllm_time_to_first_token_seconds_count"
           "{application=\"app\",model_name=\"m\"} 1\n"})
    CHECK(metrics.find(line) != std::string::npos);
  CHECK(get("/v1/models").status() == 404);
  CHECK(get("/metrics", "Host: evil.example\r\n").status() == 403);
  CHECK(get("/metrics", "Origin: http://evil.example\r\n").status() == 403);
}

TEST_CASE_METHOD(fixture, "no page of a browser changes anything on the admin "
                          "side, and nothing of it is public") {
  serve();
  for (auto method : {"PUT", "DELETE", "POST", "GET"})
    service->add_admin_route(
        method, "/api/serve/applications/",
        [](http::request, std::shared_ptr<http::reply> reply) {
          reply->respond(200, {{"content-type", "text/plain"}}, "done");
        });
  auto status = [&](std::string_view method, std::string_view headers) {
    http_client client{service->admin_port()};
    client.send(method, "/api/serve/applications/", {}, headers);
    client.read_all();
    return client.status();
  };
  auto port = std::to_string(service->admin_port());
  auto own_page = "Origin: http://localhost:" + port +
                  "\r\nHost: localhost:" + port + "\r\n";
  for (auto method : {"PUT", "DELETE", "POST"}) {
    CAPTURE(method);
    CHECK(status(method, {}) == 200);
    CHECK(status(method, "Host: 127.0.0.1:" + port + "\r\n") == 200);
    CHECK(status(method, "Host: [::1]\r\n") == 200);
    CHECK(status(method, "Host: " + boost::asio::ip::host_name() + "\r\n") ==
          200);
    CHECK(status(method, "Origin: http://evil.example\r\n") == 403);
    CHECK(status(method, "Origin: null\r\n") == 403);
    CHECK(status(method, own_page) == 403);
    CHECK(status(method, "Host: evil.example\r\n") == 403);
    CHECK(status(method, "Host: 127.0.0.1.evil.example\r\n") == 403);
    CHECK(whole(method, "/api/serve/applications/").status() == 404);
  }
  CHECK(status("GET", own_page) == 200);
  CHECK(whole("GET", "/api/serve/applications/").status() == 404);
}

TEST_CASE("until the first table the options count, then its settings") {
  auto some = fixture::plain();
  some.api_keys = {"sesame"};
  fixture with{some};
  CHECK(with.whole("GET", "/v1/models").status() == 401);
  with.serve();
  CHECK(with.whole("GET", "/v1/models").status() == 200);
  with.settings.api_keys = {"other"};
  with.settings.keep_alive_ms = 50;
  with.publish({fixture::model("m")});
  while (with.whole("GET", "/v1/models").status() == 200)
    std::this_thread::sleep_for(1ms);
  CHECK(with.whole("GET", "/v1/models", "", "Authorization: Bearer other\r\n")
            .status() == 200);
  // An idle connection is closed after the new time.
  http_client idle{with.service->port()};
  idle.send_text("GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"
                 "Authorization: Bearer other\r\n\r\n");
  idle.read_all();
  CHECK(idle.status() == 200);
}

TEST_CASE_METHOD(fixture, "the public side can be closed and opened while the "
                          "admin side stays") {
  serve();
  auto port = service->port();
  auto client = start("POST", chat, hello_stream);
  auto asked = replica.next();
  replica.say(asked.id, "A");
  CHECK(client.wait_for("\"A\""));
  http_client idle{port};
  auto closed =
      std::async(std::launch::async, [&] { service->close_public(10s); });
  while (service->ready())
    std::this_thread::sleep_for(1ms);
  idle.read_all(); // is closed
  replica.say(asked.id, "B", finish::length);
  client.read_all();
  CHECK(client.whole());
  closed.get();
  CHECK_THROWS(http_client{port});
  http_client operators{service->admin_port()};
  operators.send("GET", "/-/routes");
  operators.read_all();
  CHECK(operators.status() == 200);
  service->close_public(0ms); // is closed already
  REQUIRE(service->open_public().has_value());
  REQUIRE(service->open_public().has_value()); // is open already
  CHECK(service->ready());
  CHECK(whole("GET", "/v1/models").status() == 200);
}

TEST_CASE_METHOD(fixture, "answers that outlive the closing of the public side "
                          "are cut and cancelled") {
  serve();
  auto client = start("POST", chat, hello_stream);
  auto asked = replica.next();
  replica.say(asked.id, "A");
  CHECK(client.wait_for("\"A\""));
  service->close_public(20ms);
  client.read_all();
  CHECK(!client.whole());
  CHECK(replica.was_cancelled(asked.id));
}

TEST_CASE("two services cannot have one public port, and the admin side needs "
          "no public one") {
  fixture one;
  auto some = fixture::plain();
  some.port = one.service->port();
  auto two = router::service::start(some, one.system);
  REQUIRE(two.has_value());
  CHECK((*two)->admin_port() != 0);
  CHECK((*two)->port() == 0);
  CHECK(!(*two)->open_public().has_value());
}

TEST_CASE_METHOD(fixture, "stopping lets answers end, refuses new ones and "
                          "closes") {
  serve();
  auto client = start("POST", chat, hello_stream);
  auto asked = replica.next();
  replica.say(asked.id, "A");
  CHECK(client.wait_for("\"A\""));
  auto stopped =
      std::async(std::launch::async, [&] { return service->stop(10s); });
  while (service->ready())
    std::this_thread::sleep_for(1ms);
  replica.say(asked.id, "B", finish::length);
  client.read_all();
  CHECK(client.whole());
  CHECK(stopped.get());
  CHECK_THROWS(http_client{service->port()});
}

TEST_CASE_METHOD(fixture, "at the deadline of stopping what is left ends with "
                          "an error") {
  serve();
  auto streaming = start("POST", chat, hello_stream);
  auto asked = replica.next();
  replica.say(asked.id, "A");
  CHECK(streaming.wait_for("\"A\""));
  auto waiting = start("POST", chat, hello);
  replica.next();
  CHECK(!service->stop(50ms));
  streaming.read_all();
  CHECK(streaming.body().find("shutting down") != std::string::npos);
  CHECK(!streaming.whole());
  waiting.read_all();
  CHECK(waiting.status() == 503);
}

TEST_CASE_METHOD(fixture, "many streams take no more threads than one") {
  auto threads = [] {
    std::size_t count = 0;
    for (auto& one : std::filesystem::directory_iterator{"/proc/self/task"})
      count += one.path().empty() ? 0 : 1;
    return count;
  };
  serve();
  std::vector<http_client> clients;
  std::vector<protocol::request_record> asked;
  auto open = [&] {
    clients.push_back(start("POST", chat, hello_stream));
    asked.push_back(replica.next());
    replica.say(asked.back().id, "A");
    CHECK(clients.back().wait_for("\"A\""));
  };
  open();
  auto with_one = threads();
  while (clients.size() < 200)
    open();
  CHECK(threads() == with_one);
  for (auto& one : asked)
    replica.say(one.id, "B", finish::length);
  for (auto& client : clients) {
    client.read_all();
    CHECK(client.whole());
  }
}

TEST_CASE("over mutual TLS the router fetches the card, attaches and sees its "
          "replica's process go") {
  spdlog::set_level(spdlog::level::off);
  temporary_directory tmp;
  auto ca = runtime::authority::open(tmp.path() / "ca").value();
  auto here = ca.issue("router", tmp.path() / "router").value();
  auto there = ca.issue("replica", tmp.path() / "replica").value();
  runtime::system_config here_config{{here, 2, 200ms, 1s}};
  caf::actor_system here_system{here_config};
  auto some = fixture::plain();
  some.tls = here;
  some.table.wait_max = 1500ms; // in the end it waits in vain
  auto service = *router::service::start(some, here_system);
  REQUIRE(service->open_public().has_value());
  {
    runtime::system_config there_config{{there, 2, 200ms, 1s}};
    caf::actor_system there_system{there_config};
    fake_replica replica{there_system, 5};
    auto blobs = runtime::blob_listener::start(there, "127.0.0.1").value();
    auto bytes = text::encode(byte_model_card());
    auto model = fixture::model("m");
    auto& route = model.replicas.front();
    route.card_hash = blobs->add({bytes.begin(), bytes.end()}).value();
    route.where.port = runtime::publish(replica.actor(), "127.0.0.1").value();
    route.where.blob_port = blobs->port();
    caf::anon_send(service->actor(), protocol::table_atom::value,
                   protocol::encode(protocol::routing_table{1, {model}, {}}));
    while (!service->ready())
      std::this_thread::sleep_for(1ms);
    http_client client{service->port()};
    client.send("POST", chat, hello_stream);
    auto asked = replica.next();
    replica.say(asked.id, "A");
    CHECK(client.wait_for("\"A\""));
    http_client leaving{service->port()};
    leaving.send("POST", chat, hello);
    asked = replica.next();
    leaving.close();
    CHECK(replica.was_cancelled(asked.id));
    runtime::stop_actor(there_system, replica.actor(), 2s);
    client.read_all();
    CHECK(client.body().find("in time") != std::string::npos);
    CHECK(!client.whole());
  }
  service.reset();
}
