#include "actors/replica/replica_process.hpp"

#include "actors/protocol/launch_record.hpp"
#include "actors/protocol/record_layout.hpp"
#include "actors/replica/journal_watch.hpp"
#include "actors/replica/rank_process.hpp"
#include "actors/replica/replica.hpp"
#include "actors/replica/session_table.hpp"
#include "actors/runtime/blob_listener.hpp"
#include "actors/runtime/link.hpp"
#include "actors/runtime/log.hpp"
#include "actors/runtime/logging.hpp"
#include "actors/runtime/stop_actor.hpp"
#include "actors/runtime/system_config.hpp"

#include <caf/typed_event_based_actor.hpp>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <future>
#include <sys/prctl.h>
#include <thread>
#include <unistd.h>

namespace troupe::replica {

engine::options engine_options(const protocol::replica_spec& spec) {
  engine::options out;
  out.model = spec.model_source;
  out.tokenizer = spec.tokenizer_source;
  out.max_model_len = spec.max_model_len;
  auto choose = [](auto& to, auto chosen) {
    if (chosen != 0)
      to = chosen;
  };
  choose(out.max_num_seqs, spec.max_num_seqs);
  choose(out.max_num_batched_tokens, spec.max_num_batched_tokens);
  choose(out.block_size, spec.block_size);
  // The session table is what bounds choices, by a number that can be changed.
  out.max_waiting = session_limits::living_bound;
  out.kv_cache_bytes = spec.kv_cache_bytes;
  out.enable_prefix_caching = spec.enable_prefix_caching;
  out.threads = spec.threads;
  out.chat_template = spec.chat_template;
  out.memory_utilization = spec.memory_utilization;
  out.quantization = spec.quantization;
  out.kv_cache_dtype =
      spec.kv_cache_dtype.empty() ? spec.float_kv_dtype : spec.kv_cache_dtype;
  out.dtype = spec.dtype;
  out.load_format = spec.load_format;
  out.task = spec.task;
  if (!spec.seed.empty())
    out.seed = spec.seed.front();
  out.generation_defaults = spec.generation_defaults;
  out.trust_request_template = spec.trust_request_chat_template;
  out.template_kwargs = spec.default_chat_template_kwargs;
  out.tensor_parallel_size = spec.tensor_parallel_size;
  if (spec.gpus > 0)
    out.device = "cuda";
  if (spec.gpus < 1)
    out.gpu_share = spec.gpus;
  out.environment = spec.environment;
  return out;
}

namespace {

using namespace std::chrono_literals;
using protocol::launch_record;

/// How long ending may take once it is decided: the engine may be in a long
/// step, or hang.
constexpr unsigned farewell_seconds = 5;

volatile std::sig_atomic_t decided_status = 0;

/// From now on the process ends with `status`, come what may.
void end_soon_with(int status) {
  decided_status = status;
  std::signal(SIGALRM, [](int) { ::_exit(decided_status); });
  ::alarm(farewell_seconds);
}

bool read_all(int fd, void* to, std::size_t size) {
  auto* at = static_cast<char*>(to);
  while (size > 0) {
    auto n = ::read(fd, at, size);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return false;
    at += n;
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

result<launch_record> read_launch_record(int fd) {
  std::uint32_t size = 0;
  if (!read_all(fd, &size, sizeof size))
    return error{errc::io, "no launch record on the lifeline; a replica is "
                           "started by its node agent"};
  if (size > protocol::record_bytes_max)
    return error{errc::limit, "the launch record is too large"};
  codec::bytes bytes(size);
  if (!read_all(fd, bytes.data(), size))
    return error{errc::io, "the launch record was cut short"};
  return protocol::decode_launch_record(bytes);
}

/// Ends the process once nobody holds the other end of the lifeline. The
/// kernel's parent-death signal says the same sooner, but only of the thread
/// that started us, and not if it died before we asked.
void hold_lifeline(int fd) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::thread{[fd] {
    char byte = 0;
    while (read_all(fd, &byte, 1)) {
    }
    ::_exit(exit_orphaned);
  }}.detach();
}

std::string name_of(const launch_record& launch) {
  auto out = "replica " + launch.spec.replica;
  if (launch.rank > 0)
    out += ", rank " + std::to_string(launch.rank);
  return out;
}

/// Which GPUs it may use is not the deployment's to say.
void apply_environment(const launch_record& launch) {
  for (const auto& [name, value] : launch.spec.environment)
    ::setenv(name.c_str(), value.c_str(), 1);
  ::setenv("CUDA_VISIBLE_DEVICES", launch.gpus.c_str(), 1);
  ::setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 1); // numbers as NVML has them
}

/// A replica from the launch record to its end.
class replica_life {
public:
  replica_life(const launch_record& launch, const runtime::credentials& files,
               std::uint32_t version)
      : launch_(launch), files_(files), config_({files}), system_(config_),
        replica_(spawn_replica(
            system_, launch, [this](int status) { end(status); }, version)) {
    // nop
  }

