#include "cuda/runtime/nccl.hpp"

#include "cuda/runtime/opened_library.hpp"
#include "engine/ops/dense_layout.hpp"

#include <atomic>
#include <chrono>
#include <cstring>
#include <limits>
#include <mutex>
#include <string>
#include <vector>

namespace troupe::cuda {

namespace {

// What is called of NCCL, as version 2.14 has it and all later ones keep it;
// declared here, so that nothing needs its headers.

struct comm; // opaque
enum class status : int { success = 0 };
constexpr int float32 = 7;

struct unique_id {
  char bytes[128];
};

/// As version 2.17 has it; an older one reads what it knows.
struct configuration {
  static constexpr int unset = std::numeric_limits<int>::min();

  std::size_t size = sizeof(configuration);
  unsigned int magic = 0xcafebeef;
  unsigned int version = 21'700;
  /// Else each call would be a thread of NCCL's. As it is, connecting waits for
  /// the others, and what comes later for nobody: that the stream does.
  int blocking = 1;
  int cluster_size = unset;
  int channels_min = unset;
  int channels_max = ops::gpu_rank_layout::library_channels;
  const char* network = nullptr;
};

struct functions {
  status (*get_unique_id)(unique_id*);
  status (*init_rank)(comm**, int ranks, unique_id, int rank, configuration*);
  status (*abort)(comm*);
  const char* (*error_text)(status);
  status (*all_gather)(const void*, void*, std::size_t, int type, comm*,
                       cuda_stream);
  status (*send)(const void*, std::size_t, int type, int to, comm*,
                 cuda_stream);
  status (*receive)(void*, std::size_t, int type, int from, comm*, cuda_stream);
  status (*group_start)();
  status (*group_end)();
};

error unavailable(const std::string& why) {
  return {errc::unavailable,
          "NVIDIA's library for several GPUs (NCCL) cannot be used: " + why};
}

/// Opened once, and stays open.
result<functions> find_functions() {
  opened_library library{"libnccl.so.2"};
  functions out{};
  library.take(out.get_unique_id, "ncclGetUniqueId");
  library.take(out.init_rank, "ncclCommInitRankConfig");
  library.take(out.abort, "ncclCommAbort");
  library.take(out.error_text, "ncclGetErrorString");
  library.take(out.all_gather, "ncclAllGather");
  library.take(out.send, "ncclSend");
  library.take(out.receive, "ncclRecv");
  library.take(out.group_start, "ncclGroupStart");
  library.take(out.group_end, "ncclGroupEnd");
  if (!library.why_not().empty())
    return unavailable(library.why_not());
  return out;
}

class nccl_transport final : public device_transport {
public:
  nccl_transport(const functions& call,
                 std::shared_ptr<ops::thread_group> group, std::int32_t rank,
                 std::int32_t ranks, cuda_stream stream)
      : call_(call), group_(std::move(group)), rank_(rank), ranks_(ranks),
        stream_(stream), listener_(group_->at_end([this] { give_up(); })) {
    // nop
  }

  // Waits for nobody: what was to be computed is computed, or worth nothing.
  ~nccl_transport() override {
    group_->forget(listener_);
    give_up();
  }

  void connect(const unique_id& id) {
    configuration how;
    run([&] { return call_.init_rank(&comm_, ranks_, id, rank_, &how); });
  }

  void gather(const float* own, std::int64_t n, float* all) override {
    run([&] {
      return call_.all_gather(own, all, static_cast<std::size_t>(n), float32,
                              comm_, stream_);
    });
  }

  void exchange(const float* own, std::int64_t n, float* parts) override {
    run([&] {
      auto worst = call_.group_start();
      auto note = [&](status now) {
        worst = worst == status::success ? now : worst;
      };
      const auto count = static_cast<std::size_t>(n);
      for (std::int32_t r = 0; r < ranks_; ++r) {
        note(call_.send(own + r * n, count, float32, r, comm_, stream_));
        note(call_.receive(parts + r * n, count, float32, r, comm_, stream_));
      }
      note(call_.group_end());
      return worst;
    });
  }

  bool waits() const override {
    return false;
  }

private:
  /// How long a call may go on when the communicator is to be given up.
  static constexpr std::chrono::seconds longest{5};

  /// A call at a time; none after the communicator was given up.
  template <class Call>
  void run(Call call) {
    std::unique_lock lock{mutex_};
    if (has_given_up_)
      group_->check(); // throws: nothing else gives up while calls are made
    const auto done = call();
    lock.unlock();
    if (done != status::success)
      fail(std::string{"NCCL: "} + call_.error_text(done));
  }

  [[noreturn]] void fail(const std::string& why) {
    group_->end("rank " + std::to_string(rank_) + ": " + why);
    group_->check();
    throw ops::rank_lost{why};
  }

  /// What waits on the GPU ends. A call that hangs itself cannot be given up:
  /// then the process has to end.
  void give_up() {
    has_given_up_ = true;
    std::unique_lock lock{mutex_, longest};
    if (!lock || comm_ == nullptr)
      return;
    call_.abort(comm_);
    comm_ = nullptr;
  }

  const functions call_;
  std::shared_ptr<ops::thread_group> group_;
  std::int32_t rank_;
  std::int32_t ranks_; ///< of all processes
  cuda_stream stream_;
  std::timed_mutex mutex_;
  comm* comm_ = nullptr;
  std::atomic<bool> has_given_up_ = false;
  std::uint64_t listener_; // last: it may be called at once
};

} // namespace

result<std::unique_ptr<device_transport>>
connect_nccl(std::shared_ptr<ops::thread_group> group, ops::communicator& hosts,
             cuda_stream stream) {
  auto found = find_functions();
  if (!found)
    return found.error();
  unique_id id{};
  std::vector<std::byte> word(sizeof id);
  if (hosts.rank() == 0) {
    if (auto made = found->get_unique_id(&id); made != status::success)
      return unavailable(found->error_text(made));
    std::memcpy(word.data(), &id, sizeof id);
  }
  hosts.broadcast(word);
  std::memcpy(&id, word.data(), sizeof id);
  auto out = std::make_unique<nccl_transport>(
      *found, std::move(group), hosts.rank(), hosts.size(), stream);
  out->connect(id);
  return std::unique_ptr<device_transport>{std::move(out)};
}

} // namespace troupe::cuda
