#pragma once

#include "actors/protocol/cluster_messages.hpp"
#include "engine/codec/error.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace troupe::node_agent {

/// What the user says of a node; what is not given is found.
struct given_resources {
  std::optional<double> cpus;
  std::optional<double> gpus;
  std::optional<std::uint64_t> memory_bytes;
  std::vector<protocol::resource> custom;
  std::vector<std::pair<std::string, std::string>> labels;
};

/// GPUs of this machine as NVML sees them, of those that CUDA_VISIBLE_DEVICES
/// leaves to this process. The library is opened at run time; without it, or
/// without a driver, there are none.
struct gpu_inventory {
  std::uint32_t count = 0;
  std::string type; ///< "H200", "A10G", ...: Ray's name; empty = unknown
  std::uint64_t memory_bytes = 0; ///< of the first; 0 = unknown
};
gpu_inventory find_gpus();

/// The names under which CUDA_VISIBLE_DEVICES lists them: what it says now, of
/// this process, else the first so many numbers.
std::vector<std::string> gpu_names(std::uint32_t count);

/// Cores and memory that this process may use: affinity and cgroup limits
/// counted.
std::uint32_t usable_cores();
std::uint64_t usable_memory_bytes();

/// The node as it registers: what is given, else what is found.
protocol::node_joined describe_node(const std::string& name,
                                    const std::string& address,
                                    const given_resources&);

/// `text` is a JSON object of numbers ({"fpga": 2}) or of strings, as
/// --resources and --labels take them.
result<std::vector<protocol::resource>>
parse_resources(const std::string& text);
result<std::vector<std::pair<std::string, std::string>>>
parse_labels(const std::string& text);

} // namespace troupe::node_agent
