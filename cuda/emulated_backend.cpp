#include "cuda/emulated_backend.hpp"

#include "cuda/device_backend.hpp"

namespace troupe::cuda {

std::unique_ptr<ops::backend>
make_emulated_backend(const emulated_options& how,
                      const std::filesystem::path& cache_folder,
                      ops::kv_type kv) {
  return std::make_unique<device_backend<emulated_device>>(
      std::make_unique<emulated_device>(how), cache_folder, kv);
}

} // namespace troupe::cuda
