#include "tests/unit/config/config_folder.hpp"

#include <fmt/format.h>

using namespace troupe;
using namespace troupe::config_test;
using config::purpose;

namespace {

/// One line per value that a file can set, to compare two readings.
std::string shown(const config::serve_config& all) {
  auto out = fmt::format(
      "{} | {} {} {} {} {} | {} {} {} | {} {} {} {} {} {} {}\n",
      all.proxy_location, all.http.host, all.http.port, all.http.root_path,
      all.http.request_timeout_s.value_or(-1), all.http.keep_alive_timeout_s,
      all.logging.json, all.logging.level, all.logging.enable_access_log,
      all.troupe.threads_per_replica, all.troupe.max_requests_in_flight,
      all.troupe.failover_exact, all.troupe.restarts_per_minute,
      all.troupe.restart_pause_max_s, all.troupe.data_network_trusted,
      all.troupe.api_keys.size());
  for (const auto& one : all.troupe.api_keys)
    out += fmt::format("{} {} {} {} {} {} {}\n", one.name, one.key, one.weight,
                       one.priority, one.requests_per_minute,
                       one.tokens_per_minute, one.choices_per_replica);
  for (const auto& app : all.applications) {
    out += fmt::format("{} {}\n", app.name, app.route_prefix);
    for (const auto& model : app.models) {
      const auto& d = model.deployment;
      const auto& e = model.engine;
      out += fmt::format(
          "{} {} {} {} {} {} | {} {} {} | {} {} {} {} {} {} {} {} {} {} {} | "
          "{} {} {} {} "
          "{} {} {} {} {} {} {} {} {} {} {} {}\n",
          model.model_id, model.model_source, model.tokenizer_source,
          model.accelerator_type, static_cast<int>(model.device),
          model.placement_strategy, d.router.policy,
          d.router.match_rate_threshold,
          d.router.imbalanced_threshold.value_or(-1), d.replicas(),
          d.max_ongoing_requests, d.max_queued_requests,
          d.health_check_period_s, d.health_check_timeout_s,
          d.graceful_shutdown_timeout_s,
          d.max_constructor_retry_count.value_or(-1),
          d.max_replicas_per_node.value_or(-1), d.num_cpus, d.num_gpus,
          d.memory_bytes, e.max_model_len, e.max_num_seqs,
          e.max_num_batched_tokens, e.block_size, e.kv_cache_memory_bytes,
          e.enable_prefix_caching, e.chat_template, e.memory_utilization,
          e.quantization, e.kv_cache_dtype, e.dtype, e.load_format, e.seed.value_or(0),
          e.generation_defaults, e.trust_request_chat_template,
          e.default_chat_template_kwargs, e.tensor_parallel_size);
      for (const auto& [name, amount] : d.resources)
        out += fmt::format("resource {}={}\n", name, amount);
      for (const auto& bundle : model.bundles) {
        out += "bundle";
        for (const auto& [name, amount] : bundle)
          out += fmt::format(" {}={}", name, amount);
        out += '\n';
      }
      for (const auto& [name, value] : model.env_vars)
        out += fmt::format("{}={}\n", name, value);
    }
  }
  return out;
}

} // namespace

