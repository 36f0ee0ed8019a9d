#include "config/cluster_config.hpp"
#include "tests/unit/config/config_folder.hpp"

#include <algorithm>

using namespace troupe;
using namespace troupe::config_test;

TEST_CASE("the inline production form reads whole") {
  folder here;
  auto loaded = here.load(R"(
proxy_location: EveryNode
http_options:
  host: 0.0.0.0
  port: 9000
  request_timeout_s: 30
logging_config: {encoding: JSON, log_level: DEBUG}
applications:
  - name: llm_app
    route_prefix: "/"
    import_path: ray.serve.llm:build_openai_app
    args:
      llm_configs:
        - model_loading_config:
            model_id: qwen-0.5b
            model_source: model.gguf
          accelerator_type: A10
          deployment_config:
            autoscaling_config:
              min_replicas: 1
              max_replicas: 2
          runtime_env: {env_vars: {HF_TOKEN: secret, N: "1"}}
        - model_loading_config:
            model_id: org/qwen-1.5b
            model_source: ./model.gguf
          accelerator_config: {kind: cpu}
          placement_group_config: {bundles: [{CPU: 2}], strategy: STRICT_PACK}
          deployment_config: {num_replicas: 3, max_ongoing_requests: 64}
          engine_kwargs: {max_model_len: 2_048, tensor_parallel_size: 4}
)");
  REQUIRE(errors_of(loaded) == "");
  const auto& values = loaded.values;
  CHECK(values.http.host == "0.0.0.0");
  CHECK(values.http.port == 9000);
  CHECK(values.http.request_timeout_s == 30.0);
  CHECK(values.logging.json);
  REQUIRE(values.applications.size() == 1);
  const auto& app = values.applications[0];
  CHECK(app.name == "llm_app");
  REQUIRE(app.models.size() == 2);
  const auto& first = app.models[0];
  CHECK(first.model_id == "qwen-0.5b");
  CHECK(first.model_source == here.path / "model.gguf");
  CHECK(first.accelerator_type == "A10G");
  CHECK(first.device == config::device_wish::gpu);
  CHECK(first.deployment.replicas() == 1);
  using variables = std::vector<std::pair<std::string, std::string>>;
  CHECK(first.env_vars == variables{{"HF_TOKEN", "secret"}, {"N", "1"}});
  const auto& second = app.models[1];
  CHECK(second.device == config::device_wish::cpu);
  CHECK(second.deployment.replicas() == 3);
  CHECK(second.deployment.max_ongoing_requests == 64);
  CHECK(second.engine.max_model_len == 2048);
  CHECK(second.placement_strategy == "STRICT_PACK");
  REQUIRE(second.bundles.size() == 1);
  CHECK(second.bundles[0].at("CPU") == 2.0);
  REQUIRE(first.deployment.autoscaling);
  CHECK(first.deployment.autoscaling->max_replicas == 2);
}

