#include "engine/ops/communicator.hpp"

#include <algorithm>
#include <barrier>
#include <cstring>

namespace troupe::ops {

namespace {

/// What ranks of one process see of each other.
struct meeting {
  explicit meeting(std::int32_t size)
      : here(size), given(static_cast<std::size_t>(size)),
        said(static_cast<std::size_t>(size)) {
    // nop
  }

  std::barrier<> here;
  std::vector<const float*> given; // by rank, between two meetings
  std::vector<float> sums;
  std::vector<std::byte> bytes; // rank 0's
  std::vector<std::string> said;
};

class thread_communicator final : public communicator {
public:
  thread_communicator(std::shared_ptr<meeting> with, std::int32_t rank,
                      std::int32_t size)
      : with_(std::move(with)), rank_(rank), size_(size) {
    // nop
  }

  std::int32_t rank() const override {
    return rank_;
  }

  std::int32_t size() const override {
    return size_;
  }

  // Each rank adds up a part of the numbers; the order is that of the ranks.
  void all_reduce(float* x, std::int64_t n) override {
    auto& all = *with_;
    show(x);
    if (rank_ == 0)
      all.sums.resize(std::max(all.sums.size(), static_cast<std::size_t>(n)));
    all.here.arrive_and_wait();
    const auto [first, last] = part_of(n);
    for (auto i = first; i < last; ++i) {
      float sum = all.given[0][i];
      for (std::int32_t r = 1; r < size_; ++r)
        sum += all.given[static_cast<std::size_t>(r)][i];
      all.sums[static_cast<std::size_t>(i)] = sum;
    }
    all.here.arrive_and_wait();
    std::copy_n(all.sums.data(), n, x);
    all.here.arrive_and_wait(); // the sums are read
  }

  void all_gather(const float* x, std::int64_t rows, std::int64_t cols,
                  float* out) override {
    auto& all = *with_;
    show(x);
    for (std::int32_t r = 0; r < size_; ++r)
      for (std::int64_t row = 0; row < rows; ++row)
        std::copy_n(all.given[static_cast<std::size_t>(r)] + row * cols, cols,
                    out + (row * size_ + r) * cols);
    all.here.arrive_and_wait(); // x may change
  }

  void broadcast(std::vector<std::byte>& bytes) override {
    auto& all = *with_;
    if (rank_ == 0)
      all.bytes = bytes;
    all.here.arrive_and_wait();
    bytes = all.bytes;
    all.here.arrive_and_wait(); // all have them
  }

  std::vector<std::string> tell_all(const std::string& own) override {
    auto& all = *with_;
    all.said[static_cast<std::size_t>(rank_)] = own;
    all.here.arrive_and_wait();
    auto out = all.said;
    all.here.arrive_and_wait(); // all have it
    return out;
  }

private:
  void show(const float* x) {
    with_->given[static_cast<std::size_t>(rank_)] = x;
    with_->here.arrive_and_wait();
  }

  std::pair<std::int64_t, std::int64_t> part_of(std::int64_t n) const {
    return {n * rank_ / size_, n * (rank_ + 1) / size_};
  }

  std::shared_ptr<meeting> with_;
  std::int32_t rank_;
  std::int32_t size_;
};

class sizing_communicator final : public communicator {
public:
  explicit sizing_communicator(std::int32_t size) : size_(size) {
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

private:
  [[noreturn]] static void none() {
    throw rank_lost{"there are no ranks to compute with"};
  }

  std::int32_t size_;
};

} // namespace

std::unique_ptr<communicator> make_sizing_communicator(std::int32_t size) {
  return std::make_unique<sizing_communicator>(size);
}

std::vector<std::unique_ptr<communicator>>
make_thread_communicators(std::int32_t size) {
  auto with = std::make_shared<meeting>(size);
  std::vector<std::unique_ptr<communicator>> out;
  for (std::int32_t rank = 0; rank < size; ++rank)
    out.push_back(std::make_unique<thread_communicator>(with, rank, size));
  return out;
}

} // namespace troupe::ops
