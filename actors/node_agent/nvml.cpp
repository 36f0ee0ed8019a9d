#include "actors/node_agent/nvml.hpp"

#include <array>
#include <charconv>

#include <dlfcn.h>

namespace troupe::node_agent {

template <class Function>
void nvml::find(Function*& to, const char* name) {
  to = reinterpret_cast<Function*>(::dlsym(library_, name));
}

nvml::nvml() : library_(::dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)) {
  if (!library_)
    return;
  find(init_, "nvmlInit_v2");
  find(shutdown_, "nvmlShutdown");
  find(count_, "nvmlDeviceGetCount_v2");
  find(device_, "nvmlDeviceGetHandleByIndex_v2");
  find(device_by_uuid_, "nvmlDeviceGetHandleByUUID");
  find(name_, "nvmlDeviceGetName");
  find(memory_, "nvmlDeviceGetMemoryInfo");
  find(utilization_, "nvmlDeviceGetUtilizationRates");
  find(uuid_, "nvmlDeviceGetUUID");
  usable_ =
      init_ && shutdown_ && count_ && device_ && name_ && init_() == success;
}

nvml::~nvml() {
  if (usable_)
    shutdown_();
  if (library_)
    ::dlclose(library_);
}

std::uint32_t nvml::count() const {
  unsigned out = 0;
  return usable_ && count_(&out) == success ? out : 0;
}

std::string nvml::name_of(std::uint32_t index) const {
  void* device = nullptr;
  std::array<char, 96> text{}; // NVML_DEVICE_NAME_V2_BUFFER_SIZE
  if (!usable_ || device_(index, &device) != success ||
      name_(device, text.data(), text.size() - 1) != success)
    return {};
  return text.data();
}

std::uint64_t nvml::memory_of(std::uint32_t index) const {
  void* device = nullptr;
  memory_info out{};
  if (!usable_ || memory_ == nullptr || device_(index, &device) != success ||
      memory_(device, &out) != success)
    return 0;
  return out.total;
}

std::optional<protocol::gpu_use>
nvml::use_of(const std::string& visible) const {
  auto* device = device_of(visible);
  memory_info memory{};
  if (device == nullptr || memory_ == nullptr ||
      memory_(device, &memory) != success)
    return std::nullopt;
  protocol::gpu_use out;
  out.gpu = visible;
  out.memory_used = memory.used;
  out.memory_total = memory.total;
  // What is a part of a GPU (MIG) has memory of its own, but no such rate.
  if (utilization busy{};
      utilization_ != nullptr && utilization_(device, &busy) == success)
    out.busy_percent = static_cast<std::int32_t>(busy.gpu);
  return out;
}

void* nvml::device_of(const std::string& visible) const {
  void* out = nullptr;
  if (!usable_ || visible.empty())
    return nullptr;
  unsigned index = 0;
  const auto* end = visible.data() + visible.size();
  if (std::from_chars(visible.data(), end, index).ptr == end)
    return device_(index, &out) == success ? out : nullptr;
  if (device_by_uuid_ != nullptr &&
      device_by_uuid_(visible.c_str(), &out) == success)
    return out;
  // CUDA takes the beginning of a UUID too.
  for (unsigned i = 0; uuid_ != nullptr && i < count(); ++i) {
    std::array<char, 96> text{}; // NVML_DEVICE_UUID_V2_BUFFER_SIZE
    if (device_(i, &out) == success &&
        uuid_(out, text.data(), text.size() - 1) == success &&
        std::string{text.data()}.starts_with(visible))
      return out;
  }
  return nullptr;
}

} // namespace troupe::node_agent
