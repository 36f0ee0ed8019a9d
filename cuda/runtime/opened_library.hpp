#pragma once

#include <dlfcn.h>
#include <string>
#include <type_traits>

namespace troupe::cuda {

/// One of NVIDIA's libraries, opened at run time, and for good.
class opened_library {
public:
  explicit opened_library(const std::string& file)
      : file_(file), library_(dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    if (library_ == nullptr)
      why_not_ = dlerror();
  }

  /// Null, and an error, if it has none of that name.
  template <class Function>
  void take(Function& function, const char* name) {
    if (library_ == nullptr)
      return;
    function = reinterpret_cast<Function>(dlsym(library_, name));
    if (function == nullptr)
      why_not_ = file_ + " has no " + name;
  }

  /// Empty if it and all that was taken is there.
  const std::string& why_not() const {
    return why_not_;
  }

private:
  std::string file_;
  void* library_;
  std::string why_not_;
};

} // namespace troupe::cuda
