#include "engine/engine.hpp"
#include "engine/environment.hpp"
#include "engine/ops/cuda_module.hpp"
#include "engine/ops/dense_layout.hpp"

#include <catch2/catch.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

using namespace troupe;
using namespace troupe::engine;

namespace {

namespace fs = std::filesystem;

const fs::path tiny = fs::path{TROUPE_SOURCE_DIR} / "tests/reference/tiny";

/// For the time of a test.
struct module_named {
  explicit module_named(const fs::path& path) {
    ::setenv("TROUPE_CUDA_MODULE", path.c_str(), 1);
  }
  ~module_named() {
    ::unsetenv("TROUPE_CUDA_MODULE");
  }
};

std::string error_of(const options& o) {
  auto loaded = troupe::engine::engine::load(o, {});
  return loaded ? "" : loaded.error().message;
}

bool says(const std::string& text, const std::string& what) {
  INFO(text);
  return text.find(what) != std::string::npos;
}

} // namespace

TEST_CASE("a GPU that cannot be had is an error that says what is lacking") {
  options o;
  o.model = tiny / "bf16-llama3.gguf";
  o.device = "cuda";
  {
    module_named none{"/nowhere/libtroupe_cuda.so"};
    CHECK(says(error_of(o), "the module for NVIDIA GPUs cannot be opened"));
    CHECK(says(error_of(o), "/nowhere/libtroupe_cuda.so"));
    auto found = ops::find_cuda_module();
    REQUIRE(!found.has_value());
    CHECK(found.error().code == errc::unavailable);
  }
  {
    auto path = fs::temp_directory_path() / "unit_engine_no_module.so";
    std::ofstream{path} << "no library";
    module_named broken{path};
    CHECK(says(error_of(o), "unit_engine_no_module.so"));
    fs::remove(path);
  }
  o.device = "tpu";
  CHECK(says(error_of(o), "\"tpu\" is neither cpu nor cuda"));
}

TEST_CASE("the module of this build opens, and there is a GPU or it is said "
          "that there is none") {
  auto path = fs::path{TROUPE_BINARY_DIR} / "libtroupe_cuda.so";
  if (!fs::exists(path)) {
    WARN("built without the module for GPUs");
    return;
  }
  module_named built{path};
  auto found = ops::find_cuda_module();
  INFO((found ? std::string{} : found.error().message));
  REQUIRE(found.has_value());
  auto device = ops::open_cuda({});
  if (device) {
    CHECK(device->free_bytes > 0);
    CHECK(device->free_bytes <= device->all_bytes);
  } else {
    CHECK(says(device.error().message, "no GPU"));
  }
  auto beyond = ops::open_cuda({.number = 1'000'000, .cache_folder = {}});
  REQUIRE(!beyond.has_value());
  CHECK(says(beyond.error().message, "no GPU"));
}

TEST_CASE("what is kept of a GPU lies with what else is kept") {
  options o;
  o.environment = {{"TROUPE_CACHE", ""}, {"XDG_CACHE_HOME", ""}, {"HOME", ""}};
  CHECK(cache_folder(o).empty());
  o.environment[2].second = "/home/a";
  CHECK(cache_folder(o) == "/home/a/.cache/troupe");
  o.environment[1].second = "/caches";
  CHECK(cache_folder(o) == "/caches/troupe");
  o.environment[0].second = "/own";
  CHECK(cache_folder(o) == "/own");
}

TEST_CASE("what is for GPUs is refused by name on a CPU") {
  options o;
  o.model = tiny / "llama-bf16";
  o.kv_cache_dtype = "fp8_e4m3";
  CHECK(says(error_of(o), "kv_cache_dtype: fp8_e4m3 is for GPUs"));
  CHECK(says(measure(o, 1 << 30).error().message, "is for GPUs"));
  o.kv_cache_dtype = "fp8_e5m2";
  CHECK(says(error_of(o), "kv_cache_dtype: 'fp8_e5m2' is not known"));
  o.kv_cache_dtype = "";
  o.quantization = "fp8";
  CHECK(says(error_of(o), "quantised with nothing, not with fp8; q8_0 and "
                          "q4_0, and on GPUs fp8, quantise a model when it is "
                          "loaded"));
}

TEST_CASE("memory is planned for the device that is asked for") {
  options o;
  o.model = tiny / "q8_0-mha.gguf";
  o.kv_cache_bytes = 4 << 20;
  auto cpu = measure(o, 1 << 30);
  o.device = "cuda";
  auto gpu = measure(o, 1 << 30);
  REQUIRE(cpu.has_value());
  REQUIRE(gpu.has_value());
  CHECK(gpu->weight_bytes > 1.5 * cpu->weight_bytes); // bf16 against q8_0
  CHECK(gpu->kv_block_bytes == cpu->kv_block_bytes);
  // Longer choices have more turns of ropes and more blocks in their tables.
  CHECK(gpu->workspace_bytes > ops::gpu_workspace_bytes);
  o.max_model_len = gpu->max_model_len / 4;
  auto shorter = measure(o, 1 << 30);
  REQUIRE(shorter.has_value());
  CHECK(shorter->workspace_bytes < gpu->workspace_bytes);
}

TEST_CASE("a share of a GPU's memory is what all takes together") {
  options o;
  o.device = "cuda";
  o.model = tiny / "q8_0-mha.gguf";
  o.max_num_seqs = 4096;
  o.memory_utilization = 0.5;
  constexpr std::uint64_t all = 256 << 20;
  auto use = measure(o, all);
  REQUIRE(use.has_value());
  CHECK(use->bytes() <= all / 2);
  o.model = tiny.parent_path() / "encoders/bert-embedding";
  auto pooled = measure(o, all);
  REQUIRE(pooled.has_value());
  CHECK(pooled->workspace_bytes > ops::gpu_workspace_bytes);
}
