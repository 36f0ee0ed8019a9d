#include "router/metrics.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::router;

namespace {

bool has(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

} // namespace

TEST_CASE("a histogram's buckets add up to its count") {
  histogram some;
  some.observe(0.0005);
  some.observe(0.001);
  some.observe(0.3);
  some.observe(10'000);
  std::string out;
  some.write("x", "a=\"b\"", out);
  CHECK(has(out, "x_bucket{a=\"b\",le=\"0.001\"} 2"));
  CHECK(has(out, "x_bucket{a=\"b\",le=\"0.5\"} 3"));
  CHECK(has(out, "x_bucket{a=\"b\",le=\"640\"} 3"));
  CHECK(has(out, "x_bucket{a=\"b\",le=\"+Inf\"} 4"));
  CHECK(has(out, "x_count{a=\"b\"} 4"));
}

TEST_CASE("the metrics text has requests, models, the queue and the engines") {
  metrics all;
  all.count("/v1/models", "GET", 200, 0.01);
  all.count("/v1/models", "GET", 200, 0.01);
  all.count("other", "POST", 404, 0.01);
  all.of("app", "m\"1")->generation_tokens = 7;
  router_gauges gauges;
  gauges.choices_waiting = 3;
  gauges.streams_moved = 5;
  gauges.streams_class_changed = 1;
  gauges.poison_requests_refused = 2;
  gauges.move_wait.observe(0.2);
  engine_load load{"app", "m", "m#1", "head", {}, {}};
  load.gpus = {{"0", 3, 8, 25}, {"1", 4, 8, -1}, {"0", 6, 8, -1, "west"}};
  load.load.running = 5;
  load.load.kv_blocks_total = 8;
  load.load.kv_blocks_free = 6;
  auto text = all.text(gauges, 4, {{load}, {{"app", "m", 3, 2}}});
  CHECK(has(text, "ray_serve_num_http_requests{route=\"/v1/models\","
                  "method=\"GET\",status_code=\"200\"} 2"));
  CHECK(has(text, "ray_serve_num_http_error_requests{route=\"other\","
                  "method=\"POST\",error_code=\"404\"} 1"));
  CHECK(has(text, "ray_serve_http_request_latency_ms_sum{route=\"other\"} 10"));
  CHECK(has(text, "ray_serve_http_request_latency_ms_bucket{route=\"other\","
                  "le=\"10\"} 1"));
  CHECK(has(text, "ray_vllm_generation_tokens_total{application=\"app\","
                  "model_name=\"m\\\"1\"} 7"));
  const std::string gpu = "{application=\"app\",model_name=\"m\","
                          "replica=\"m#1\",node=\"head\",gpu=";
  CHECK(has(text, "troupe_gpu_memory_used_bytes" + gpu + "\"1\"} 4"));
  CHECK(has(text, "troupe_gpu_memory_total_bytes" + gpu + "\"0\"} 8"));
  CHECK(has(text, "troupe_gpu_busy_ratio" + gpu + "\"0\"} 0.25"));
  CHECK(!has(text, "troupe_gpu_busy_ratio" + gpu + "\"1\"}"));
  CHECK(has(text, "troupe_gpu_memory_used_bytes{application=\"app\","
                  "model_name=\"m\",replica=\"m#1\",node=\"west\","
                  "gpu=\"0\"} 6"));
  CHECK(has(text, "ray_serve_deployment_queued_queries 3"));
  CHECK(has(text, "troupe_requests_in_flight 4"));
  CHECK(has(text, "troupe_streams_moved_total 5"));
  CHECK(has(text, "troupe_streams_class_changed_total 1"));
  CHECK(has(text, "troupe_poison_requests_refused_total 2"));
  CHECK(has(text, "troupe_stream_move_wait_seconds_bucket{le=\"0.25\"} 1"));
  auto labels = std::string{"{application=\"app\",model_name=\"m\","
                            "replica=\"m#1\",node=\"head\"}"};
  CHECK(has(text, "ray_vllm_num_requests_running" + labels + " 5"));
  CHECK(has(text, "ray_vllm_kv_cache_usage_perc" + labels + " 0.25"));
  CHECK(has(text, "ray_serve_autoscaling_target_replicas{application=\"app\","
                  "model_name=\"m\"} 3"));
  CHECK(has(text, "troupe_replicas_ready{application=\"app\","
                  "model_name=\"m\"} 2"));
}

TEST_CASE("models that left the table leave the metrics") {
  metrics all;
  all.of("app", "gone");
  all.of("app", "kept");
  protocol::routing_table table;
  table.models.resize(1);
  table.models[0].application = "app";
  table.models[0].model = "kept";
  all.keep_only(table);
  auto text = all.text({}, 0, {});
  CHECK(text.find("gone") == std::string::npos);
  CHECK(text.find("kept") != std::string::npos);
}

TEST_CASE("each tenant has its counts, by its name") {
  auto one = std::make_shared<tenant_account>(
      protocol::tenant{"team \"a\"", "sk-secret", 1, 0, 1});
  auto now = std::chrono::steady_clock::now();
  CHECK(!one->take_request(now));
  CHECK(one->take_request(now));
  one->charge(5, now);
  metrics all;
  auto text = all.text({}, 0, {}, {one});
  std::string labels = "{tenant=\"team \\\"a\\\"\"} ";
  CHECK(has(text, "troupe_tenant_requests_total" + labels + "1"));
  CHECK(has(text, "troupe_tenant_tokens_total" + labels + "5"));
  CHECK(has(text, "troupe_tenant_requests_refused_total" + labels + "1"));
  CHECK(text.find("sk-secret") == std::string::npos);
}

TEST_CASE("each replica has its counts, over all of its processes") {
  auto table_of = [](std::vector<std::uint64_t> incarnations) {
    protocol::routing_table table;
    protocol::model_route model;
    model.application = "app";
    model.model = "m";
    for (auto one : incarnations) {
      protocol::replica_route replica;
      replica.replica = "m#" + std::to_string(one % 10);
      replica.where.incarnation = one;
      model.replicas.push_back(replica);
    }
    table.models = {model};
    return table;
  };
  router_gauges gauges;
  gauges.replicas.follow(table_of({11, 12}));
  gauges.replicas.sent(11);
  gauges.replicas.sent(11);
  gauges.replicas.sent(12);
  gauges.replicas.sent(99);
  gauges.replicas.measured(11, 96, 80);
  gauges.replicas.follow(table_of({21}));
  gauges.replicas.sent(21);
  gauges.replicas.sent(11); // of before
  metrics all;
  auto text = all.text(gauges, 0, {});
  std::string labels =
      "{application=\"app\",model_name=\"m\",replica=\"m#1\"} ";
  CHECK(has(text, "troupe_router_choices_sent_total" + labels + "3"));
  CHECK(
      has(text, "troupe_router_predicted_cached_tokens_total" + labels + "96"));
  CHECK(
      has(text, "troupe_router_reported_cached_tokens_total" + labels + "80"));
  CHECK(text.find("m#2") == std::string::npos);
}

TEST_CASE("the metrics text has the nodes, of what is lost only that it is") {
  metrics all;
  router_gauges gauges;
  cluster_load loads;
  loads.nodes = {
      {"a", true, {{"CPU", 8}, {"GPU", 2}, {"memory", 1e9}}, {{"GPU", 0.5}}},
      {"b", false, {{"CPU", 4}}, {{"CPU", 1}}}};
  auto text = all.text(gauges, 0, loads);
  CHECK(has(text, "troupe_node_up{node=\"a\"} 1"));
  CHECK(has(text, "troupe_node_cpus{node=\"a\"} 8"));
  CHECK(has(text, "troupe_node_cpus_used{node=\"a\"} 0"));
  CHECK(has(text, "troupe_node_gpus{node=\"a\"} 2"));
  CHECK(has(text, "troupe_node_gpus_used{node=\"a\"} 0.5"));
  CHECK(has(text, "troupe_node_memory_bytes{node=\"a\"} 1000000000"));
  CHECK(has(text, "troupe_node_memory_used_bytes{node=\"a\"} 0"));
  CHECK(has(text, "troupe_node_up{node=\"b\"} 0"));
  CHECK(text.find("troupe_node_cpus{node=\"b\"}") == text.npos);
}
