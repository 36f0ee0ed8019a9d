#include "engine/engine.hpp"
#include "engine/ops/dense_layout.hpp"
#include "engine/ops/gloo/gloo_communicator.hpp"

#include <catch2/catch.hpp>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

using namespace troupe;
using troupe::engine::options;
using troupe::engine::output;

// An engine whose ranks are threads of this process, on emulated GPUs that it
// opens as it would real ones.

namespace {

namespace fs = std::filesystem;

/// For the time of a test.
struct variable {
  variable(const char* name_in, const std::string& value) : name(name_in) {
    ::setenv(name, value.c_str(), 1);
  }
  ~variable() {
    ::unsetenv(name);
  }
  const char* name;
};

struct two_gpus {
  variable module{
      "TROUPE_CUDA_MODULE",
      (fs::path{TROUPE_BINARY_DIR} / "tests/emulated_gpu/libemulated_gpu.so")
          .string()};
  variable visible{"CUDA_VISIBLE_DEVICES", "0,1"};
};

options on_gpus(std::uint32_t ranks) {
  options o;
  o.model =
      fs::path{TROUPE_SOURCE_DIR} / "tests/reference/tiny/q4_1-linear.gguf";
  o.device = "cuda";
  o.tensor_parallel_size = ranks;
  o.max_model_len = 64;
  o.max_num_seqs = 4;
  o.max_num_batched_tokens = 16;
  o.environment = {{"TROUPE_CACHE", ""}, {"XDG_CACHE_HOME", ""}, {"HOME", ""}};
  return o;
}

/// An engine that runs, and what it has said.
class running_engine {
public:
  explicit running_engine(const options& o)
      : engine_(engine::engine::load(o, {}).value()) {
    engine_->start([this](engine::step_result&& step) {
      std::lock_guard lock{mutex_};
      failed_ = step.failed;
      for (auto& one : step.outputs) {
        auto& all = tokens_[one.id];
        all.insert(all.end(), one.tokens.begin(), one.tokens.end());
        over_ += one.finish != engine::finish_reason::none;
      }
      changed_.notify_all();
    });
  }

  engine::engine& get() {
    return *engine_;
  }

  void ask(std::uint64_t id, std::uint32_t tokens = 8, float temperature = 0) {
    engine::request r;
    r.id = id;
    for (std::uint64_t i = 0; i < 3 + id; ++i)
      r.prompt.push_back(static_cast<token_id>(20 + 7 * id + i));
    r.params.max_tokens = tokens;
    r.params.ignore_eos = true;
    r.params.seed = 5 + id;
    r.params.temperature = temperature;
    engine_->submit(std::move(r));
  }

  /// Returns when so many choices are over, or it has failed.
  std::map<std::uint64_t, std::vector<token_id>> wait(std::size_t choices) {
    std::unique_lock lock{mutex_};
    const bool good = changed_.wait_for(lock, std::chrono::seconds{120}, [&] {
      return over_ >= choices || !failed_.empty();
    });
    REQUIRE(good);
    return tokens_;
  }

  std::string failed() {
    std::lock_guard lock{mutex_};
    return failed_;
  }

private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::uint64_t, std::vector<token_id>> tokens_;
  std::size_t over_ = 0;
  std::string failed_;
  std::unique_ptr<engine::engine> engine_; // last: its thread calls back
};

std::string error_of(const options& o) {
  auto loaded = engine::engine::load(o, {});
  return loaded ? "" : loaded.error().message;
}

} // namespace

TEST_CASE("an engine on two emulated GPUs gives a choice the same tokens alone "
          "and in company",
          "[emulated]") {
  two_gpus here;
  std::map<std::uint64_t, std::vector<token_id>> alone;
  std::string name;
  for (std::uint64_t id = 0; id < 4; ++id) {
    running_engine one{on_gpus(2)};
    one.ask(id, 8, id % 2 ? 1.0f : 0.0f);
    alone[id] = one.wait(1)[id];
    CHECK(alone[id].size() == 8);
    name = one.get().about().arithmetic_class;
    CHECK(one.get().about().device == "cuda: emulated GPU, 2 ranks");
  }
  running_engine all{on_gpus(2)};
  for (std::uint64_t id = 0; id < 4; ++id)
    all.ask(id, 8, id % 2 ? 1.0f : 0.0f);
  CHECK(all.wait(4) == alone);
  CHECK(all.get().about().arithmetic_class == name);
  running_engine single{on_gpus(1)};
  CHECK(single.get().about().arithmetic_class != name);
  // What `measure` says of all ranks is what they hold.
  auto planned = engine::measure(on_gpus(2), 1u << 30);
  REQUIRE(planned.has_value());
  CHECK(planned->weight_bytes == all.get().about().weight_bytes);
  CHECK(planned->kv_cache_bytes == all.get().about().kv_cache_bytes);
}

TEST_CASE("an engine whose rank on an emulated GPU fails says why, and ends",
          "[emulated]") {
  two_gpus here;
  const auto file = fs::temp_directory_path() / "unit_ranks_fail";
  fs::remove(file);
  variable fails{"EMULATED_GPU_FAIL", file.string()};
  running_engine one{on_gpus(2)};
  one.ask(1);
  one.wait(1);
  std::ofstream{file} << "now";
  one.ask(2, 40);
  one.wait(2);
  CHECK(one.failed() == "rank 1: a step on a GPU failed");
  fs::remove(file);
}