TEST_CASE("autoscaling_config is read, every key") {
  folder here;
  auto loaded = here.load(with_model(R"(          deployment_config:
            autoscaling_config:
              min_replicas: 0
              initial_replicas: 2
              max_replicas: 9
              target_ongoing_requests: 12.5
              upscale_delay_s: 1
              downscale_delay_s: 2
              downscale_to_zero_delay_s: 3
              metrics_interval_s: 4
              look_back_period_s: 5
              upscaling_factor: 1.5
              downscaling_factor: 0.5
              smoothing_factor: 0.9
              upscale_smoothing_factor: 1.1
              downscale_smoothing_factor: 0.7
              aggregation_function: max
              policy:
                name: schedule
                utc_offset: "-05:30"
                minimums:
                  - {from: "08:30", to: "18:00", days: [mon, fri], min_replicas: 3}
)"));
  REQUIRE(errors_of(loaded) == "");
  config::autoscaling_config expected;
  expected.min_replicas = 0;
  expected.initial_replicas = 2;
  expected.max_replicas = 9;
  expected.target_ongoing_requests = 12.5;
  expected.upscale_delay_s = 1;
  expected.downscale_delay_s = 2;
  expected.downscale_to_zero_delay_s = 3;
  expected.metrics_interval_s = 4;
  expected.look_back_period_s = 5;
  expected.upscaling_factor = 1.5;
  expected.downscaling_factor = 0.5;
  expected.smoothing_factor = 0.9;
  expected.upscale_smoothing_factor = 1.1;
  expected.downscale_smoothing_factor = 0.7;
  expected.aggregation = config::load_aggregation::max;
  expected.policy = config::scaling_policy::schedule;
  expected.utc_offset_minutes = -330;
  expected.schedule = {{8 * 60 + 30, 18 * 60, 1u | 1u << 4, 3}};
  const auto& models = loaded.values.applications[0].models;
  CHECK(models[0].deployment.autoscaling == expected);
}

TEST_CASE("num_replicas: auto scales between 1 and 100") {
  folder here;
  auto loaded = here.load(
      with_model("          deployment_config: {num_replicas: auto}\n"));
  REQUIRE(errors_of(loaded) == "");
  const auto& scaling =
      loaded.values.applications[0].models[0].deployment.autoscaling;
  REQUIRE(scaling);
  CHECK(scaling->min_replicas == 1);
  CHECK(scaling->max_replicas == 100);
}

TEST_CASE("what concerns weights, seeds and memory is read") {
  folder here;
  auto loaded = here.load(R"(applications:
  - import_path: ray.serve.llm:build_openai_app
    args:
      llm_configs:
        - model_loading_config: {model_id: m, model_source: model.gguf}
          engine_kwargs: {dtype: half, quantization: awq_marlin, seed: 7,
            load_format: safetensors, generation_config: vllm,
            gpu_memory_utilization: 0.9}
)");
  REQUIRE(errors_of(loaded) == "");
  const auto& engine = loaded.values.applications[0].models[0].engine;
  CHECK(engine.dtype == "float16");
  CHECK(engine.quantization == "awq");
  CHECK(engine.load_format == "safetensors");
  CHECK(engine.seed == 7u);
  CHECK(!engine.generation_defaults);
  CHECK(engine.memory_utilization == 0.9);
  CHECK(engine.kv_cache_dtype.empty());
}

TEST_CASE("fp8 is read as vLLM has it") {
  folder here;
  for (auto [said, means] : {std::pair{"fp8", "fp8_e4m3"},
                             {"fp8_e4m3", "fp8_e4m3"},
                             {"auto", ""},
                             {"float16", "float16"},
                             {"bfloat16", "bfloat16"}}) {
    auto loaded = here.load(
        with_model(std::string{"          engine_kwargs: {quantization: fp8, "
                               "kv_cache_dtype: "} +
                   said + "}\n"));
    REQUIRE(errors_of(loaded) == "");
    const auto& engine = loaded.values.applications[0].models[0].engine;
    CHECK(engine.quantization == "fp8");
    CHECK(engine.kv_cache_dtype == means);
  }
}

TEST_CASE(
    "the per-model form reads files relative to the one that names them") {
  folder here;
  here.write("models/small.yaml", "model_loading_config:\n"
                                  "  model_id: small\n"
                                  "  model_source: ../model.gguf\n");
  auto loaded =
      here.load("applications:\n"
                "  - import_path: ray.serve.llm.builders:build_openai_app\n"
                "    args:\n"
                "      llm_configs: [models/small.yaml]\n");
  REQUIRE(errors_of(loaded) == "");
  CHECK(loaded.values.applications[0].models[0].model_id == "small");
  CHECK(loaded.values.applications[0].models[0].model_source ==
        here.path / "model.gguf");
}

TEST_CASE("an error in a per-model file names that file and its line") {
  folder here;
  here.write("small.yaml", "model_loading_config:\n"
                           "  model_id: small\n"
                           "  model_source: model.gguf\n"
                           "engine_kwargs:\n"
                           "  max_model_len: many\n");
  auto loaded = here.load("applications:\n"
                          "  - import_path: ray.serve.llm:build_openai_app\n"
                          "    args: {llm_configs: [small.yaml, gone.yaml]}\n");
  auto errors = errors_of(loaded);
  CHECK(holds(errors, "small.yaml:5:18: engine_kwargs.max_model_len: must be a "
                      "whole number"));
  CHECK(holds(errors, "\"gone.yaml\": no such file"));
}

TEST_CASE("all errors come in one pass, each with line, column and path") {
  folder here;
  auto loaded = here.load("proxy_locaton: EveryNode\n"
                          "http_options: {port: 70000}\n"
                          "applications:\n"
                          "  - name: ''\n"
                          "    route_prefix: app/\n"
                          "    import_path: my_module:app\n"
                          "    args:\n"
                          "      llm_configs:\n"
                          "        - model_loading_config: {model_id: 'a:b'}\n"
                          "          acelerator_type: L4\n"
                          "          engine_kwargs: {max_num_seqs: 0}\n");
  auto errors = errors_of(loaded);
  CHECK(holds(errors, ":1:1: proxy_locaton: unknown key; did you mean "
                      "\"proxy_location\"?"));
  CHECK(holds(errors, ":2:22: http_options.port: must be a whole number from 0 "
                      "to 65535, not 70000\n"));
  CHECK(holds(errors, ":4:11: applications[0].name: must not be empty"));
  CHECK(holds(errors, ":5:19: applications[0].route_prefix: must begin"));
  CHECK(holds(errors, "applications[0].import_path: \"my_module:app\": Troupe "
                      "runs no Python"));
  CHECK(holds(errors, "applications[0].args.llm_configs[0].model_loading_config"
                      ".model_id: must not hold a colon"));
  CHECK(holds(errors, ":10:11: applications[0].args.llm_configs[0]."
                      "acelerator_type: unknown key; did you mean "
                      "\"accelerator_type\"?"));
  CHECK(holds(errors, ":11:41: applications[0].args.llm_configs[0]."
                      "engine_kwargs.max_num_seqs: must be a whole number"));
}

TEST_CASE("what Ray has and Troupe does not yet is refused by name") {
  folder here;
  struct row {
    const char* entry;
    const char* expected;
  };
  auto refused = GENERATE(
      row{"          lora_config: {dynamic_lora_loading_path: s3://b}\n",
          "lora_config: not supported yet"},
      row{"          server_cls: x\n", "server_cls: not supported yet"},
      row{"          engine_kwargs: {pipeline_parallel_size: 2}\n",
          "pipeline_parallel_size: above 1: not supported yet"},
      row{"          engine_kwargs: {quantization: bitsandbytes}\n",
          "\"bitsandbytes\": not supported yet; allowed now: q8_0, q4_0, gguf"},
      row{"          engine_kwargs: {model: x}\n",
          "comes from model_loading_config"},
      row{"          engine_kwargs: {enable_lora: true}\n",
          "enable_lora: true: not supported yet"},
      row{"          engine_kwargs: {dtype: float64}\n",
          "\"float64\": not supported yet"},
      row{"          engine_kwargs: {load_format: pt}\n",
          "\"pt\": not supported yet"},
      row{"          engine_kwargs: {kv_cache_dtype: fp8_e5m2}\n",
          "\"fp8_e5m2\": not supported yet; allowed now: auto, float16, "
          "bfloat16, fp8, "
          "fp8_e4m3"},
      row{"          deployment_config: {user_config: {temperature: 0}}\n",
          "user_config: is what Ray gives to a deployment's method "
          "reconfigure(), which its LLM server has not"},
      row{"          deployment_config: {placement_group_bundles: [{GPU: "
          "1}]}\n",
          "belongs into placement_group_config"},
      row{"          deployment_config: {autoscaling_config: {policy: "
          "latency}}\n",
          "latency: say what to keep"},
      row{"          deployment_config: {autoscaling_config: {policy: {name: "
          "latency}}}\n",
          "latency: needs first_token_s or next_token_s"},
      row{"          deployment_config: {autoscaling_config: {policy: {name: "
          "latency, first_token_s: 31}}}\n",
          "first_token_s: must be"},
      row{"          deployment_config: {autoscaling_config: {policy: "
          "{policy_function: 'my.module:scale'}}}\n",
          "Troupe runs no Python; there are ongoing_requests"},
      row{"          deployment_config: {autoscaling_config: {policy: "
          "fast}}\n",
          "\"fast\" is no policy; there are ongoing_requests"},
      row{"          deployment_config: {autoscaling_config: {policy: "
          "schedule}}\n",
          "schedule: say when"},
      row{"          deployment_config: {autoscaling_config: {policy: {name: "
          "schedule, minimums: [{from: '8:00', to: '18:00', min_replicas: "
          "1}]}}}\n",
          "minimums[0].from: must be a time of the day"},
      row{"          deployment_config: {autoscaling_config: {policy: {name: "
          "schedule, minimums: [{from: '08:00', to: '18:00', min_replicas: "
          "2}]}}}\n",
          "min_replicas (2) is above max_replicas (1)"},
      row{"          deployment_config: {autoscaling_config: {policy: {name: "
          "tokens, minimums: []}}}\n",
          "minimums"},
      row{"          runtime_env: {pip: [x]}\n", "runs no Python"},
      row{"          accelerator_config: {kind: tpu}\n", "tpu: not supported"});
  CHECK(
      holds(errors_of(here.load(with_model(refused.entry))), refused.expected));
}

TEST_CASE("a model's source may be elsewhere") {
  folder here;
  auto load = [&](const std::string& source) {
    return here.load(
        "applications:\n"
        "  - import_path: ray.serve.llm:build_openai_app\n"
        "    args: {llm_configs: [{model_loading_config: {model_id: org/m" +
        source + "}}]}\n");
  };
  struct row {
    const char* entry;
    const char* expected;
  };
  auto taken = GENERATE(
      row{", model_source: Qwen/Qwen2.5-0.5B-Instruct",
          "Qwen/Qwen2.5-0.5B-Instruct"},
      row{", model_source: 'org/name@v1:Q4_0'", "org/name@v1:Q4_0"},
      row{", model_source: s3://bucket/model", "s3://bucket/model"},
      row{", model_source: gs://anonymous@bucket", "gs://anonymous@bucket"},
      row{", model_source: {bucket_uri: 's3://bucket/m'}", "s3://bucket/m"},
      row{"", "org/m"});
  auto loaded = load(taken.entry);
  CHECK(errors_of(loaded) == "");
  CHECK(loaded.values.applications[0].models[0].model_source == taken.expected);
  auto again =
      config::load_text(config::to_json(here.path / "serve.yaml"), "x");
  CHECK(errors_of(again) == "");
  CHECK(again.values.applications[0].models[0].model_source == taken.expected);

  auto refused = GENERATE(
      row{", model_source: ./gone.gguf", "no such file or directory"},
      row{", model_source: a/b/c", "neither a path nor a model of a hub"},
      row{", model_source: 'http://host/m'", "http:// sources: not supported"},
      row{", model_source: 'abfss://c@a/m'", "abfss:// sources: not supported"},
      row{", model_source: {}", "needs bucket_uri"},
      row{", model_source: {bucket_uri: org/m}", "must be s3://bucket/prefix"},
      row{", model_source: {bucket_uri: 's3://b'}",
          "no valid name of a bucket"},
      row{", model_source: {bucket_uri: 's3://bucket', extra_files: []}",
          "extra_files: not supported"},
      row{", tokenizer_source: 'ftp://host'", "ftp:// sources: not supported"});
  CHECK(holds(errors_of(load(refused.entry)), refused.expected));
}

TEST_CASE("what exists beside the file is a path whatever it looks like") {
  folder here;
  here.write("org/name/config.json", "{}");
  auto loaded =
      here.load("applications:\n"
                "  - import_path: ray.serve.llm:build_openai_app\n"
                "    args: {llm_configs: [{model_loading_config: {model_id: m, "
                "model_source: org/name}}]}\n");
  CHECK(errors_of(loaded) == "");
  CHECK(loaded.values.applications[0].models[0].model_source ==
        (here.path / "org/name").string());
}

TEST_CASE("values of the wrong kind are errors that say what is allowed") {
  folder here;
  struct row {
    const char* entry;
    const char* expected;
  };
  auto wrong = GENERATE(
      row{"          accelerator_type: H10\n", "did you mean H100?"},
      row{"          accelerator_type: [L4]\n", "must be text, not a list"},
      row{"          deployment_config: 3\n",
          "must be a map, not a single value"},
      row{"          deployment_config: {num_replicas: 1.5}\n",
          "must be a whole number from 1 to 4096, not 1.5\n"},
      row{"          deployment_config: {num_replicas: 9_999}\n",
          "must be a whole number from 1 to 4096, not 9_999\n"},
      row{"          deployment_config: {num_replicas: '2'}\n",
          "must be a whole number from 1 to 4096, not the text \"2\"\n"},
      row{"          deployment_config: {num_replicas: two}\n",
          "must be a whole number from 1 to 4096, not the text \"two\"\n"},
      row{"          deployment_config: {num_replicas: 2, autoscaling_config: "
          "{}}\n",
          "stands beside a fixed num_replicas"},
      row{"          deployment_config: {max_queued_requests: 0}\n",
          "must be -1"},
      row{"          deployment_config: {autoscaling_config: {min_replicas: 3, "
          "max_replicas: 2}}\n",
          "max_replicas (2) is below min_replicas (3)"},
      row{"          deployment_config: {autoscaling_config: "
          "{initial_replicas: "
          "5, max_replicas: 2}}\n",
          "initial_replicas (5) must lie between"},
      row{"          deployment_config: {health_check_period_s: .nan}\n",
          "must be a number from 0.5 to 10000000, not .nan\n"},
      row{"          deployment_config: {health_check_period_s: true}\n",
          "must be a number from 0.5 to 10000000, not true\n"},
      row{"          engine_kwargs: {enable_prefix_caching: yes}\n",
          "must be true or false, not yes\n"},
      row{"          engine_kwargs: {enable_prefix_caching: 'true'}\n",
          "must be true or false, not the text \"true\"\n"},
      row{"          accelerator_config: {kind: cpu}\n"
          "          engine_kwargs: {kv_cache_dtype: fp8}\n",
          "engine_kwargs: kv_cache_dtype fp8 is for GPUs"},
      row{"          accelerator_config: {kind: gpu}\n"
          "          engine_kwargs: {kv_cache_dtype: bfloat16}\n",
          "engine_kwargs: kv_cache_dtype bfloat16 is for CPUs"},
      row{"          engine_kwargs: {block_size: 17}\n", "multiple of 16"},
      row{"          engine_kwargs: {max_num_seqs: 64, max_num_batched_tokens: "
          "32}\n",
          "must be at least max_num_seqs"},
      row{"          engine_kwargs: {default_chat_template_kwargs: [1]}\n",
          "must be a map of the template's variables"},
      row{"          engine_kwargs: {default_chat_template_kwargs: {messages: "
          "[]}}\n",
          "must not hold messages"},
      row{"          engine_kwargs: {trust_request_chat_template: 1}\n",
          "must be true or false"},
      row{"          placement_group_config: {bundles: []}\n", "needs bundles"},
      row{"          placement_group_config: {bundles: [{GPU: -1}]}\n",
          "must be a number from 0 to"},
      row{"          runtime_env: {env_vars: [A]}\n",
          "must be a map of names"});
  CHECK(holds(errors_of(here.load(with_model(wrong.entry))), wrong.expected));
}

namespace {

std::string router_entry(const std::string& entries) {
  return "          deployment_config:\n"
         "            request_router_config: {" +
         entries + "}\n";
}

} // namespace

TEST_CASE("a router is named as Troupe or as Ray names it") {
  folder here;
  struct row {
    const char* name;
    const char* policy;
  };
  auto taken = GENERATE(
      row{"power_of_two", "power_of_two"}, row{"round_robin", "round_robin"},
      row{"session", "session"}, row{"prefix", "prefix"},
      row{"kv_aware", "kv_aware"},
      row{"ray.serve._private.request_router:PowerOfTwoChoicesRequestRouter",
          "power_of_two"},
      row{"ray.serve._private.request_router.pow_2_router."
          "PowerOfTwoChoicesRequestRouter",
          "power_of_two"},
      row{"ray.serve.experimental.round_robin_router:RoundRobinRouter",
          "round_robin"},
      row{"ray.serve.experimental.consistent_hash_router.ConsistentHashRouter",
          "session"},
      row{"ray.serve.llm.request_router.PrefixCacheAffinityRouter", "prefix"},
      row{"ray.serve.llm.request_router:KVAwareRouter", "kv_aware"});
  auto loaded = here.load(with_model(
      router_entry(std::string{"request_router_class: "} + taken.name)));
  CHECK(errors_of(loaded) == "");
  CHECK(loaded.values.applications[0].models[0].deployment.router.policy ==
        taken.policy);
}

TEST_CASE("a router's options are those of its policy") {
  folder here;
  auto loaded = here.load(with_model(router_entry(
      "request_router_class: prefix, request_router_kwargs: "
      "{match_rate_threshold: 0.25, imbalanced_threshold: 5, do_eviction: "
      "true, eviction_target_chars: 100}, request_routing_stats_period_s: 3, "
      "max_backoff_s: 1")));
  CHECK(errors_of(loaded) == "");
  auto& router = loaded.values.applications[0].models[0].deployment.router;
  CHECK(router.match_rate_threshold == 0.25);
  CHECK(router.imbalanced_threshold == 5);
  std::vector<std::string> noted;
  for (auto& one : loaded.findings.all())
    noted.push_back(one.path.substr(one.path.rfind('.') + 1));
  CHECK(noted == std::vector<std::string>{
                     "do_eviction", "eviction_target_chars",
                     "request_routing_stats_period_s", "max_backoff_s"});

  auto aware =
      here.load(with_model(router_entry("request_router_class: kv_aware, "
                                        "request_router_kwargs: "
                                        "{match_rate_threshold: 0}")));
  CHECK(errors_of(aware) == "");
  CHECK(aware.values.applications[0]
            .models[0]
            .deployment.router.match_rate_threshold == 0);

  struct row {
    const char* entry;
    const char* expected;
  };
  auto wrong = GENERATE(
      row{"request_router_class: 'my.module:Router'",
          "serve.yaml:"}, // file, line and column
      row{"request_router_class: 'my.module:Router'",
          "deployment_config.request_router_config.request_router_class: "
          "\"my.module:Router\" is not known, and Troupe runs no Python; known "
          "are power_of_two, round_robin, session, prefix, kv_aware, ray."},
      row{"request_router_class: prefix, request_router_kwargs: "
          "{match_rate_threshold: 2}",
          "match_rate_threshold: must be a number from 0 to 1"},
      row{"request_router_kwargs: {match_rate_threshold: 0.1}",
          "match_rate_threshold: unknown key"},
      row{"request_router_class: kv_aware, request_router_kwargs: {x: 1}",
          "x: unknown key"},
      row{"request_router_class: 3, request_router_kwargs: []", "is not known"},
      row{"router: prefix", "router: unknown key"});
  CHECK(holds(errors_of(here.load(with_model(router_entry(wrong.entry)))),
              wrong.expected));
}

TEST_CASE("a bundle without GPU means the CPU, one that says nothing a GPU") {
  folder here;
  auto device = [&](const char* entry) {
    auto loaded = here.load(with_model(entry));
    REQUIRE(errors_of(loaded) == "");
    return loaded.values.applications[0].models[0].device;
  };
  using wish = config::device_wish;
  CHECK(device("") == wish::any);
  CHECK(device("          placement_group_config: {bundles: [{CPU: 1, GPU: "
               "0}]}\n") == wish::cpu);
  CHECK(device("          placement_group_config: {bundle_per_worker: {CPU: "
               "1}}\n") == wish::gpu);
  CHECK(device("          accelerator_config: {kind: cpu}\n") == wish::cpu);
  CHECK(device("          accelerator_type: L4\n") == wish::gpu);
}

TEST_CASE("a bundle per worker is one for each rank") {
  folder here;
  auto loaded = here.load(with_model(
      "          placement_group_config: {bundle_per_worker: {CPU: 2}}\n"
      "          engine_kwargs: {tensor_parallel_size: 3}\n"));
  REQUIRE(errors_of(loaded) == "");
  const auto& model = loaded.values.applications[0].models[0];
  CHECK(model.bundles ==
        std::vector<config::bundle>(3, {{"CPU", 2}, {"GPU", 1}}));
}

TEST_CASE("names, prefixes and model ids must differ") {
  folder here;
  std::string model = "{model_loading_config: {model_id: m, model_source: "
                      "model.gguf}}";
  auto app = "  - {import_path: 'ray.serve.llm:build_openai_app', name: a, "
             "args: {llm_configs: [" +
             model + ", " + model + "]}}\n";
  auto errors = errors_of(here.load("applications:\n" + app + app));
  CHECK(holds(errors, "application name \"a\" is used twice"));
  CHECK(holds(errors, "route_prefix \"/\" is used twice"));
  CHECK(holds(errors, "model_id \"m\" is used twice"));
}

TEST_CASE("api keys come from the file and from a file of their own") {
  folder here;
  here.write("keys", "# comment\nsk-0123456789\n\nsk-abcdefghij\r\n");
  auto loaded = here.load(with_model("") + "troupe: {api_keys: [sk-inline-1], "
                                           "api_keys_file: keys}\n");
  REQUIRE(errors_of(loaded) == "");
  CHECK(loaded.values.troupe.api_keys ==
        std::vector<config::api_key>{{"key-1", "sk-inline-1"},
                                     {"key-2", "sk-0123456789"},
                                     {"key-3", "sk-abcdefghij"}});
  auto wrong = errors_of(
      here.load(with_model("") + "troupe: {api_keys: [short], cors: '*'}\n"));
  CHECK(holds(wrong, "a key must be 8 to 512"));
  CHECK(wrong.find("short") == std::string::npos); // keys are never shown
  CHECK(holds(wrong, "troupe.cors: not supported yet"));
}

TEST_CASE("a key can have a name, a weight, a priority and limits") {
  folder here;
  auto loaded = here.load(
      with_model("") +
      "troupe:\n  api_keys:\n    - sk-plain-key\n"
      "    - {key: sk-team-a-key, name: team-a, weight: 2.5, priority: -10,\n"
      "       requests_per_minute: 60, tokens_per_minute: 100000,\n"
      "       choices_per_replica: 4}\n");
  REQUIRE(errors_of(loaded) == "");
  CHECK(loaded.values.troupe.api_keys ==
        std::vector<config::api_key>{
            {"key-1", "sk-plain-key"},
            {"team-a", "sk-team-a-key", 2.5, -10, 60, 100'000, 4}});
  auto refuses = [&](const std::string& entries, const char* why) {
    INFO(entries);
    CHECK(holds(errors_of(here.load(with_model("") + "troupe: {api_keys: [" +
                                    entries + "]}\n")),
                why));
  };
  refuses("{name: a}", "api_keys[0]: an entry needs its key");
  refuses("{key: sk-12345678, weight: 0}", "weight: must be");
  refuses("{key: sk-12345678, priority: 1001}", "priority: must be");
  refuses("{key: sk-12345678, requests_per_minute: 0}",
          "requests_per_minute: must be");
  refuses("{key: sk-12345678, tokens: 5}", "tokens");
  refuses("{key: sk-12345678, name: a}, {key: sk-87654321, name: a}",
          "another key has the name \"a\"");
  refuses("{key: sk-12345678, name: a}, {key: sk-12345678, name: b}",
          "the same key stands here twice");
}

TEST_CASE("the target capacity is per cent") {
  folder here;
  auto loaded = here.load(with_model("") + "target_capacity: 37.5\n");
  REQUIRE(errors_of(loaded) == "");
  CHECK(loaded.values.target_capacity == 37.5);
  CHECK(!here.load(with_model("")).values.target_capacity);
  CHECK(holds(errors_of(here.load(with_model("") + "target_capacity: 101\n")),
              "target_capacity: must be"));
}

TEST_CASE("a key that stands twice in one map is an error") {
  folder here;
  CHECK(holds(errors_of(here.load("http_options: {port: 1, port: 2}\n" +
                                  with_model(""))),
              "the key \"port\" stands here twice"));
}

TEST_CASE("a folder in a file's place is said to be one") {
  folder here;
  here.write("models/a.yaml", "");
  CHECK(holds(errors_of(config::load(here.path)),
              here.path.string() + ": is a folder; a YAML file is expected"));
  CHECK(holds(
      errors_of(here.load("applications:\n"
                          "  - import_path: ray.serve.llm:build_openai_app\n"
                          "    args: {llm_configs: [models]}\n")),
      "llm_configs[0]: \"models\": is a folder; a YAML file is "
      "expected"));
}

TEST_CASE("a typing error in import_path is told from what is not built") {
  folder here;
  auto error_of = [&](const std::string& path) {
    return errors_of(here.load("applications:\n  - import_path: " + path +
                               "\n    args: {llm_configs: [model.gguf]}\n"));
  };
  CHECK(holds(error_of("ray.serve.llm:build_openai_ap"),
              "\"ray.serve.llm:build_openai_ap\" is not known; did you mean "
              "ray.serve.llm:build_openai_app?\n"));
  CHECK(holds(error_of("ray.serve.llm:build_pd_openai_app"),
              "not supported yet; allowed now: "));
}

TEST_CASE("broken files give one error and nothing else") {
  folder here;
  CHECK(holds(errors_of(here.load("a: [1, 2\nb: }")), "not valid YAML"));
  CHECK(holds(errors_of(here.load("")), "is empty"));
  CHECK(holds(errors_of(here.load("- 1\n")), "must be a map, not a list"));
  CHECK(
      holds(errors_of(config::load(here.path / "none.yaml")), "no such file"));
  CHECK(
      holds(errors_of(here.load(std::string(100'000, '['))), "not valid YAML"));
  CHECK(holds(errors_of(here.load(std::string(5u << 20, 'a'))),
              "larger than 4 MiB"));
  CHECK(here.load("&a [*a]").findings.has_errors());
}

TEST_CASE("no cut or change of a valid file crashes the reader") {
  folder here;
  auto whole = with_model("          engine_kwargs: {max_model_len: 8}\n"
                          "          deployment_config: {num_replicas: 2}\n");
  for (std::size_t size = 0; size < whole.size(); size += 3)
    here.load(whole.substr(0, size));
  std::uint32_t seed = 12345;
  for (int i = 0; i < 500; ++i) {
    auto text = whole;
    for (int edit = 0; edit < 3; ++edit) {
      seed = seed * 1664525 + 1013904223;
      text[(seed >> 8) % text.size()] =
          static_cast<char>("\n :-{}[]&*!|>'\"%@`,?#0aZ\t"[(seed >> 3) % 25]);
    }
    here.load(text);
  }
  SUCCEED();
}

TEST_CASE("findings stand in the order of the file") {
  folder here;
  auto loaded = here.load("b: 1\nhttp_options: {port: x}\na: 1\n");
  std::vector<int> lines;
  for (const auto& finding : loaded.findings.all())
    lines.push_back(finding.where.line);
  CHECK(std::is_sorted(lines.begin(), lines.end()));
  CHECK(lines.size() >= 3);
}

TEST_CASE("the example files are valid") {
  // The weights are fetched by scripts/quickstart.sh; a stand-in will do here.
  folder here;
  here.write("models/SmolLM2-135M-Instruct.Q4_1.gguf", "GGUF");
  auto examples = 0;
  for (const auto& entry :
       fs::recursive_directory_iterator{TROUPE_SOURCE_DIR "/cluster-configs"}) {
    if (entry.path().extension() != ".yaml")
      continue;
    auto name = fs::relative(entry.path(), TROUPE_SOURCE_DIR);
    fs::create_directories((here.path / name).parent_path());
    fs::copy_file(entry.path(), here.path / name);
  }
  for (const auto& entry :
       fs::directory_iterator{here.path / "cluster-configs"}) {
    if (!entry.is_regular_file())
      continue;
    ++examples;
    if (config::is_cluster_file(entry.path()))
      CHECK(config::load_cluster(entry.path()).findings.all().empty());
    else
      CHECK(errors_of(config::load(entry.path())) == "");
  }
  CHECK(examples >= 3);
}
