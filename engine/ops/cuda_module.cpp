#include "engine/ops/cuda_module.hpp"

#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <filesystem>
#include <mutex>
#include <string>

namespace troupe::ops {

namespace {

namespace fs = std::filesystem;

constexpr const char* file_name = "libtroupe_cuda.so";

using open_function = void (*)(cuda_options&, result<cuda_device>*);
using version_function = const char* (*)();

fs::path module_path() {
  if (const char* given = std::getenv("TROUPE_CUDA_MODULE"))
    return given;
  std::error_code ignored;
  auto folder = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  for (const auto& path : {folder / file_name, folder / "../lib" / file_name})
    if (fs::exists(path, ignored))
      return path;
  return file_name;
}

result<open_function> load_module() {
  auto failed = [](const std::string& why) {
    return error{errc::unavailable,
                 "the module for NVIDIA GPUs cannot be opened: " + why};
  };
  auto path = module_path();
  void* module = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr)
    return failed(dlerror());
  auto version =
      reinterpret_cast<version_function>(dlsym(module, "troupe_cuda_version"));
  auto open =
      reinterpret_cast<open_function>(dlsym(module, "troupe_cuda_open"));
  if (version == nullptr || open == nullptr)
    return failed(path.string() + " is none of Troupe");
  if (std::strcmp(version(), cuda_module_version) != 0)
    return failed(path.string() + " is of another build");
  return open;
}

/// Opened once; a failure is tried again.
result<open_function> module_of_process() {
  static std::mutex mutex;
  static open_function open = nullptr;
  std::lock_guard guard{mutex};
  if (open == nullptr) {
    auto loaded = load_module();
    if (!loaded)
      return loaded.error();
    open = *loaded;
  }
  return open;
}

} // namespace

result<void> find_cuda_module() {
  if (auto module = module_of_process(); !module)
    return module.error();
  return {};
}

result<cuda_device> open_cuda(cuda_options how) {
  auto open = module_of_process();
  if (!open) {
    if (how.group) // before the hosts part, who would only see that
      how.group->end(open.error().message);
    return open.error();
  }
  result<cuda_device> out{error{errc::internal, "nothing was opened"}};
  (*open)(how, &out);
  return out;
}

} // namespace troupe::ops
