#include "actors/protocol/launch_record.hpp"
#include "actors/replica/replica_main.hpp"
#include "cli/commands.hpp"
#include "cli/usage.hpp"

#include <CLI/CLI.hpp>

#include <functional>
#include <memory>

using namespace troupe;

namespace {

/// What is to be done once the command line is read.
using action = std::function<int()>;

void add_config(CLI::App& verb, std::filesystem::path& config) {
  verb.add_option("config", config, "A Ray Serve LLM YAML file")->required();
}

void add_state_dir(CLI::App& verb, std::filesystem::path& state_dir) {
  verb.add_option("--state-dir", state_dir,
                  "Where certificates and the deployment are kept")
      ->envname("TROUPE_STATE_DIR");
}

void add_device(CLI::App& verb, bool& cpu_only) {
  verb.add_option_function<std::string>(
          "--device",
          [&cpu_only](const std::string& given) { cpu_only = given == "cpu"; },
          "auto = as the file says; cpu = serve on the CPU what wants a GPU")
      ->check(CLI::IsMember({"auto", "cpu"}))
      ->type_name("auto|cpu");
}

void add_replica_program(CLI::App& verb, std::filesystem::path& program) {
  verb.add_option("--replica-program", program,
                  "The program that replicas are (instead of this one)")
      ->check(CLI::ExistingFile);
}

void add_admin(CLI::App& verb, cli::admin_arguments& where) {
  auto* whole =
      verb.add_option("-a,--address,--admin", where.admin,
                      "The head's admin listener, HOST:PORT (127.0.0.1:8265)");
  verb.add_option("--admin-host", where.admin_host, "Its address alone")
      ->capture_default_str()
      ->excludes(whole);
  verb.add_option("--admin-port", where.admin_port, "Its port alone")
      ->capture_default_str()
      ->excludes(whole);
}

CLI::Option* add_port(CLI::App& verb, const std::string& name, int& port,
                      const std::string& text) {
  return verb.add_option(name, port, text)->check(CLI::Range(0, 65535));
}

/// A verb whose arguments live as long as its action.
template <class Arguments>
CLI::App* add_verb(CLI::App& app, const char* name, const char* text,
                   std::shared_ptr<Arguments> args, action& chosen,
                   int (*verb)(const Arguments&)) {
  auto* out = app.add_subcommand(name, text);
  out->callback(
      [&chosen, args, verb] { chosen = [args, verb] { return verb(*args); }; });
  return out;
}

void add_run(CLI::App& app, action& chosen) {
  auto args = std::make_shared<cli::run_arguments>();
  auto* verb = add_verb(app, "run",
                        "Serve the models of a file on this machine, until "
                        "Ctrl-C",
                        args, chosen, cli::run);
  add_config(*verb, args->config);
  verb->add_option("--host", args->host,
                   "Address to listen on (instead of http_options.host)");
  add_port(*verb, "--port", args->port,
           "Port to listen on, 0 = any (instead of http_options.port)");
  verb->add_option("--admin-port", args->admin_port,
                   "Port of /metrics and `troupe status`, on loopback; 0 = any")
      ->capture_default_str();
  add_state_dir(*verb, args->state_dir);
  add_device(*verb, args->cpu_only);
  add_replica_program(*verb, args->replica_program);
  verb->footer("Examples:\n"
               "  troupe run cluster-configs/quickstart.yaml\n"
               "  troupe run serve.yaml --port 9000 --device cpu");
}

void add_start_ports(CLI::App& verb, cli::start_arguments& args) {
  add_port(verb, "--port", args.join_port,
           "Where workers join, on a head; 0 = any")
      ->capture_default_str();
  add_port(verb, "--cluster-port", args.cluster_port,
           "Where nodes that have joined connect, on a head (default: the join "
           "port's successor)");
  verb.add_option("--http-host", args.http_host,
                  "Address of the OpenAI listener")
      ->capture_default_str();
  add_port(verb, "--http-port", args.http_port,
           "Port of the OpenAI listener, 0 = any")
      ->capture_default_str();
  verb.add_option("--admin-host", args.admin_host,
                  "Address of the admin listener")
      ->capture_default_str();
  add_port(verb, "--admin-port", args.admin_port,
           "Port of the admin listener, 0 = any (default: 8265 on a head, any "
           "on a worker)");
  verb.add_option("--node-ip-address", args.address,
                  "Numeric address at which other nodes reach this one")
      ->capture_default_str();
}

void add_start_resources(CLI::App& verb, cli::start_arguments& args) {
  auto natural = CLI::Range(0.0, 1e15);
  verb.add_option("--num-cpus", args.cpus, "Cores (default: what is found)")
      ->check(natural);
  verb.add_option("--num-gpus", args.gpus, "GPUs (default: what is found)")
      ->check(natural);
  verb.add_option("--memory", args.memory_bytes,
                  "Bytes of memory (default: what is found)")
      ->check(cli::bytes());
  verb.add_option("--resources", args.resources,
                  "Resources of your own, a JSON object: '{\"fpga\": 2}'");
  verb.add_option("--labels", args.labels,
                  "Labels, a JSON object: '{\"zone\": \"a\"}'");
}

void add_start(CLI::App& app, action& chosen) {
  auto args = std::make_shared<cli::start_arguments>();
  auto* verb = add_verb(app, "start", "Start a head, or a worker that joins it",
                        args, chosen, cli::start);
  auto* head = verb->add_flag("--head", args->head, "Be the head");
  auto* address = verb->add_option(
      "--address", args->head_address,
      "Be a worker of the head whose join port is at HOST:PORT");
  address->excludes(head);
  add_start_ports(*verb, *args);
  for (const auto* of_heads : {"--port", "--cluster-port"})
    verb->get_option(of_heads)->excludes(address);
  verb->add_option("--node-name", args->name,
                   "Name (default: head, or the host's name)");
  add_start_resources(*verb, *args);
  auto* token = verb->add_option("--token", args->token,
                                 "What lets a worker join: `troupe token "
                                 "create` on the head prints one");
  token->envname(cli::token_variable);
  verb->add_option("--token-file", args->token_file, "A file that holds it")
      ->check(CLI::ExistingFile)
      ->excludes(head);
  verb->add_option("--autoscaling-config", args->cluster,
                   "A cluster file: workers come and go as models need them")
      ->check(CLI::ExistingFile)
      ->needs(head);
  add_state_dir(*verb, args->state_dir);
  verb->add_flag("--block", args->block, "Stay in this terminal, until Ctrl-C");
  add_device(*verb, args->cpu_only);
  verb->get_option("--device")->excludes(address);
  add_replica_program(*verb, args->replica_program);
  verb->add_option("--log-level", args->log_level, "What is logged at least")
      ->check(CLI::IsMember({"DEBUG", "INFO", "WARNING", "ERROR"}))
      ->capture_default_str();
  verb->add_option("--log-encoding", args->log_encoding, "Form of the log")
      ->check(CLI::IsMember({"TEXT", "JSON"}))
      ->capture_default_str();
  verb->footer("Examples:\n"
               "  troupe start --head --node-ip-address 10.0.0.1\n"
               "  troupe start --head --autoscaling-config cluster.yaml\n"
               "  troupe start --address 10.0.0.1:6380 --token TOKEN "
               "--node-ip-address 10.0.0.2\n"
               "  troupe stop");
}

void add_stop(CLI::App& app, action& chosen) {
  auto args = std::make_shared<cli::stop_arguments>();
  auto* verb = add_verb(app, "stop", "End the node of this machine", args,
                        chosen, cli::stop);
  add_state_dir(*verb, args->state_dir);
  verb->add_option("--wait", args->wait_s,
                   "Seconds that answers under way may take")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  verb->footer("Example:\n  troupe stop");
}

void add_deploy(CLI::App& app, action& chosen) {
  auto args = std::make_shared<cli::deploy_arguments>();
  auto* verb = add_verb(app, "deploy", "Make a file what the cluster runs",
                        args, chosen, cli::deploy);
  add_config(*verb, args->config);
  add_admin(*verb, args->where);
  auto* wait =
      verb->add_flag("--wait", args->wait, "Return when all models run");
  verb->add_option("--wait-max", args->wait_max_s, "Seconds that this may take")
      ->needs(wait)
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  verb->footer("Examples:\n"
               "  troupe deploy serve.yaml --wait\n"
               "  troupe deploy serve.yaml -a http://10.0.0.1:8265");
}

void add_config_verb(CLI::App& app, action& chosen) {
  auto args = std::make_shared<cli::admin_arguments>();
  auto* verb = add_verb(app, "config", "Print what was deployed", args, chosen,
                        cli::config);
  add_admin(*verb, *args);
  verb->footer("Example:\n  troupe config");
}

void add_delete(CLI::App& app, action& chosen) {
  auto where = std::make_shared<cli::admin_arguments>();
  auto name = std::make_shared<std::string>();
  auto* verb = app.add_subcommand("delete", "Take one application out");
  verb->add_option("name", *name, "The application")->required();
  add_admin(*verb, *where);
  verb->callback([&chosen, where, name] {
    chosen = [where, name] { return cli::remove(*where, *name); };
  });
  verb->footer("Example:\n  troupe delete llm_app");
}

void add_shutdown(CLI::App& app, action& chosen) {
  auto where = std::make_shared<cli::admin_arguments>();
  auto sure = std::make_shared<bool>(false);
  auto* verb = app.add_subcommand("shutdown", "Take all applications out");
  verb->add_flag("-y,--yes", *sure, "Do not ask");
  add_admin(*verb, *where);
  verb->callback([&chosen, where, sure] {
    chosen = [where, sure] { return cli::shutdown(*where, *sure); };
  });
  verb->footer("Example:\n  troupe shutdown -y");
}

void add_validate(CLI::App& app, action& chosen) {
  auto file = std::make_shared<std::filesystem::path>();
  auto* verb = add_verb(app, "validate",
                        "Check a file and say all that is wrong with it", file,
                        chosen, cli::validate);
  add_config(*verb, *file);
  verb->footer("Example:\n  troupe validate serve.yaml");
}

void add_status(CLI::App& app, action& chosen) {
  auto args = std::make_shared<cli::status_arguments>();
  auto* verb = add_verb(app, "status",
                        "Show the nodes, models and replicas of a running "
                        "cluster",
                        args, chosen, cli::status);
  add_admin(*verb, args->where);
  verb->add_flag("--json", args->json, "The whole state as JSON");
  verb->footer("Examples:\n"
               "  troupe status\n"
               "  troupe status --json | python3 -m json.tool");
}

void add_plan(CLI::App& app, action& chosen) {
  auto args = std::make_shared<cli::plan_arguments>();
  auto* verb =
      add_verb(app, "plan", "Say what a file would take and where it would go",
               args, chosen, cli::plan);
  add_config(*verb, args->config);
  verb->add_option("-a,--address,--admin", args->admin,
                   "HOST:PORT of a running cluster's admin listener, for its "
                   "nodes (default: this machine alone)");
  add_device(*verb, args->cpu_only);
  verb->footer("Examples:\n"
               "  troupe plan serve.yaml\n"
               "  troupe plan serve.yaml --admin 10.0.0.1:8265");
}

void add_inspect(CLI::App& app, action& chosen) {
  auto args = std::make_shared<cli::inspect_arguments>();
  auto* verb = add_verb(app, "inspect",
                        "Say what is in a model's files and what memory it "
                        "needs",
                        args, chosen, cli::inspect);
  verb->add_option("model", args->model,
                   "A .gguf file, a directory with config.json and "
                   "safetensors, or a model that was pulled")
      ->required();
  verb->add_option("--tokenizer", args->tokenizer,
                   "A tokenizer.json or its directory (default: the model's)");
  verb->add_option("--quantization", args->quantization,
                   "q8_0 or q4_0: quantised when it is loaded");
  verb->add_option("--dtype", args->dtype, "As engine_kwargs.dtype");
  verb->add_option("--max-model-len", args->max_model_len,
                   "Tokens of one choice (default: what the model says)");
  verb->add_option("--max-num-seqs", args->max_num_seqs, "Sequences in a step")
      ->capture_default_str();
  verb->add_option("--kv-cache-memory-bytes", args->kv_cache_bytes,
                   "Bytes of the KV cache (default: a share of what is free)")
      ->check(cli::bytes());
  verb->add_flag("--tensors", args->tensors, "List the tensors");
  verb->add_flag("--template", args->chat_template, "Show the chat template");
  verb->add_flag("--json", args->json, "All of it, for scripts");
  verb->footer("Examples:\n"
               "  troupe inspect models/SmolLM2-135M-Instruct.Q4_1.gguf\n"
               "  troupe inspect ./Qwen3-0.6B --quantization q8_0 --json");
}

void add_node(CLI::App& app, action& chosen) {
  auto where = std::make_shared<cli::admin_arguments>();
  auto name = std::make_shared<std::string>();
  auto* verb = app.add_subcommand("node", "What becomes of a node");
  verb->require_subcommand(1);
  auto* revoke = verb->add_subcommand(
      "revoke", "Shut a worker out: its certificates and all tokens made so "
                "far are void");
  revoke->add_option("name", *name, "The node")->required();
  add_admin(*revoke, *where);
  revoke->callback([&chosen, where, name] {
    chosen = [where, name] { return cli::revoke_node(*where, *name); };
  });
  verb->footer("Example:\n  troupe node revoke worker-3");
}

void add_pull(CLI::App& app, action& chosen) {
  auto args = std::make_shared<cli::pull_arguments>();
  auto* verb =
      add_verb(app, "pull", "Fetch a model into the cache of this machine",
               args, chosen, cli::pull);
  verb->add_option("model", args->model,
                   "org/name[@revision][:file], s3://bucket/prefix or "
                   "gs://bucket/prefix")
      ->required();
  verb->add_option("--revision", args->revision,
                   "Branch, tag or commit of a hub's model (main)");
  verb->add_option("--endpoint", args->endpoint,
                   "URL of the hub (HF_ENDPOINT, https://huggingface.co)");
  verb->add_flag("--verify", args->verify,
                 "Check what the cache has too, and fetch anew what is broken");
  verb->footer("Examples:\n"
               "  troupe pull Qwen/Qwen2.5-0.5B-Instruct\n"
               "  troupe pull org/name-GGUF:Q4_K_M --revision v1.0");
}

void add_token(CLI::App& app, action& chosen) {
  auto args = std::make_shared<cli::token_arguments>();
  auto* verb = app.add_subcommand("token", "What lets workers join");
  verb->require_subcommand(1);
  auto* create = add_verb(*verb, "create", "Print a token, on the head", args,
                          chosen, cli::create_token);
  add_state_dir(*create, args->state_dir);
  create
      ->add_option("--good-for", args->good_for,
                   "How long: 30s, 15m, 24h or 7d")
      ->capture_default_str();
  verb->footer("Example:\n  troupe token create --good-for 1h");
}

/// The options of verbs that are a service's client.
void add_service(CLI::App& verb, std::string& api_key, std::string& model) {
  verb.add_option("--model", model, "Its name (default: the only one there)");
  verb.add_option("--api-key", api_key, "What the service asks for")
      ->envname(cli::api_key_variable);
}

void add_chat(CLI::App& app, action& chosen) {
  auto args = std::make_shared<cli::chat_arguments>();
  auto* verb = add_verb(app, "chat", "Talk with a model in this terminal", args,
                        chosen, cli::chat);
  verb->add_option("--url", args->url, "Where the service is")
      ->capture_default_str();
  add_service(*verb, args->api_key, args->model);
  verb->add_option("--system", args->system, "What the model is told first");
  verb->add_option("--temperature", args->temperature,
                   "0 = always the likeliest (default: the service's)")
      ->check(CLI::Range(0.0, 2.0));
  verb->add_option("--max-tokens", args->max_tokens,
                   "Of an answer (default: the service's)")
      ->check(CLI::Range(1LL, (1LL << 31) - 1));
  verb->footer("Examples:\n"
               "  troupe chat\n"
               "  troupe chat --model smollm2-135m --system 'Be brief.'\n"
               "  echo 'What is gravity?' | troupe chat");
}

void add_bench(CLI::App& app, action& chosen) {
  auto args = std::make_shared<cli::bench_arguments>();
  auto* verb =
      add_verb(app, "bench", "Put a load on a service and say how it fared",
               args, chosen, cli::bench);
  verb->add_option("url", args->url, "Where the service is")->required();
  add_service(*verb, args->api_key, args->model);
  verb->add_option("--rate", args->rate,
                   "Requests per second, at random times (open loop); else "
                   "--concurrency at a time (closed loop)")
      ->check(CLI::Range(1e-6, 1e6));
  verb->add_option("--concurrency", args->concurrency,
                   "Requests at a time (default: 1; with --rate at most 1024)")
      ->check(CLI::Range(1, 65535));
  verb->add_option("--requests", args->requests, "How many in all")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  verb->add_option("--time-max", args->time_max_s,
                   "Seconds after which none is begun")
      ->check(CLI::Range(0.0, 1e6));
  verb->add_option("--prompt-words", args->prompt_words, "Words of a prompt")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  verb->add_option("--max-tokens", args->max_tokens, "Tokens of an answer")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  verb->add_option("--seed", args->seed, "Of prompts, times and sampling")
      ->capture_default_str();
  verb->add_flag("--json", args->json, "The result as JSON");
  verb->footer("Examples:\n"
               "  troupe bench http://127.0.0.1:8000 --concurrency 8\n"
               "  troupe bench http://127.0.0.1:8000 --rate 4 --requests 200 "
               "--json");
}

} // namespace

int main(int argc, char** argv) {
  CLI::App app{"Troupe serves large language models behind the OpenAI API."};
  app.set_version_flag("--version", "troupe " TROUPE_VERSION);
  app.require_subcommand(1);
  app.failure_message(cli::usage_message);
  action chosen;
  for (auto* add :
       {add_run, add_start, add_stop, add_deploy, add_config_verb, add_delete,
        add_shutdown, add_status, add_plan, add_pull, add_validate, add_inspect,
        add_node, add_token, add_chat, add_bench})
    add(app, chosen);
  // What a node agent starts; needs its parent's pipe.
  app.add_subcommand("replica", "")->group("")->callback([&chosen] {
    chosen = [] { return replica::run_replica(protocol::lifeline_fd); };
  });
  app.footer("troupe VERB --help shows a verb's options and examples.");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  return chosen();
}