namespace {

/// The rank of another node's process, which here is a thread.
class other_node {
public:
  explicit other_node(options o) {
    o.rank = 1;
    thread_ = std::thread{[this, o] {
      if (auto done = engine::serve_ranks(o, {}); !done)
        error_ = done.error().message;
    }};
  }
  ~other_node() {
    if (thread_.joinable())
      thread_.join();
  }
  /// Once its ranks have ended; empty: as they should.
  std::string error() {
    thread_.join();
    return error_;
  }

private:
  std::string error_;
  std::thread thread_;
};

options on_two_nodes() {
  auto o = on_gpus(2);
  o.ranks_here = 1;
  o.meeting = ops::make_local_meeting();
  return o;
}

} // namespace

TEST_CASE("ranks on emulated GPUs of two nodes give the tokens of one node",
          "[emulated]") {
  two_gpus here;
  running_engine together{on_gpus(2)};
  for (std::uint64_t id = 0; id < 3; ++id)
    together.ask(id, 8, id % 2 ? 1.0f : 0.0f);
  const auto tokens = together.wait(3);
  const auto o = on_two_nodes();
  other_node second{o};
  {
    running_engine first{o};
    CHECK(first.get().about().arithmetic_class ==
          together.get().about().arithmetic_class);
    CHECK(first.get().about().device == "cuda: emulated GPU, 2 ranks");
    for (std::uint64_t id = 0; id < 3; ++id)
      first.ask(id, 8, id % 2 ? 1.0f : 0.0f);
    CHECK(first.wait(3) == tokens);
  }
  CHECK(second.error().empty());
}

TEST_CASE("a rank on another node's emulated GPU that fails ends all ranks",
          "[emulated]") {
  two_gpus here;
  const auto file = fs::temp_directory_path() / "unit_ranks_fail_far";
  fs::remove(file);
  variable fails{"EMULATED_GPU_FAIL", file.string()};
  const auto o = on_two_nodes();
  other_node second{o};
  running_engine first{o};
  first.ask(1);
  first.wait(1);
  std::ofstream{file} << "now";
  first.ask(2, 40);
  first.wait(2);
  CHECK_FALSE(first.failed().empty());
  CHECK(second.error() == "a step on a GPU failed");
  fs::remove(file);
}

TEST_CASE("a node without a GPU for its rank is said to the others",
          "[emulated]") {
  two_gpus here;
  variable none{"CUDA_VISIBLE_DEVICES", ""};
  const auto o = on_two_nodes();
  other_node second{o};
  CHECK(error_of(o) == "rank 0: no GPU 0 can be used here");
  CHECK(second.error() == "rank 0: no GPU 0 can be used here");
}

TEST_CASE("ranks that cannot be loaded on emulated GPUs say why",
          "[emulated]") {
  two_gpus here;
  CHECK(error_of(on_gpus(3)) == "rank 2: no GPU 2 can be used here");
  {
    variable fewer{"CUDA_VISIBLE_DEVICES", "0"};
    CHECK(error_of(on_gpus(2)) == "rank 1: no GPU 1 can be used here");
  }
  auto o = on_gpus(2);
  ::setenv("CUDA_VISIBLE_DEVICES", "0,1", 1);
  o.model = "/nowhere.gguf";
  CHECK(error_of(o).find("/nowhere.gguf") != std::string::npos);
  o = on_gpus(2);
  o.model =
      fs::path{TROUPE_SOURCE_DIR} / "tests/reference/tiny/bf16-llama3.gguf";
  CHECK(error_of(o).find("3 heads cannot be divided by 2") !=
        std::string::npos);
  o = on_gpus(2);
  o.kv_cache_bytes = 64;
  CHECK(error_of(o).find("kv_cache_memory_bytes") != std::string::npos);
}

TEST_CASE("what keeps ranks from loading is the first one's to say") {
  options o;
  o.model =
      fs::path{TROUPE_SOURCE_DIR} / "tests/reference/tiny/bf16-llama3.gguf";
  o.tensor_parallel_size = 2;
  o.threads = 2;
  o.meeting = ops::make_local_meeting();
  auto follower = o;
  follower.rank = 1;
  std::string reason = "3 heads cannot be divided by 2";
  SECTION("which cannot load itself") {
    // as above
  }
  SECTION("where another one cannot") {
    follower.model = "/nowhere.gguf";
    o.model =
        fs::path{TROUPE_SOURCE_DIR} / "tests/reference/tiny/q4_1-linear.gguf";
    reason = "rank 1: model '/nowhere.gguf': no such file";
  }
  result<void> followed;
  std::thread other{[&] { followed = engine::serve_ranks(follower, {}); }};
  auto said = error_of(o);
  other.join();
  CHECK(said.find(reason) != std::string::npos);
  REQUIRE_FALSE(followed.has_value());
  CHECK(followed.error().code == errc::cancelled);
}

TEST_CASE("each rank has a GPU's memory, and one of a machine's shares it",
          "[emulated]") {
  auto o = on_gpus(2);
  o.max_model_len = 256;
  o.max_num_seqs = 16'384;
  o.max_num_batched_tokens = 16'384;
  o.memory_utilization = 0.5;
  constexpr std::uint64_t each = 1u << 30;
  // What is kept free for NCCL is as if it were not there.
  const auto library = ops::gpu_rank_layout::library_bytes(2);
  auto gpus = engine::measure(o, each + library);
  REQUIRE(gpus.has_value());
  CHECK(gpus->library_bytes == 2 * library);
  CHECK(gpus->bytes() - gpus->library_bytes <= each);
  CHECK(gpus->bytes() - gpus->library_bytes > each * 9 / 10);
  o.device = "cpu";
  auto machine = engine::measure(o, each);
  REQUIRE(machine.has_value());
  CHECK(machine->bytes() <= each / 2);
  CHECK(machine->library_bytes == 0);
}
