#include "cuda/emulated_backend.hpp"

#include "cuda/device_backend.hpp"

namespace troupe::cuda {

std::unique_ptr<ops::backend> make_emulated_backend(std::int64_t blocks_wanted,
                                                    emulated_usage* usage) {
  return std::make_unique<device_backend<emulated_device>>(
      std::make_unique<emulated_device>(blocks_wanted, usage));
}

} // namespace troupe::cuda
