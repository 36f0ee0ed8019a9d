#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/launch_record.hpp"
#include "actors/protocol/load_messages.hpp"
#include "actors/protocol/record_layout.hpp"
#include "actors/protocol/request_record.hpp"
#include "actors/protocol/token_batch.hpp"

#include <catch2/catch.hpp>

#include <random>

using namespace troupe;
using namespace troupe::protocol;

namespace {

request_record full_request() {
  request_record x;
  x.id = 0x0123456789abcdef;
  x.request_id = "req-1";
  x.model = "smollm2";
  x.prompt = {1, 2, -3, 49'151};
  x.output = {4, 5};
  auto& p = x.params;
  p.temperature = 0.7f;
  p.top_p = 0.9f;
  p.top_k = 40;
  p.min_p = 0.05f;
  p.frequency_penalty = -0.5f;
  p.presence_penalty = 0.25f;
  p.repetition_penalty = 1.1f;
  p.logit_bias = {{7, -100.f}, {8, 2.5f}};
  p.seed = UINT64_MAX;
  p.choice = 3;
  p.max_tokens = 100;
  p.min_tokens = 2;
  p.stop_token_ids = {0, 2};
  p.ignore_eos = true;
  p.logprobs = 5;
  p.prompt_logprobs = 0;
  x.priority = -2;
  x.deadline_ms = 30'000;
  x.alone = true;
  x.second_text = 2;
  return x;
}

token_batch full_tokens() {
  choice_tokens first;
  first.id = 9;
  first.tokens = {10, 11};
  first.logprobs = {{{10, -0.5f}, {12, -1.5f}}, {}};
  first.prompt_logprobs = {{}, {{3, -2.f}}};
  first.cached_tokens = 16;
  first.vector = {0.5f, -1.f};
  choice_tokens last;
  last.id = 10;
  last.reason = finish::error;
  last.stop_token = 2;
  last.code = errc::limit;
  last.message = "too long";
  token_batch x{
      "smollm2#1", 77, 12, {first, last, {}}, {4, true, 16, {5, 6}, {7}}};
  x.no_session = true;
  return x;
}

endpoint full_endpoint() {
  return {"127.0.0.1", 4242, 4243, 5};
}

capabilities full_capabilities() {
  return {false, false, false, false, true, true, true, true};
}

routing_table full_table() {
  replica_route replica{"m#1",   "head",    full_endpoint(),
                        "class", "abcdef0", full_capabilities(),
                        64,      2};
  model_route model{"app",     "/", "m",           1'700'000'000,
                    "RUNNING", "",  {replica, {}}, 12};
  model.choice = {choice_policy::prefix, 0.25, 4};
  model_route pending{"app", "/", "big", 1, "PENDING", "needs a GPU", {}};
  router_settings settings{{"key", "other"}, "/root", 5, 6, 7, false, true};
  return {3, {model, pending}, settings};
}

replica_spec full_spec() {
  replica_spec x;
  x.replica = "m#1";
  x.node = "head";
  x.application = "app";
  x.model = "m";
  x.model_source = "/models/m.gguf";
  x.tokenizer_source = "/models/t";
  x.max_model_len = 2048;
  x.max_num_seqs = 8;
  x.max_num_batched_tokens = 256;
  x.block_size = 32;
  x.kv_cache_bytes = std::uint64_t{1} << 40;
  x.enable_prefix_caching = false;
  x.threads = 2;
  x.chat_template = "{{ messages }}";
  x.environment = {{"A", "1"}, {"EMPTY", ""}};
  x.max_ongoing_requests = 5;
  x.graceful_shutdown_timeout_ms = 100;
  x.start_retries = 3;
  x.health_check_period_ms = 7;
  x.health_check_timeout_ms = 9;
  x.restarts_max = 11;
  x.restart_pause_max_ms = 12;
  x.memory_bytes = std::uint64_t{1} << 33;
  x.memory_utilization = 0.5;
  x.quantization = "q8_0";
  x.task = "embed";
  x.dtype = "bfloat16";
  x.load_format = "gguf";
  x.seed = {std::uint64_t{1} << 63};
  x.generation_defaults = false;
  x.tensor_parallel_size = 4;
  x.gpus = 0.25;
  x.ranks_on = {{"head", {0, 2}}, {"w1", {1}, {3}}, {"w2", {}}};
  x.gpus_here = {0, 7};
  x.part = 1;
  x.leader = 77;
  x.kv_cache_dtype = "fp8_e4m3";
  x.float_kv_dtype = "float16";
  return x;
}

replica_load full_load() {
  return {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
}

replica_report full_report() {
  replica_report x;
  x.version = protocol_version + 1;
  x.replica = "m#1";
  x.incarnation = 6;
  x.phase = replica_phase::failed;
  x.bytes_done = 10;
  x.bytes_total = 20;
  x.load_ms = 30;
  x.where = full_endpoint();
  x.arithmetic_class = "class";
  x.card_hash = "hash";
  x.device = "cpu";
  x.can = full_capabilities();
  x.load = full_load();
  x.pid = 4711;
  x.restarts = 2;
  x.budget_spent = true;
  x.reason = "killed by SIGKILL";
  x.node = "w1";
  x.choices_at_once = 8;
  x.gpus = {
      {"0", 1, std::uint64_t{80} << 30, 93}, {"GPU-1", 2, 3, 0, "w2"}, {}};
  return x;
}

node_joined full_node() {
  node_joined x;
  x.version = protocol_version + 1;
  x.node = "w1";
  x.incarnation = 1;
  x.address = "10.0.0.2";
  x.http_port = 8000;
  x.cpus = 2;
  x.memory_bytes = std::uint64_t{3} << 32;
  x.gpus = 4;
  x.accelerator_type = "L4";
  x.engines = {"cpu", "cuda"};
  x.resources = {{"CPU", 1.5}, {"disk", 2}};
  x.labels = {{"zone", "a"}, {"empty", ""}};
  x.head_epoch = 9;
  x.replicas = {{full_spec(), full_report()}, {}};
  x.attempt = 4;
  return x;
}

node_assignment full_assignment() {
  return {1, 2, 3, {full_spec(), {}}, false, {{"w2", 1}, {"w3", 7}}};
}

death_notice full_notice() {
  return {"w1", 2, "m#1", 3, true, {{4, 5}, {6, UINT64_MAX}}, "killed"};
}

launch_record full_launch() {
  return {full_spec(), 8,        full_endpoint(), "127.0.0.1", "/c.pem",
          "/k.pem",    "/a.pem", "debug",         true,        "/journal",
          2,           "0,3"};
}

/// Calls `check(value, decode)` for a filled value of every record type.
template <class Check>
void for_every_record(Check check) {
  check(full_request(),
        [](codec::bytes_view x) { return decode_request_record(x); });
  check(full_tokens(),
        [](codec::bytes_view x) { return decode_token_batch(x); });
  check(full_table(), decode_routing_table);
  check(full_spec(), decode_replica_spec);
  check(full_load(), decode_replica_load);
  check(full_report(), decode_replica_report);
  check(rank_word{"w1", 2, "m#1", 3, "address", {"\0x", 2}, true},
        decode_rank_word);
  check(full_node(), decode_node_joined);
  check(node_welcome{true, "no", 1, 2}, decode_node_welcome);
  check(full_assignment(),
        [](codec::bytes_view x) { return decode_node_assignment(x); });
  check(replica_news{"w1", 2, full_report(), true}, decode_replica_news);
  check(full_notice(), decode_death_notice);
  check(full_launch(), decode_launch_record);
}

} // namespace

TEST_CASE("every record reads back as it was written") {
  for_every_record([](auto value, auto decode) {
    auto back = decode(encode(value));
    REQUIRE(back.has_value());
    CHECK(*back == value);
    decltype(value) empty{};
    back = decode(encode(empty));
    REQUIRE(back.has_value());
    CHECK(*back == empty);
  });
}

TEST_CASE("a record of defaults takes no bytes, but for its version") {
  CHECK(encode(request_record{}).empty());
  CHECK(encode(token_batch{}).empty());
  CHECK(encode(replica_report{}).size() == 6 + 4);
}

TEST_CASE("a field that the reader does not know is refused by number") {
  for_every_record([](auto value, auto decode) {
    auto bytes = encode(value);
    codec::writer newer;
    newer.put(999, 1);
    auto extra = newer.take();
    bytes.insert(bytes.end(), extra.begin(), extra.end());
    auto back = decode(bytes);
    REQUIRE_FALSE(back.has_value());
    CHECK(back.error().code == errc::unsupported);
    CHECK(back.error().message.find("999") != std::string::npos);
  });
}

TEST_CASE("an unknown field inside an inner record is refused too") {
  codec::writer inner;
  inner.put(77, 1);
  codec::writer outer;
  outer.put(6, inner.take()); // request_record's params
  auto back = decode_request_record(outer.take());
  REQUIRE_FALSE(back.has_value());
  CHECK(back.error().message.find("sampling_params") != std::string::npos);
  CHECK(back.error().message.find("77") != std::string::npos);
}

TEST_CASE("a record cut at any byte is an error or another record") {
  for_every_record([](auto value, auto decode) {
    auto bytes = encode(value);
    for (std::size_t size = 0; size < bytes.size(); ++size) {
      codec::bytes cut(bytes.begin(),
                       bytes.begin() + static_cast<std::ptrdiff_t>(size));
      auto back = decode(cut);
      if (back)
        CHECK_FALSE(*back == value); // cut between two fields
      else
        CHECK(back.error().code == errc::corrupt);
    }
  });
}

TEST_CASE("random damage to a record is an error or another record") {
  std::mt19937_64 random{1};
  for_every_record([&](auto value, auto decode) {
    auto whole = encode(value);
    for (int i = 0; i < 500; ++i) {
      auto bytes = whole;
      for (auto flips = 1 + random() % 4; flips > 0; --flips)
        bytes[random() % bytes.size()] = static_cast<std::uint8_t>(random());
      if (auto back = decode(bytes)) {
        auto again = decode(encode(*back));
        CHECK(again.has_value());
      } else {
        CHECK_FALSE(back.error().message.empty());
      }
    }
  });
}

TEST_CASE("an enum value that nobody defined is refused") {
  codec::writer choice;
  choice.put(6, std::uint8_t{200});
  codec::writer batch;
  batch.put(4, choice.take());
  CHECK_FALSE(decode_token_batch(batch.take()).has_value());
  codec::writer report;
  report.put(4, std::uint8_t{6});
  CHECK_FALSE(decode_replica_report(report.take()).has_value());
}

TEST_CASE("a list of too many elements is refused") {
  codec::writer choice;
  const codec::bytes none;
  for (int i = 0; i < (1 << 20) + 1; ++i)
    choice.put(3, none);
  codec::writer out;
  out.put(4, choice.take());
  auto back = decode_token_batch(out.take());
  REQUIRE_FALSE(back.has_value());
  CHECK(back.error().code == errc::limit);
}

TEST_CASE("an older reader reads what is written for it") {
  auto request = full_request();
  auto as_sent = decode_request_record(encode(request, 1), 1);
  REQUIRE(as_sent.has_value());
  request.alone = false;   // came with version 2
  request.second_text = 0; // came with version 4
  CHECK(*as_sent == request);
  auto assignment = full_assignment();
  auto told = decode_node_assignment(encode(assignment, 2), 2);
  REQUIRE(told.has_value());
  assignment.revoked.clear();              // came with version 3
  for (auto& spec : assignment.replicas) { // came with version 7
    spec.tensor_parallel_size = 0;
    spec.gpus = 0;
    spec.gpus_here.clear();
    spec.kv_cache_dtype.clear();
    spec.float_kv_dtype.clear();
    spec.ranks_on.clear();
    spec.part = 0;
    spec.leader = 0;
  }
  CHECK(*told == assignment);
  auto tokens = decode_token_batch(encode(full_tokens(), 1), 1);
  REQUIRE(tokens.has_value());
  auto old = full_tokens();
  old.choices.front().vector.clear(); // came with version 4
  old.blocks = {};                    // came with version 5
  CHECK(*tokens == old);
  auto table = decode_routing_table(encode(full_table(), 4));
  REQUIRE(table.has_value());
  auto routes = full_table();
  routes.models.front().choice = {}; // came with version 5
  CHECK(*table == routes);
}

TEST_CASE("whose choices wait is told from version 7 on") {
  router_report report;
  report.models.push_back({"app", "m", 5, 0});
  report.models[0].tenants = {{"loud", 4}, {"quiet", 1}};
  others_load others{7, report.models, {}};
  CHECK(decode_router_report(encode(report)).value() == report);
  CHECK(decode_others_load(encode(others)).value() == others);
  auto older_report = decode_router_report(encode(report, 6));
  auto older_others = decode_others_load(encode(others, 6));
  report.models[0].tenants.clear();
  others.models[0].tenants.clear();
  CHECK(older_report.value() == report);
  CHECK(older_others.value() == others);
}

TEST_CASE("an older reader refuses what is written for a newer one") {
  auto back = decode_request_record(encode(full_request(), 2), 1);
  REQUIRE_FALSE(back.has_value());
  CHECK(back.error().code == errc::unsupported);
  CHECK(back.error().message.find("field 9") != std::string::npos);
  // But for what nobody used.
  CHECK(decode_request_record(encode(request_record{}, 2), 1).has_value());
}

TEST_CASE("a newer reader reads what an older writer wrote") {
  auto back = decode_request_record(encode(full_request(), 1));
  REQUIRE(back.has_value());
  CHECK_FALSE(back->alone);
  CHECK(back->params == full_request().params);
}

TEST_CASE("a record is written for a newer reader as for one's own version") {
  CHECK(encode(full_request(), protocol_version + 1) == encode(full_request()));
  CHECK(encode(full_tokens(), protocol_version + 1) == encode(full_tokens()));
}

namespace {

/// A record that grew, inside of one that did not.
struct grown {
  std::uint32_t old = 0;
  std::uint32_t added = 0;

  bool operator==(const grown&) const = default;
};

struct outer {
  grown one;
  std::vector<grown> several;

  bool operator==(const outer&) const = default;
};

} // namespace

namespace troupe::protocol {

template <>
struct layout<grown> {
  static constexpr std::string_view name = "grown";
  static constexpr auto fields =
      std::tuple{number(1, &grown::old), droppable_since(7, 2, &grown::added)};
};

template <>
struct layout<outer> {
  static constexpr std::string_view name = "outer";
  static constexpr auto fields =
      std::tuple{number(1, &outer::one), number(2, &outer::several)};
};

} // namespace troupe::protocol

TEST_CASE("inner records are written and read for the same version") {
  const outer whole{{1, 2}, {{3, 4}, {5, 6}}};
  const outer dropped{{1, 0}, {{3, 0}, {5, 0}}};
  CHECK(decode_record<outer>(encode_record(whole, 7), 7).value() == whole);
  CHECK(decode_record<outer>(encode_record(whole, 6), 6).value() == dropped);
  auto refused = decode_record<outer>(encode_record(whole, 7), 6);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().message.find("grown: unknown field 2") !=
        std::string::npos);
}

TEST_CASE("what a process must be restarted for is told from what not") {
  const auto spec = full_spec();
  auto changed = [&](auto change) {
    auto x = spec;
    change(x);
    CHECK_FALSE(x == spec);
    return x;
  };
  using s = replica_spec;
  for (auto field : {&s::max_ongoing_requests, &s::graceful_shutdown_timeout_ms,
                     &s::start_retries, &s::health_check_period_ms,
                     &s::health_check_timeout_ms, &s::restarts_max,
                     &s::restart_pause_max_ms})
    CHECK(same_process(spec, changed([&](s& x) { ++(x.*field); })));
  for (auto field : {&s::max_model_len, &s::max_num_seqs,
                     &s::max_num_batched_tokens, &s::block_size})
    CHECK_FALSE(same_process(spec, changed([&](s& x) { ++(x.*field); })));
  CHECK_FALSE(same_process(spec, changed([](s& x) { x.model_source = "/b"; })));
  CHECK_FALSE(same_process(spec, changed([](s& x) { ++x.kv_cache_bytes; })));
  CHECK_FALSE(same_process(spec, changed([](s& x) { ++x.memory_bytes; })));
  CHECK_FALSE(same_process(spec, changed([](s& x) { x.dtype.clear(); })));
  CHECK_FALSE(same_process(spec, changed([](s& x) { x.seed.clear(); })));
}
