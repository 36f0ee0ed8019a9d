#include "actors/node_agent/cgroup.hpp"
#include "actors/node_agent/gpu_name.hpp"
#include "actors/node_agent/gpu_watch.hpp"
#include "actors/node_agent/resources.hpp"
#include "tests/actors/temporary_directory.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <fstream>
#include <limits>
#include <thread>

#include <dlfcn.h>

using namespace troupe;
using namespace troupe::node_agent;

namespace {

/// The files of /proc and /sys that are asked.
class fake_system {
public:
  void write(const std::string& path, const std::string& content) {
    auto file = tmp_.path() / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream{file} << content;
  }

  cgroup_limits limits() const {
    return read_cgroup_limits(tmp_.path());
  }

private:
  test::temporary_directory tmp_;
};

double amount_of(const protocol::node_joined& node, const std::string& name) {
  for (const auto& x : node.resources)
    if (x.name == name)
      return x.amount;
  return -1;
}

} // namespace

TEST_CASE("control groups of version 2 limit cores and memory") {
  fake_system system;
  system.write("proc/self/cgroup", "0::/a/b\n");
  SECTION("no limit anywhere") {
    system.write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    system.write("sys/fs/cgroup/a/b/memory.max", "max\n");
    CHECK_FALSE(system.limits().cpus.has_value());
    CHECK_FALSE(system.limits().memory_bytes.has_value());
  }
  SECTION("the lowest of the group and its parents counts") {
    system.write("sys/fs/cgroup/a/b/cpu.max", "400000 100000\n");
    system.write("sys/fs/cgroup/a/cpu.max", "150000 100000\n");
    system.write("sys/fs/cgroup/a/b/memory.max", "1000\n");
    system.write("sys/fs/cgroup/a/memory.max", "2000\n");
    CHECK(system.limits().cpus == 1.5);
    CHECK(system.limits().memory_bytes == 1000u);
  }
  SECTION("in a container the mount is the group") {
    system.write("sys/fs/cgroup/cpu.max", "200000 100000\n");
    system.write("sys/fs/cgroup/memory.max", "4096\n");
    CHECK(system.limits().cpus == 2.0);
    CHECK(system.limits().memory_bytes == 4096u);
  }
}

