#include "engine/ops/communicator.hpp"

#include "engine/ops/dense_layout.hpp"

namespace troupe::ops {

namespace {

class sizing_communicator final : public communicator {
public:
  sizing_communicator(std::int32_t size, bool on_gpu)
      : size_(size), on_gpu_(on_gpu) {
    // nop
  }

  std::int32_t rank() const override {
    return 0;
  }

  std::int32_t size() const override {
    return size_;
  }

  void all_reduce(float*, std::int64_t) override {
    none();
  }

  void all_gather(const float*, std::int64_t, std::int64_t, float*) override {
    none();
  }

  void broadcast(std::vector<std::byte>&) override {
    none();
  }

  std::vector<std::string> tell_all(const std::string&) override {
    none();
  }

  std::uint64_t prepare(std::int64_t floats) override {
    return on_gpu_ ? gpu_rank_layout::bytes(size_, floats) +
                         gpu_peer_layout::bytes()
                   : 0;
  }

private:
  [[noreturn]] static void none() {
    throw rank_lost{"there are no ranks to compute with"};
  }

  std::int32_t size_;
  bool on_gpu_;
};

} // namespace

std::unique_ptr<communicator> make_sizing_communicator(std::int32_t size,
                                                       bool on_gpu) {
  return std::make_unique<sizing_communicator>(size, on_gpu);
}

} // namespace troupe::ops
