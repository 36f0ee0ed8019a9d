#include "cuda/emulated_backend.hpp"

#include "cuda/device_backend.hpp"
#include "cuda/device_communicator.hpp"
#include "cuda/thread_transport.hpp"

#include <utility>

namespace troupe::cuda {

namespace {

/// Lets somebody disturb what it moves.
class watched_transport final : public device_transport {
public:
  watched_transport(std::unique_ptr<device_transport> by,
                    std::function<void()> before)
      : by_(std::move(by)), before_(std::move(before)) {
    // nop
  }

  void gather(const float* own, std::int64_t n, float* all) override {
    before_();
    by_->gather(own, n, all);
  }

  void exchange(const float* own, std::int64_t n, float* parts) override {
    before_();
    by_->exchange(own, n, parts);
  }

private:
  std::unique_ptr<device_transport> by_;
  std::function<void()> before_;
};

} // namespace

emulated_rank make_emulated_rank(std::shared_ptr<ops::thread_group> group,
                                 std::int32_t rank, const emulated_options& how,
                                 const std::filesystem::path& cache_folder,
                                 const std::function<void()>& before_move) {
  auto device = std::make_unique<emulated_device>(how);
  auto& used = *device;
  emulated_rank out;
  out.backend = std::make_unique<device_backend<emulated_device>>(
      std::move(device), cache_folder);
  std::unique_ptr<device_transport> transport =
      std::make_unique<thread_transport<emulated_device>>(used, group, rank);
  if (before_move)
    transport =
        std::make_unique<watched_transport>(std::move(transport), before_move);
  out.ranks = std::make_unique<device_communicator<emulated_device>>(
      used, ops::make_thread_communicator(std::move(group), rank),
      std::move(transport));
  return out;
}

std::unique_ptr<ops::backend>
make_emulated_backend(const emulated_options& how,
                      const std::filesystem::path& cache_folder) {
  return std::make_unique<device_backend<emulated_device>>(
      std::make_unique<emulated_device>(how), cache_folder);
}

} // namespace troupe::cuda