TEST_CASE("control groups of version 1 limit cores and memory") {
  fake_system system;
  system.write("proc/self/cgroup",
               "12:cpuset:/\n4:cpu,cpuacct:/box\n3:memory:/box\n");
  system.write("sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n");
  system.write("sys/fs/cgroup/memory/memory.limit_in_bytes",
               "9223372036854771712\n");
  SECTION("none") {
    system.write("sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "-1\n");
    CHECK_FALSE(system.limits().cpus.has_value());
    CHECK_FALSE(system.limits().memory_bytes.has_value());
  }
  SECTION("both") {
    system.write("sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "300000\n");
    system.write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "8192\n");
    CHECK(system.limits().cpus == 3.0);
    CHECK(system.limits().memory_bytes == 8192u);
  }
}

TEST_CASE("odd control group files are no limit") {
  fake_system system;
  for (const char* groups : {"", "0", "0:", "::", "0::/../../etc\n", "0::a//\n",
                             "x:y:z:/w\n0::/\n"}) {
    system.write("proc/self/cgroup", groups);
    for (const char* text : {"", "x", "-5 100", "0 0", "1", "nan nan"}) {
      system.write("sys/fs/cgroup/cpu.max", text);
      system.write("sys/fs/cgroup/memory.max", text[0] == '1' ? "0" : text);
      CHECK_FALSE(system.limits().cpus.has_value());
    }
  }
}

TEST_CASE("this machine has cores and memory") {
  CHECK(usable_cores() >= 1);
  CHECK(usable_cores() <= std::thread::hardware_concurrency());
  CHECK(usable_memory_bytes() > (1u << 20));
}

TEST_CASE("a GPU's driver name gives Ray's type") {
  using names = std::vector<std::pair<std::string, std::string>>;
  for (const auto& [driver, type] : names{
           {"NVIDIA H200", "H200"},
           {"NVIDIA H100 80GB HBM3", "H100"},
           {"NVIDIA H100 NVL", "H100"},
           {"NVIDIA A100-SXM4-40GB", "A100-40G"},
           {"NVIDIA A100-PCIE-40GB", "A100-40G"},
           {"NVIDIA A100-SXM4-80GB", "A100-80G"},
           {"NVIDIA A100 80GB PCIe", "A100-80G"},
           {"A100", "A100"},
           {"NVIDIA A10G", "A10G"},
           {"NVIDIA L4", "L4"},
           {"NVIDIA L40S", "L40S"},
           {"Tesla T4", "T4"},
           {"Tesla V100-SXM2-16GB", "V100"},
           {"Tesla P100-PCIE-16GB", "P100"},
           {"NVIDIA B200", "B200"},
           {"NVIDIA GeForce RTX 4090", "RTX-4090"},
           {"NVIDIA RTX A6000", "RTX-A6000"},
           {"NVIDIA RTX PRO 6000 Blackwell", "RTX-PRO-6000"},
           {"", ""},
           {"NVIDIA", ""},
           {std::string(500, 'X'), ""},
       })
    CHECK(accelerator_type_of(driver) == type);
  CHECK(accelerator_family_of("A100-80G") == "A100");
  CHECK(accelerator_family_of("A10G").empty());
}

TEST_CASE("GPUs are those of NVML, if it is there") {
  // Loaded already, it is the library that the name stands for.
  auto* fake = ::dlopen(TROUPE_FAKE_NVML, RTLD_NOW | RTLD_LOCAL);
  REQUIRE(fake != nullptr);
  auto gpus = find_gpus();
  auto node = describe_node("w1", "127.0.0.1", {});
  given_resources none;
  none.gpus = 0;
  auto without = describe_node("w1", "127.0.0.1", none);
  ::dlclose(fake);
  CHECK(gpus.count == 2);
  CHECK(gpus.type == "A100-80G");
  CHECK(node.gpus == 2);
  CHECK(node.accelerator_type == "A100-80G");
  CHECK(amount_of(node, "GPU") == 2);
  CHECK(amount_of(node, "accelerator_type:A100-80G") == 2);
  CHECK(amount_of(node, "gpu_memory") == 160.0 * (1ull << 30));
  CHECK(amount_of(node, "accelerator_type:A100") == 2);
  CHECK(without.gpus == 0);
  CHECK(without.accelerator_type.empty());
  CHECK(amount_of(without, "GPU") == -1);
  CHECK(amount_of(without, "accelerator_type:A100") == -1);
  CHECK(amount_of(without, "gpu_memory") == -1);
}

TEST_CASE("what is used of GPUs is looked at, by number or UUID") {
  auto* fake = ::dlopen(TROUPE_FAKE_NVML, RTLD_NOW | RTLD_LOCAL);
  REQUIRE(fake != nullptr);
  const std::vector<std::string> all{"0", "1",        "GPU-f", "GPU-second",
                                     "2", "GPU-none", "0x",    ""};
  gpu_watch watch;
  CHECK(watch.of(all).empty());
  watch.look_at({});
  watch.look_at(all);
  std::vector<protocol::gpu_use> seen;
  for (int i = 0; i < 1000 && seen.empty(); ++i) {
    seen = watch.of(all);
    std::this_thread::sleep_for(std::chrono::milliseconds{10});
  }
  constexpr auto used = 1ull << 30, total = 80ull << 30;
  CHECK(seen ==
        std::vector<protocol::gpu_use>{{"0", used, total, 93},
                                       {"1", used, total, -1},
                                       {"GPU-f", used, total, 93},
                                       {"GPU-second", used, total, -1}});
  CHECK(watch.of({"1"}).size() == 1);
  ::dlclose(fake);
}

TEST_CASE("a node describes what was found") {
  auto node = describe_node("w1", "10.0.0.1", {});
  CHECK(node.node == "w1");
  CHECK(node.address == "10.0.0.1");
  CHECK(node.cpus == usable_cores());
  CHECK(node.memory_bytes == usable_memory_bytes());
  CHECK(node.engines == std::vector<std::string>{"cpu"});
  CHECK(amount_of(node, "CPU") == node.cpus);
  CHECK(amount_of(node, "memory") == static_cast<double>(node.memory_bytes));
  auto gpus = find_gpus();
  CHECK(node.gpus == gpus.count);
  CHECK(node.accelerator_type == gpus.type);
  CHECK(amount_of(node, "GPU") == (gpus.count == 0 ? -1.0 : gpus.count));
  if (!gpus.type.empty())
    CHECK(amount_of(node, "accelerator_type:" + gpus.type) == gpus.count);
}

TEST_CASE("what the user says of a node counts more than what was found") {
  given_resources given;
  given.cpus = 1.5;
  given.gpus = 3;
  given.memory_bytes = 1'000'000;
  given.custom = {{"fpga", 2}, {"accelerator_type:X1", 1}};
  given.labels = {{"zone", "a"}};
  auto node = describe_node("w1", "127.0.0.1", given);
  CHECK(node.cpus == 2);
  CHECK(node.gpus == 3);
  CHECK(node.memory_bytes == 1'000'000);
  CHECK(amount_of(node, "CPU") == 1.5);
  CHECK(amount_of(node, "GPU") == 3);
  CHECK(amount_of(node, "memory") == 1'000'000);
  CHECK(amount_of(node, "fpga") == 2);
  CHECK(amount_of(node, "accelerator_type:X1") == 1);
  CHECK(node.labels == given.labels);
}

TEST_CASE("no amount that a user gives is too odd") {
  for (double odd : {0.0, -1.0, 1e300, std::nan(""),
                     std::numeric_limits<double>::infinity()}) {
    given_resources given;
    given.cpus = odd;
    given.gpus = odd;
    auto node = describe_node("w1", "127.0.0.1", given);
    CHECK(std::isfinite(amount_of(node, "CPU")));
    CHECK(amount_of(node, "CPU") >= 0);
    CHECK((odd > 0) == (node.gpus > 0));
  }
}

TEST_CASE("resources are an object of numbers") {
  auto good = parse_resources(R"({"fpga": 2, "tpu": 0.5})");
  REQUIRE(good.has_value());
  CHECK(*good == std::vector<protocol::resource>{{"fpga", 2}, {"tpu", 0.5}});
  CHECK(parse_resources("{}").value().empty());
  auto says = [](const std::string& text) {
    auto parsed = parse_resources(text);
    REQUIRE(parsed.has_error());
    return parsed.error().message;
  };
  CHECK(says("") == R"(resources must be a JSON object like {"fpga": 2})");
  CHECK(says("{") == R"(resources must be a JSON object like {"fpga": 2})");
  CHECK(says("[1]") == R"(resources must be a JSON object like {"fpga": 2})");
  CHECK(says(R"({"a": "1"})") == "resources: 'a' must be a number from 0");
  CHECK(says(R"({"a": -1})") == "resources: 'a' must be a number from 0");
  CHECK(says(R"({"a": 1, "a": 2})") == "resources: 'a' is given twice");
  CHECK(says(R"({"": 1})") == "resources: a name is empty");
  CHECK(says(R"({"CPU": 1})") == "resources: 'CPU' has an option of its own");
  CHECK(says(R"({"a": 1e30})") == "resources: 'a' must be a number from 0");
  CHECK(says(std::string(100'000, ' ')) == "resources: more than 64 KiB");
  CHECK(says(std::string(5000, '[')).starts_with("resources must be"));
}

TEST_CASE("labels are an object of strings") {
  auto good = parse_labels(R"({"zone": "a", "disk": ""})");
  REQUIRE(good.has_value());
  CHECK(good->size() == 2);
  CHECK((*good)[0] == std::pair<std::string, std::string>{"zone", "a"});
  auto wrong = parse_labels(R"({"zone": 1})");
  REQUIRE(wrong.has_error());
  CHECK(wrong.error().message == "labels: 'zone' must be a string");
}
