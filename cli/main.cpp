#include "actors/protocol/launch_record.hpp"
#include "actors/replica/replica_main.hpp"
#include "cli/commands.hpp"

#include <CLI/CLI.hpp>

using namespace troupe;

namespace {

void add_run(CLI::App& app, cli::run_arguments& args) {
  auto* verb = app.add_subcommand(
      "run", "Serve the models of a file on this machine, until Ctrl-C");
  verb->add_option("config", args.config, "A Ray Serve LLM YAML file")
      ->required();
  verb->add_option("--host", args.host,
                   "Address to listen on (instead of http_options.host)");
  verb->add_option("--port", args.port,
                   "Port to listen on, 0 = any (instead of http_options.port)")
      ->check(CLI::Range(0, 65535));
  verb->add_option("--admin-port", args.admin_port,
                   "Port of /metrics and `troupe status`, on loopback; 0 = any")
      ->capture_default_str();
  verb->add_option("--state-dir", args.state_dir,
                   "Where certificates and the deployment are kept")
      ->envname("TROUPE_STATE_DIR");
  verb->add_option_function<std::string>(
          "--device",
          [&args](const std::string& given) {
            args.cpu_only = given == "cpu";
          },
          "auto = as the file says; cpu = serve on the CPU what wants a GPU")
      ->check(CLI::IsMember({"auto", "cpu"}))
      ->type_name("auto|cpu");
  verb->footer("Examples:\n"
               "  troupe run cluster-configs/quickstart.yaml\n"
               "  troupe run serve.yaml --port 9000 --device cpu");
}

void add_validate(CLI::App& app, cli::run_arguments& args) {
  auto* verb = app.add_subcommand(
      "validate", "Check a file and say all that is wrong with it");
  verb->add_option("config", args.config, "A Ray Serve LLM YAML file")
      ->required();
  verb->footer("Example:\n  troupe validate serve.yaml");
}

void add_status(CLI::App& app, cli::status_arguments& args) {
  auto* verb = app.add_subcommand(
      "status", "Show the nodes, models and replicas of a running cluster");
  verb->add_option("--admin-host", args.admin_host,
                   "Address of the admin listener")
      ->capture_default_str();
  verb->add_option("--admin-port", args.admin_port,
                   "Port of the admin listener")
      ->capture_default_str();
  verb->add_flag("--json", args.json, "The whole state as JSON");
  verb->footer("Examples:\n"
               "  troupe status\n"
               "  troupe status --json | python3 -m json.tool");
}

} // namespace

int main(int argc, char** argv) {
  CLI::App app{"Troupe serves large language models behind the OpenAI API."};
  app.set_version_flag("--version", "troupe " TROUPE_VERSION);
  app.require_subcommand(1);
  app.failure_message(CLI::FailureMessage::help);
  cli::run_arguments run_args;
  cli::status_arguments status_args;
  add_run(app, run_args);
  add_validate(app, run_args);
  add_status(app, status_args);
  // What a node agent starts; needs its parent's pipe.
  app.add_subcommand("replica", "")->group("");
  app.footer("troupe VERB --help shows a verb's options and examples.");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (app.got_subcommand("run"))
    return cli::run(run_args);
  if (app.got_subcommand("validate"))
    return cli::validate(run_args.config);
  if (app.got_subcommand("status"))
    return cli::status(status_args);
  return replica::run_replica(protocol::lifeline_fd);
}
