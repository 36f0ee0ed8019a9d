#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

// The verbs of the command line, one file each. They return the process's exit
// status: 0 = well, 1 = failed, 2 = the file or the command line is wrong.

namespace troupe::cli {

/// The environment variable that may hold the token.
inline constexpr auto token_variable = "TROUPE_TOKEN";

struct run_arguments {
  std::filesystem::path config;
  std::string host; ///< empty = what the file says
  int port = -1;    ///< -1 = what the file says
  std::uint16_t admin_port = 8265;
  std::filesystem::path state_dir; ///< empty = default_state_dir()
  bool cpu_only = false;
  std::filesystem::path replica_program; ///< empty = this one
};

/// A one-node cluster in this terminal, until SIGINT or SIGTERM.
int run(const run_arguments&);

struct start_arguments {
  bool head = false;
  std::string head_address; ///< HOST:PORT of its join port; of a worker
  int join_port = 6380;
  int cluster_port = -1; ///< -1 = the join port's successor
  std::string http_host = "127.0.0.1";
  int http_port = 8000;
  std::string admin_host = "127.0.0.1";
  int admin_port = -1; ///< -1 = 8265 on the head, any on a worker
  std::string address = "127.0.0.1";
  std::string name; ///< empty = "head", or the host's name
  double cpus = -1; ///< below 0 = what is found
  double gpus = -1;
  double memory_bytes = -1;
  std::string resources; ///< a JSON object of numbers
  std::string labels;    ///< a JSON object of texts
  std::string token;
  std::filesystem::path token_file;
  std::filesystem::path state_dir; ///< empty = default_state_dir()
  bool block = false;
  bool cpu_only = false;
  std::filesystem::path replica_program; ///< empty = this one
  std::filesystem::path cluster; ///< a cluster file: nodes come and go by it
  std::string log_level = "INFO";
  std::string log_encoding = "TEXT";
};

/// A head, or a worker: in this terminal (`block`) or in the background.
int start(const start_arguments&);

struct stop_arguments {
  std::filesystem::path state_dir; ///< empty = default_state_dir()
  double wait_s = 60;
};

/// Ends the node of a state directory.
int stop(const stop_arguments&);

/// How the verbs that speak to a running cluster find its head.
struct admin_arguments {
  std::string admin; ///< HOST:PORT or http://HOST:PORT; empty = the two below
  std::string admin_host = "127.0.0.1";
  std::uint16_t admin_port = 8265;
};

struct deploy_arguments {
  admin_arguments where;
  std::filesystem::path config;
  bool wait = false;
  double wait_max_s = 600;
};

/// Makes a file what the cluster runs.
int deploy(const deploy_arguments&);

/// Prints what was deployed.
int config(const admin_arguments&);

/// Takes one application out.
int remove(const admin_arguments&, const std::string& application);

/// Takes all applications out; asks first unless `sure`.
int shutdown(const admin_arguments&, bool sure);

/// Checks a file and says all that is wrong with it.
int validate(const std::filesystem::path& config);

/// Makes a node's certificates void and drops it.
int revoke_node(const admin_arguments&, const std::string& node);

struct status_arguments {
  admin_arguments where;
  bool json = false;
};

/// Asks a running cluster's admin listener.
int status(const status_arguments&);

struct plan_arguments {
  std::filesystem::path config;
  std::string admin; ///< of a running cluster; empty = this machine
  bool cpu_only = false;
};

/// Says what a file would take, and where it would go.
int plan(const plan_arguments&);

struct pull_arguments {
  std::string model;
  std::string revision; ///< empty = what `model` says
  std::string endpoint; ///< of the hub; empty = what the environment says
  bool verify = false;  ///< check what is there too
};

/// Brings a model into the cache of this machine and prints where it is.
int pull(const pull_arguments&);

struct token_arguments {
  std::filesystem::path state_dir; ///< of the head; empty = default_state_dir()
  std::string good_for = "24h";
};

/// Prints a token with which workers can join.
int create_token(const token_arguments&);

/// Where the verbs find the key of a service that asks for one.
inline constexpr auto api_key_variable = "OPENAI_API_KEY";

struct chat_arguments {
  std::string url = "http://127.0.0.1:8000";
  std::string api_key;
  std::string model; ///< empty = the only one there
  std::string system;
  double temperature = -1;  ///< below 0 = the service's
  long long max_tokens = 0; ///< 0 = the service's
};

/// A conversation with a model in this terminal; without one, standard input is
/// the one thing that is said.
int chat(const chat_arguments&);

struct bench_arguments {
  std::string url;
  std::string api_key;
  std::string model;             ///< empty = the only one there
  double rate = 0;               ///< requests per second; 0 = closed loop
  std::uint32_t concurrency = 0; ///< 0 = 1, in an open loop 1024
  std::uint64_t requests = 100;
  double time_max_s = 0;
  std::uint32_t prompt_words = 128;
  std::uint32_t max_tokens = 128;
  std::uint64_t seed = 0;
  bool json = false;
};

/// Puts a load on a service and says how it fared.
int bench(const bench_arguments&);

struct inspect_arguments {
  std::filesystem::path model;
  std::filesystem::path tokenizer; ///< empty = the model's own
  std::string quantization;
  std::string dtype;
  std::uint32_t max_model_len = 0;
  std::uint32_t max_num_seqs = 256;
  std::uint64_t kv_cache_bytes = 0;
  bool tensors = false;
  bool chat_template = false;
  bool json = false;
};

/// Says what is in a model's files, and whether they can be served.
int inspect(const inspect_arguments&);

} // namespace troupe::cli