TEST_CASE("a file as JSON reads to the same values") {
  folder here;
  here.write("keys", "sk-0123456789\n12345678\n");
  here.write("template.jinja",
             "{{ messages[0].content }}\n\"\xF0\x9F\x98\x80\t");
  here.write("models/small.yaml", "model_loading_config:\n"
                                  "  model_id: 007\n"
                                  "  model_source: ../model.gguf\n"
                                  "engine_kwargs: {max_model_len: 2_048}\n");
  auto file = here.write("serve.yaml", R"(
proxy_location: HeadOnly
http_options: {host: 0.0.0.0, port: +9000, request_timeout_s: .5}
logging_config: {encoding: JSON, enable_access_log: False}
troupe:
  api_keys: [sk-inline-1, '00000000']
  api_keys_file: keys
  failover: exact
  data_network: trusted
  restarts_per_minute: 100
  restart_pause_s: 0.5
applications:
  - name: one
    route_prefix: /one
    import_path: ray.serve.llm:build_openai_app
    args:
      llm_configs:
        - models/small.yaml
        - model_loading_config: {model_id: 1.0, model_source: ./model.gguf}
          accelerator_config: {kind: cpu}
          placement_group_config:
            bundles: [{CPU: 2, fpga: 1.5, GPU: 0}]
            strategy: STRICT_SPREAD
          deployment_config:
            num_replicas: 3
            request_router_config:
              request_router_class: ray.serve.llm.request_router:PrefixCacheAffinityRouter
              request_router_kwargs: {imbalanced_threshold: 5, match_rate_threshold: .2}
            ray_actor_options: {num_cpus: 1, memory: 2e9, resources: {disk: 2}}
          engine_kwargs:
            chat_template: template.jinja
            trust_request_chat_template: true
            default_chat_template_kwargs: {enable_thinking: false, n: [1, "2"]}
          runtime_env: {env_vars: {N: "1", M: 1, T: True, F: "True", E: "",
                        B: 12345678901234567890123, C: "a\nb\x01\u20AC"}}
  - name: two
    route_prefix: /two
    import_path: ray.serve.llm:build_openai_app
    args: {llm_configs: [models/small.yaml]}
)");
  auto from_file = config::load(file);
  REQUIRE(errors_of(from_file) == "");
  auto json = config::to_json(file);
  auto from_json = config::load_text(json, "body");
  INFO(json);
  REQUIRE(errors_of(from_json) == "");
  CHECK(shown(from_json.values) == shown(from_file.values));
  CHECK(from_file.values.applications[0].models[0].model_id == "007");
  CHECK(from_file.values.troupe.restart_pause_max_s == 0.5);
  CHECK(from_file.values.troupe.failover_exact);
  CHECK(from_file.values.troupe.data_network_trusted);
  const auto& with = from_file.values.applications[0].models[1].engine;
  CHECK(with.trust_request_chat_template);
  CHECK(with.default_chat_template_kwargs ==
        R"({"enable_thinking":false,"n":[1,"2"]})");
  // It holds all that the nodes need: no names of files but models'.
  CHECK(json.find("small.yaml") == std::string::npos);
  CHECK(json.find("api_keys_file") == std::string::npos);
  CHECK(json.find("template.jinja") == std::string::npos);
}

TEST_CASE("what a replica takes is read whole") {
  folder here;
  auto loaded =
      here.load(with_model("          deployment_config: {ray_actor_options: "
                           "{num_cpus: 2, num_gpus: "
                           "0.5, memory: 1000000, resources: {fpga: 1}}}\n"));
  REQUIRE(errors_of(loaded) == "");
  const auto& model = loaded.values.applications[0].models[0];
  CHECK(model.deployment.num_gpus == 0.5);
  CHECK(model.deployment.memory_bytes == 1'000'000);
  CHECK(model.deployment.resources == config::bundle{{"fpga", 1}});
  CHECK(model.device == config::device_wish::gpu);

  auto both = here.load(with_model(
      "          accelerator_config: {kind: cpu}\n"
      "          deployment_config: {ray_actor_options: {num_gpus: 1}}\n"));
  CHECK(holds(errors_of(both), "asks for a GPU although"));
  auto twice = here.load(with_model("          deployment_config: "
                                    "{ray_actor_options: {resources: {GPU: "
                                    "1}}}\n"));
  CHECK(holds(errors_of(twice), "is given by num_cpus, num_gpus or memory"));
}

TEST_CASE("troupe's own options have bounds") {
  folder here;
  auto errors = errors_of(here.load(
      with_model("") + "troupe: {failover: never, restarts_per_minute: 10001, "
                       "restart_pause_s: 61, data_network: yes}\n"));
  CHECK(holds(errors, "troupe.failover: must be one of exact, best_effort"));
  CHECK(
      holds(errors, "troupe.data_network: must be one of untrusted, trusted"));
  CHECK(holds(errors, "troupe.restarts_per_minute: must be a whole number from "
                      "0 to 10000"));
  CHECK(holds(errors, "troupe.restart_pause_s: must be a number from 0 to 60"));
}

