#pragma once

#include "cuda/emulated_backend.hpp"
#include "engine/ops/cuda_module.hpp"

#include <catch2/catch.hpp>

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace troupe::test {

/// The tests of this folder are for a GPU (TROUPE_TEST_DEVICE=cuda), else for
/// the emulator.
inline bool on_gpu() {
  const char* device = std::getenv("TROUPE_TEST_DEVICE");
  return device != nullptr && std::string{device} == "cuda";
}

/// A GPU is as it is: `how` is for the emulator.
inline std::unique_ptr<ops::backend>
make_gpu(const cuda::emulated_options& how = {},
         ops::kv_type kv = ops::kv_type::f16) {
  if (!on_gpu())
    return cuda::make_emulated_backend(how, {}, kv);
  ops::cuda_options options;
  options.kv = kv;
  auto device = ops::open_cuda(std::move(options));
  INFO((device ? std::string{} : device.error().message));
  REQUIRE(device.has_value());
  return std::move(device->backend);
}

inline std::vector<float> downloaded(ops::backend& from, ops::buffer& what) {
  std::vector<float> out(static_cast<std::size_t>(what.size()));
  from.download(what.data(), out);
  return out;
}

} // namespace troupe::test
