#include "actors/controller/deployment.hpp"
#include "tests/unit/controller/world.hpp"

using namespace troupe;
using namespace troupe::test;

namespace {

config::serve_config with(config::llm_config model) {
  config::serve_config out;
  config::application app;
  app.name = "app";
  app.route_prefix = "/app";
  model.model_id = "m";
  app.models = {std::move(model)};
  out.applications = {std::move(app)};
  return out;
}

model_deployment only_model(const config::llm_config& model,
                            bool cpu_only = false) {
  return to_deployment(with(model), cpu_only, 7).models.at(0);
}

} // namespace

TEST_CASE("a deployment and a status read back as they were written") {
  auto wanted = of_models({a_model("m", 2), a_model("n")});
  auto& first = wanted.models[0];
  first.demand.bundles = {{{"CPU", 0.5}, {"fpga", 2}}, {}, {{"GPU", 1}}};
  first.demand.strategy = placement_strategy::strict_spread;
  first.demand.engine = "cuda";
  first.demand.replicas_per_node_max = 3;
  first.demand.ranks = 4;
  first.note = "a \"note\"\n";
  first.max_queued_requests = 9;
  first.choice = {protocol::choice_policy::kv_aware, 0.5, 3};
  wanted.models[1].spec.environment = {{"A", "1"}};
  wanted.applications = {{"app", "{}"}, {"b", "{\"x\":1}"}};
  wanted.rest_json = "{\"proxy_location\":\"HeadOnly\"}";
  wanted.settings.api_keys = {"k"};
  wanted.settings.failover_exact = true;
  wanted.proxies = proxy_location::disabled;
  auto read = decode_deployment(encode(wanted));
  REQUIRE(read.has_value());
  CHECK(*read == wanted);
  CHECK(*decode_deployment(encode(deployment{})) == deployment{});

  world w;
  w.agents["gone"].self.labels = {{"zone", "a\"b"}};
  w.agents["gone"].self.resources = {{"CPU", 2.5}};
  w.join("gone");
  w.deploy(wanted);
  w.lose("gone");
  auto status = w.machine->status();
  CHECK(*protocol::decode_cluster_status(protocol::encode(status)) == status);
  auto json = to_json(status);
  auto holds = [&](const std::string& text) {
    return json.find(text) != std::string::npos;
  };
  CHECK(holds("\"note\":\"a \\\"note\\\"\\u000a\""));
  CHECK(holds("\"node\":\"gone\",\"alive\":false"));
  CHECK(holds("\"resources\":{\"CPU\":2.5},\"used\":{}"));
  CHECK(holds("\"labels\":{\"zone\":\"a\\\"b\"}"));
  CHECK(holds("\"engines\":[\"cpu\"]"));
}

TEST_CASE(
    "a replica takes a GPU for each rank, as far as nothing else is said") {
  config::llm_config model;
  model.engine.tensor_parallel_size = 3;
  model.deployment.num_cpus = 2;
  CHECK(only_model(model).demand.ranks == 1);
  CHECK(only_model(model).demand.bundles == std::vector<amounts>{{{"CPU", 2}}});
  model.device = config::device_wish::gpu;
  model.accelerator_type = "L4";
  auto demand = only_model(model).demand;
  CHECK(demand.ranks == 3);
  CHECK(only_model(model).spec.gpus == 3);
  const std::pair<const std::string, double> marker{"accelerator_type:L4",
                                                    0.001};
  CHECK(demand.bundles == std::vector<amounts>{{{"CPU", 2}, {"GPU", 1}, marker},
                                               {{"GPU", 1}, marker},
                                               {{"GPU", 1}, marker}});
  model.deployment.num_gpus = 3;
  CHECK(only_model(model).demand.bundles ==
        std::vector<amounts>{{{"CPU", 2}, {"GPU", 3}, marker}});
}

TEST_CASE("a deployment that is cut short or out of bounds is refused") {
  auto wanted = of_models({a_model("m", 2, 1)});
  auto bytes = encode(wanted);
  for (std::size_t size = 1; size < bytes.size(); ++size) {
    auto read = decode_deployment({bytes.data(), size});
    CHECK((!read.has_value() || !(*read == wanted)));
  }
  wanted.models[0].replicas = 65'537;
  CHECK_FALSE(decode_deployment(encode(wanted)).has_value());
  wanted.models[0].replicas = 1;
  wanted.models[0].demand.bundles[0]["CPU"] = -1;
  CHECK_FALSE(decode_deployment(encode(wanted)).has_value());
  wanted.models[0].demand.bundles[0]["CPU"] =
      std::numeric_limits<double>::quiet_NaN();
  CHECK_FALSE(decode_deployment(encode(wanted)).has_value());
}

TEST_CASE("a model that counts nothing takes nothing") {
  auto model = only_model({});
  CHECK(model.demand.bundles == std::vector<amounts>{{}});
  CHECK(model.demand.engine == "cpu");
  CHECK(model.route_prefix == "/app");
  CHECK(model.max_queued_requests == 0);
}

