#include "actors/node_agent/resources.hpp"

#include "actors/node_agent/cgroup.hpp"
#include "actors/node_agent/gpu_name.hpp"
#include "actors/node_agent/nvml.hpp"
#include "engine/engine.hpp"

#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <set>
#include <string_view>
#include <thread>

#include <sched.h>
#include <unistd.h>

namespace troupe::node_agent {

namespace {

namespace dom = simdjson::dom;

/// What CUDA_VISIBLE_DEVICES lists; nothing = it is not set. As CUDA reads it,
/// what stands behind a name that is none ("-1") does not count.
std::optional<std::vector<std::string>> visible_gpus() {
  const char* set = std::getenv("CUDA_VISIBLE_DEVICES");
  if (set == nullptr)
    return std::nullopt;
  std::vector<std::string> out;
  std::string_view rest = set;
  while (!rest.empty()) {
    auto name = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(name.size() + 1, rest.size()));
    if (name.empty() || name.front() == '-')
      break;
    out.emplace_back(name);
  }
  return out;
}

// -- what the user says
// ----------------------------------------------------------

constexpr std::size_t json_bytes_max = 64 * 1024;
constexpr double amount_max = 1e18;

using members = std::vector<std::pair<std::string, dom::element>>;

/// The members of the one object that `text` is, each name once.
result<members> object_members(dom::parser& parser, const std::string& text,
                               const std::string& what,
                               const std::string& example) {
  error wrong{errc::invalid_argument,
              what + " must be a JSON object like " + example};
  if (text.size() > json_bytes_max)
    return error{errc::limit, what + ": more than 64 KiB"};
  dom::object object;
  if (parser.parse(text).get(object))
    return wrong;
  members out;
  std::set<std::string> names;
  for (auto [key, value] : object) {
    std::string name{key};
    if (name.empty())
      return error{errc::invalid_argument, what + ": a name is empty"};
    if (!names.insert(name).second)
      return error{errc::invalid_argument,
                   what + ": '" + name + "' is given twice"};
    out.emplace_back(std::move(name), value);
  }
  return out;
}

bool has_own_option(const std::string& name) {
  return name == "CPU" || name == "GPU" || name == "memory";
}

/// A count that the user gave, as one of something.
std::uint32_t whole(double amount) {
  if (!(amount > 0))
    return 0;
  constexpr double most = std::numeric_limits<std::uint32_t>::max();
  return static_cast<std::uint32_t>(std::min(std::ceil(amount), most));
}

double sound(double amount) {
  return amount > 0 ? std::min(amount, amount_max) : 0;
}

std::uint32_t cores_by_affinity() {
  cpu_set_t cpus;
  if (::sched_getaffinity(0, sizeof cpus, &cpus) == 0)
    return static_cast<std::uint32_t>(CPU_COUNT(&cpus));
  return std::thread::hardware_concurrency(); // more than a cpu_set_t holds
}

std::vector<protocol::resource> resources_of(const protocol::node_joined& node,
                                             const given_resources& given,
                                             std::uint64_t gpu_bytes) {
  std::vector<protocol::resource> out;
  auto cpus = given.cpus ? sound(*given.cpus) : node.cpus;
  auto gpus = given.gpus ? sound(*given.gpus) : node.gpus;
  gpus = std::min<double>(gpus, node.gpus);
  out.push_back({"CPU", cpus});
  out.push_back({"memory", static_cast<double>(node.memory_bytes)});
  if (gpus > 0)
    out.push_back({"GPU", gpus});
  if (gpus > 0 && gpu_bytes > 0)
    out.push_back({"gpu_memory", gpus * static_cast<double>(gpu_bytes)});
  for (const auto& type :
       {node.accelerator_type, accelerator_family_of(node.accelerator_type)})
    if (gpus > 0 && !type.empty())
      out.push_back({"accelerator_type:" + type, gpus});
  // The user's word on an accelerator counts more than what was found.
  for (const auto& custom : given.custom) {
    std::erase_if(out, [&](const auto& x) { return x.name == custom.name; });
    out.push_back(custom);
  }
  return out;
}

} // namespace

std::vector<std::string> gpu_names(std::uint32_t count) {
  std::vector<std::string> out;
  if (auto listed = visible_gpus()) {
    out = std::move(*listed);
    out.resize(std::min<std::size_t>(out.size(), count));
    return out;
  }
  for (std::uint32_t i = 0; i < count; ++i)
    out.push_back(std::to_string(i));
  return out;
}

gpu_inventory find_gpus() {
  nvml library;
  gpu_inventory out;
  out.count = library.count();
  if (auto listed = visible_gpus())
    out.count = std::min(out.count, static_cast<std::uint32_t>(listed->size()));
  if (out.count != 0)
    out.type = accelerator_type_of(library.name_of(0));
  out.memory_bytes = out.count != 0 ? library.memory_of(0) : 0;
  return out;
}

std::uint32_t usable_cores() {
  auto cores = cores_by_affinity();
  if (auto quota = read_cgroup_limits().cpus; quota && *quota < cores)
    cores = static_cast<std::uint32_t>(*quota);
  return std::max(cores, 1u);
}

std::uint64_t usable_memory_bytes() {
  auto physical = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                  static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  auto limit = read_cgroup_limits().memory_bytes;
  return limit ? std::min(*limit, physical) : physical;
}

protocol::node_joined describe_node(const std::string& name,
                                    const std::string& address,
                                    const given_resources& given) {
  protocol::node_joined out;
  out.node = name;
  out.address = address;
  out.cpus = given.cpus ? whole(*given.cpus) : usable_cores();
  out.memory_bytes = given.memory_bytes.value_or(usable_memory_bytes());
  auto found = find_gpus();
  out.gpus = given.gpus ? whole(*given.gpus) : found.count;
  if (auto listed = visible_gpus())
    out.gpus = std::min(out.gpus, static_cast<std::uint32_t>(listed->size()));
  if (out.gpus != 0)
    out.accelerator_type = found.type;
  out.engines = {"cpu"};
  if (out.gpus != 0 && engine::find_gpu_engine())
    out.engines.push_back("cuda");
  out.labels = given.labels;
  out.resources = resources_of(out, given, found.memory_bytes);
  return out;
}

result<std::vector<protocol::resource>>
parse_resources(const std::string& text) {
  dom::parser parser;
  auto object = object_members(parser, text, "resources", R"({"fpga": 2})");
  if (!object)
    return object.error();
  std::vector<protocol::resource> out;
  for (const auto& [name, value] : *object) {
    double amount = 0;
    if (has_own_option(name))
      return error{errc::invalid_argument,
                   "resources: '" + name + "' has an option of its own"};
    if (value.get(amount) || !(amount >= 0 && amount <= amount_max))
      return error{errc::invalid_argument,
                   "resources: '" + name + "' must be a number from 0"};
    out.push_back({name, amount});
  }
  return out;
}

result<std::vector<std::pair<std::string, std::string>>>
parse_labels(const std::string& text) {
  dom::parser parser;
  auto object = object_members(parser, text, "labels", R"({"zone": "a"})");
  if (!object)
    return object.error();
  std::vector<std::pair<std::string, std::string>> out;
  for (const auto& [name, value] : *object) {
    std::string_view label;
    if (value.get(label))
      return error{errc::invalid_argument,
                   "labels: '" + name + "' must be a string"};
    out.emplace_back(name, label);
  }
  return out;
}

} // namespace troupe::node_agent