  int run(const engine_loader& load) {
    auto loaded = start_engine(load);
    loading_ = false;
    if (loaded)
      replica_.inbox->put_loaded(*loaded);
    else
      replica_.inbox->put_failed(loaded.error());
    auto status = end_.get_future().get();
    end_soon_with(status);
    runtime::stop_actor(system_, replica_.actor, 2s);
    return status;
  }

private:
  /// Everything that may take long, on the main thread.
  result<loaded_engine> start_engine(const engine_loader& load) {
    auto options = fetch_model();
    if (!options) // the hub, its answer and the disk may be better next time
      return error{errc::unavailable, options.error().message};
    auto begin = std::chrono::steady_clock::now();
    auto progress = [this](std::uint64_t done, std::uint64_t total) {
      replica_.inbox->put_progress(done, total);
    };
    progress(0, 0);
    auto made = load(*options, progress);
    if (!made)
      return made.error();
    engine_ = std::move(made->engine);
    open_journal();
    auto blobs = runtime::blob_listener::start(files_, launch_.listen_address);
    if (!blobs)
      return blobs.error();
    blobs_ = std::move(*blobs);
    auto hash = blobs_->add(std::move(made->card));
    if (!hash)
      return hash.error();
    auto port = runtime::publish(replica_.actor, launch_.listen_address);
    if (!port)
      return port.error();
    loaded_engine out;
    out.engine = engine_.get();
    out.watch = watch_.get();
    out.port = *port;
    out.blob_port = blobs_->port();
    out.card_hash = *hash;
    out.load_ms = static_cast<std::uint32_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(
            std::chrono::steady_clock::now() - begin)
            .count());
    return out;
  }

  /// What is not on this machine yet.
  result<engine::options> fetch_model() {
    auto fetched =
        engine::fetch(engine_options(launch_.spec),
                      [this](const std::string& doing, std::uint64_t done,
                             std::uint64_t total) {
                        replica_.inbox->put_progress(done, total, doing);
                      });
    if (!fetched)
      return fetched.error();
    for (const auto& note : fetched->notes)
      spdlog::warn("{}", note);
    if (protocol::processes_of(launch_.spec) == 1)
      return std::move(fetched->with);
    return lead_ranks(system_, launch_, std::move(fetched->with));
  }

  /// Without it deaths are not blamed on requests, which is better than no
  /// replica.
  void open_journal() {
    if (launch_.journal.empty())
      return;
    auto made = runtime::step_journal::create(launch_.journal,
                                              engine_->about().max_num_seqs);
    if (made)
      watch_ = std::make_unique<journal_watch>(std::move(*made));
    else
      spdlog::warn("no step journal: {}", made.error().message);
  }

  void end(int status) {
    if (loading_)
      ::_exit(status); // nothing to finish, and loading cannot be stopped
    std::call_once(ended_, [&] { end_.set_value(status); });
  }

  const launch_record& launch_;
  const runtime::credentials& files_;
  std::promise<int> end_;
  std::once_flag ended_;
  std::atomic<bool> loading_ = true;
  runtime::system_config config_;
  caf::actor_system system_;
  spawned_replica replica_;
  std::unique_ptr<runtime::blob_listener> blobs_;
  std::unique_ptr<journal_watch> watch_;
  std::unique_ptr<engine::engine> engine_;
};

} // namespace

int run_replica(int lifeline, const engine_loader& load,
                replica_overrides overrides) {
  auto launch = read_launch_record(lifeline);
  if (!launch) {
    spdlog::error("{}", launch.error().message);
    return exit_launch;
  }
  apply_environment(*launch);
  hold_lifeline(lifeline);
  auto level = launch->log_level.empty() ? "info" : launch->log_level;
  if (auto set =
          runtime::set_up_logging({level, launch->log_json, name_of(*launch)});
      !set) {
    spdlog::error("{}", set.error().message);
    return exit_launch;
  }
  runtime::credentials files{launch->certificate, launch->key,
                             launch->authority};
  if (launch->rank > 0)
    return run_rank(*launch, files);
  return replica_life{*launch, files, overrides.version}.run(load);
}

} // namespace troupe::replica