TEST_CASE("a replica's own resources are part of its first bundle") {
  config::llm_config model;
  model.bundles = {{{"CPU", 1}, {"GPU", 0}}, {{"CPU", 2}, {"x", 3}}};
  model.placement_strategy = "SPREAD";
  model.deployment.num_cpus = 0.5;
  model.deployment.memory_bytes = 1'000;
  model.deployment.resources = {{"fpga", 1}};
  model.deployment.max_replicas_per_node = 2;
  auto out = only_model(model);
  CHECK(out.demand.bundles ==
        std::vector<amounts>{{{"CPU", 1.5}, {"fpga", 1}, {"memory", 1'000}},
                             {{"CPU", 2}, {"x", 3}}});
  CHECK(out.demand.strategy == placement_strategy::spread);
  CHECK(out.demand.replicas_per_node_max == 2);
  CHECK(out.spec.memory_bytes == 1'000);
}

TEST_CASE("ranks may be on several nodes where their network is trusted, one "
          "bundle each, on GPUs with one each") {
  config::llm_config model;
  model.engine.tensor_parallel_size = 3;
  model.bundles.assign(3, {{"CPU", 1}});
  config::serve_config file;
  file.troupe.data_network_trusted = true;
  auto nodes_of = [&] {
    config::application app;
    app.models = {model};
    file.applications = {app};
    return to_deployment(file, false, 5).models.at(0).demand.nodes_max;
  };
  CHECK(nodes_of() == 3);
  model.deployment.memory_bytes = 3'000;
  file.applications.front().models = {model};
  CHECK(to_deployment(file, false, 5).models.at(0).demand.bundles ==
        std::vector<amounts>(3, {{"CPU", 1}, {"memory", 1'000}}));
  CHECK(only_model(model).demand.nodes_max == 1);
  model.bundles.pop_back();
  CHECK(nodes_of() == 1);
  model.bundles.assign(3, {{"GPU", 1}});
  CHECK(nodes_of() == 3);
  model.deployment.memory_bytes = 0;
  model.bundles = {{{"GPU", 2}}, {{"GPU", 1}}, {{"CPU", 1}}};
  CHECK(nodes_of() == 1);
  model.bundles.clear(); // then there are as many as ranks
  model.device = config::device_wish::gpu;
  CHECK(nodes_of() == 3);
  CHECK(only_model(model).demand.nodes_max == 1); // not trusted
  model.deployment.num_gpus = 3;
  CHECK(nodes_of() == 1);
  model.deployment.num_gpus = 0;
  model.device = {};
  model.bundles.assign(1, {{"CPU", 1}});
  model.engine.tensor_parallel_size = 1;
  CHECK(nodes_of() == 1);
}

TEST_CASE("who wants a GPU takes one of the type it names, unless all is CPU") {
  config::llm_config model;
  model.device = config::device_wish::gpu;
  model.accelerator_type = "H200";
  auto out = only_model(model);
  CHECK(out.demand.engine == "cuda");
  CHECK(out.demand.bundles ==
        std::vector<amounts>{{{"GPU", 1}, {"accelerator_type:H200", 0.001}}});
  auto on_cpu = only_model(model, true);
  CHECK(on_cpu.demand.engine == "cpu");
  CHECK(on_cpu.demand.bundles == std::vector<amounts>{{}});
  config::llm_config fraction;
  fraction.deployment.num_gpus = 0.5;
  CHECK(only_model(fraction).demand.engine == "cuda");
  CHECK(only_model(fraction).spec.gpus == 0.5);
  CHECK(only_model(fraction).demand.bundles ==
        std::vector<amounts>{{{"GPU", 0.5}}});
  config::llm_config bundled;
  bundled.device = config::device_wish::gpu;
  bundled.bundles = {{{"CPU", 1}, {"GPU", 2}}, {{"CPU", 1}, {"GPU", 0}}};
  CHECK(only_model(bundled).demand.bundles ==
        std::vector<amounts>{{{"CPU", 1}, {"GPU", 2}}, {{"CPU", 1}}});
}

TEST_CASE("what routers and agents are told comes from the file") {
  config::llm_config model;
  model.deployment.max_queued_requests = 12;
  model.deployment.router = {"prefix", 0.25, 4};
  auto whole = with(model);
  whole.proxy_location = "HeadOnly";
  whole.http.root_path = "/root";
  whole.http.request_timeout_s = 1.5;
  whole.http.keep_alive_timeout_s = 2;
  whole.logging.enable_access_log = false;
  whole.troupe.api_keys = {{"team", "secret", 2, -1, 5, 7, 3}};
  whole.troupe.max_requests_in_flight = 77;
  whole.troupe.failover_exact = true;
  whole.troupe.restarts_per_minute = 2;
  whole.troupe.restart_pause_max_s = 0.25;
  auto out = to_deployment(whole, false, 7);
  CHECK(out.proxies == proxy_location::head_only);
  protocol::router_settings told{{"secret"}, "/root", 77,  1'500,
                                 2'000,      false,   true};
  told.tenants = {{"team", "secret", 2, -1, 5, 7, 3}};
  CHECK(out.settings == told);
  CHECK(out.models[0].max_queued_requests == 12);
  CHECK(out.models[0].choice ==
        protocol::choice_rule{protocol::choice_policy::prefix, 0.25, 4});
  CHECK(out.models[0].spec.restarts_max == 2);
  CHECK(out.models[0].spec.restart_pause_max_ms == 250);
  CHECK(out.models[0].created == 7);
}

TEST_CASE("an application is taken out with its models") {
  auto wanted = of_models({a_model("m"), a_model("n")});
  wanted.models[1].spec.application = "other";
  wanted.applications = {{"app", "{}"}, {"other", "{}"}};
  auto rest = without(wanted, "app");
  REQUIRE(rest.models.size() == 1);
  CHECK(rest.models[0].spec.model == "n");
  REQUIRE(rest.applications.size() == 1);
  CHECK(rest.applications[0].name == "other");
  CHECK(without(wanted, "none") == wanted);
}