TEST_CASE("every place for routers is taken") {
  folder here;
  for (std::string place : {"EveryNode", "HeadOnly", "Disabled"}) {
    auto loaded = here.load("proxy_location: " + place + "\n" + with_model(""));
    CHECK(errors_of(loaded) == "");
    CHECK(loaded.values.proxy_location == place);
  }
}

TEST_CASE("for a running cluster a model may lie on its nodes only") {
  folder here;
  here.write("model.gguf", "");
  fs::remove(here.path / "model.gguf");
  auto file =
      here.write("serve.yaml", "http_options: {port: 9000}\n" + with_model(""));
  CHECK(holds(errors_of(config::load(file)), "no such file"));
  auto loaded = config::load(file, purpose::deploy);
  CHECK(errors_of(loaded) == "");
  CHECK(holds(notes_of(loaded), "is not on this machine"));
  CHECK(holds(notes_of(loaded), "http_options.port: cannot change while"));
  CHECK(loaded.values.applications[0].models[0].model_source ==
        here.path / "model.gguf");
  auto again = config::load_text(config::to_json(file), "body");
  CHECK(errors_of(again) == "");
}

TEST_CASE("a request names no files but models by absolute paths") {
  auto with = [](const std::string& model, const std::string& more) {
    return errors_of(config::load_text(
        R"({"applications":[{"import_path":"ray.serve.llm:build_openai_app",)"
        R"("args":{"llm_configs":[)" +
            model + "]}}]" + more + "}",
        "body"));
  };
  auto source = [](const std::string& path) {
    return R"({"model_loading_config":{"model_id":"m","model_source":")" +
           path + "\"}}";
  };
  CHECK(with(source("/nowhere/m.gguf"), "") == "");
  CHECK(holds(with(source("./m.gguf"), ""), "must be an absolute path"));
  CHECK(with(source("org/name"), "") == "");
  CHECK(holds(with(source("org/../name"), ""), "neither a path nor a model"));
  CHECK(holds(with("\"/etc/passwd\"", ""), "a request cannot name a file"));
  CHECK(holds(
      with(source("/m.gguf"), R"(,"troupe":{"api_keys_file":"/etc/passwd"})"),
      "a request cannot name a file"));
  CHECK(holds(with(R"({"model_loading_config":{"model_id":"m",)"
                   R"("model_source":"/m"},)"
                   R"("engine_kwargs":{"chat_template":"/etc/passwd"}})",
                   ""),
              "a request cannot name a file"));
  CHECK(holds(with(R"({"model_loading_config":{"model_id":"m",)"
                   R"("model_source":"/m"},)"
                   R"("runtime_env":{"env_vars":{"HF_TOKEN":"***"}}})",
                   ""),
              "stands for a value that is not shown"));
}

TEST_CASE("findings in a request have its name, line and column") {
  auto loaded =
      config::load_text("{\n \"applications\": [],\n \"x\": 1}", "body");
  auto errors = errors_of(loaded);
  CHECK(holds(errors, "body:3:2: x: unknown key"));
  CHECK(holds(errors_of(config::load_text("", "body")), "is empty"));
}

TEST_CASE("JSON's pairs of escapes are one character") {
  auto text = R"({"applications":[{"name":"\ud83d\ude00\u20ac\\ud83d",)"
              R"("import_path":"ray.serve.llm:build_openai_app","args":)"
              R"({"llm_configs":[{"model_loading_config":)"
              R"({"model_id":"m","model_source":"\/m"}}]}}]})";
  auto loaded = config::load_text(text, "body");
  REQUIRE(errors_of(loaded) == "");
  CHECK(loaded.values.applications[0].name ==
        "\xF0\x9F\x98\x80\xE2\x82\xAC\\ud83d");
  CHECK(loaded.values.applications[0].models[0].model_source == "/m");
}
