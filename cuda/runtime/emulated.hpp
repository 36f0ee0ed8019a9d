#pragma once

#include "cuda/kernels/numbers.hpp"
#include "cuda/product.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace troupe::cuda {

/// The threads of one block as fibers, one after the other: a thread runs until
/// it waits for the others, a warp until it waits for the block. Finds what
/// would hang or race a GPU: threads that wait for different things, or end
/// while others wait, throw std::logic_error.
class emulated_block {
public:
  enum class wait : std::uint8_t { block, warp };

  explicit emulated_block(unsigned threads);
  ~emulated_block();

  /// Runs `body(thread)` of every thread to its end.
  void run(const std::function<void(unsigned)>& body);
  /// Nobody is within a body, as after a `run` that threw.
  bool has_ended() const;

  /// From within a body: until all threads of the block, or of the warp, are
  /// here. A warp's threads come in order: what they do together is done by the
  /// last one before it waits.
  void arrive(wait what);

  /// What the lanes of a warp show each other.
  struct shown {
    float x[warp_size];
    std::uint32_t a[4][warp_size]; ///< words of a product's first matrix
    std::uint16_t b[16][8];        ///< rows of its second
    float sums[16][8];             ///< rows of what it is added to
  };

  /// Through which a warp exchanges numbers. There are two that take turns, so
  /// that nobody has to wait until all have read.
  shown& exchange(unsigned warp, unsigned turn) {
    return exchange_[2 * warp + turn % 2];
  }

private:
  struct fibers;
  std::unique_ptr<fibers> fibers_;
  std::vector<shown> exchange_; ///< by warp
};

/// Of a whole warp: sums += a b. A sum's products, each rounded, are added one
/// after the other. (A product of two such numbers is exact as a float.)
void multiply_add(emulated_block::shown& all, f16);
void multiply_add(emulated_block::shown& all, bf16);

/// What a kernel sees of its thread (cuda/kernels/threads.hpp).
class emulated_thread {
public:
  emulated_thread(emulated_block* block, unsigned index, unsigned count,
                  unsigned x, unsigned y, float* shared)
      : block_(block), index_(index), count_(count), x_(x), y_(y),
        shared_(shared) {
    // nop
  }

  unsigned index() const {
    return index_;
  }
  unsigned count() const {
    return count_;
  }
  unsigned block_x() const {
    return x_;
  }
  unsigned block_y() const {
    return y_;
  }
  float* shared() {
    return shared_;
  }
  void sync() {
    block_->arrive(emulated_block::wait::block);
  }
  float warp_sum(float x) {
    return over_lanes<warp_size>(x, [](float a, float b) { return a + b; });
  }
  float warp_max(float x) {
    return over_lanes<warp_size>(
        x, [](float a, float b) { return a > b ? a : b; });
  }
  float quad_max(float x) {
    return over_lanes<4>(x, [](float a, float b) { return a > b ? a : b; });
  }

  template <class Stored>
  void multiply_add(fragments::sums& sums, const fragments::a& a,
                    const fragments::b& b) {
    auto& all = block_->exchange(index_ / warp_size, turn_++);
    const unsigned lane = index_ % warp_size;
    const unsigned g = lane / 4, c = lane % 4 * 2;
    constexpr std::size_t half = sizeof sums / 2; // neighbours of a row
    all.a[0][lane] = a[0];
    all.a[1][lane] = a[1];
    all.a[2][lane] = a[2];
    all.a[3][lane] = a[3];
    all.b[c][g] = static_cast<std::uint16_t>(b[0]);
    all.b[c + 1][g] = static_cast<std::uint16_t>(b[0] >> 16);
    all.b[c + 8][g] = static_cast<std::uint16_t>(b[1]);
    all.b[c + 9][g] = static_cast<std::uint16_t>(b[1] >> 16);
    std::memcpy(all.sums[g] + c, sums, half);
    std::memcpy(all.sums[g + 8] + c, sums + 2, half);
    if (lane == warp_size - 1)
      cuda::multiply_add(all, Stored{});
    block_->arrive(emulated_block::wait::warp);
    std::memcpy(sums, all.sums[g] + c, half);
    std::memcpy(sums + 2, all.sums[g + 8] + c, half);
  }

  std::uint32_t round_pair(float low, float high) const {
    return to_f16(low).bits | std::uint32_t{to_f16(high).bits} << 16;
  }
  std::uint32_t widen_pair(std::uint16_t codes) const {
    return halves_of(codes);
  }

  /// Done when it is waited for, not before.
  void copy_async(void* to, const void* from, bool is_there) {
    copies_.push_back({to, is_there ? from : nullptr, copy_group_});
  }
  void commit_copies() {
    ++copy_group_;
  }
  template <unsigned Left>
  void wait_copies() {
    constexpr std::size_t bytes = 16;
    auto one = copies_.begin();
    for (; one != copies_.end() && one->group + Left < copy_group_; ++one) {
      if (one->from != nullptr)
        std::memcpy(one->to, one->from, bytes);
      else
        std::memset(one->to, 0, bytes);
    }
    copies_.erase(copies_.begin(), one);
  }

  std::uint64_t add(std::uint64_t* word, std::uint64_t x) {
    const auto before = *word;
    *word += x;
    return before;
  }

  void store_release(std::uint32_t* word, std::uint32_t x) {
    std::atomic_ref{*word}.store(x, std::memory_order_release);
  }
  std::int32_t look_up(const std::int32_t* word) const {
    return *word;
  }
  std::uint32_t load_acquire(const std::uint32_t* word) {
    return std::atomic_ref{*const_cast<std::uint32_t*>(word)}.load(
        std::memory_order_acquire);
  }
  bool arrive(std::uint32_t* word, std::uint32_t all) {
    const bool is_last = *word + 1 == all;
    *word = is_last ? 0 : *word + 1;
    return is_last;
  }
  void pause() {
    std::this_thread::yield();
  }
  void wait_for_earlier() const {
    // nop: they are
  }

private:
  struct copy {
    void* to;
    const void* from; ///< null: zeros
    unsigned group;
  };

  /// Over so many neighbours, by the same tree as the GPU's butterfly.
  template <unsigned Lanes, class F>
  float over_lanes(float x, F f) {
    auto& all = block_->exchange(index_ / warp_size, turn_++);
    const unsigned lane = index_ % warp_size;
    all.x[lane] = x;
    if (lane == warp_size - 1)
      for (float* some = all.x; some < all.x + warp_size; some += Lanes)
        for (unsigned step = Lanes / 2; step > 0; step /= 2)
          for (unsigned i = 0; i < step; ++i)
            some[i] = f(some[i], some[i + step]);
    block_->arrive(emulated_block::wait::warp);
    return all.x[lane / Lanes * Lanes];
  }

  emulated_block* block_;
  unsigned index_, count_, x_, y_;
  float* shared_;
  unsigned turn_ = 0;
  std::vector<copy> copies_; ///< that are not waited for
  unsigned copy_group_ = 0;
};

/// What a device was asked for.
struct emulated_usage {
  std::size_t products = 0;    ///< of its library, so far
  std::size_t allocations = 0; ///< so far, of the host's memory too
  std::size_t bytes = 0;       ///< that are allocated
  std::size_t bytes_most = 0;
  std::size_t launches = 0; ///< of kernels, so far, those of graphs too
  std::size_t captures = 0; ///< of graphs, so far
  std::size_t replays = 0;  ///< of graphs, so far
};

struct emulated_options {
  /// Launches of fewer blocks are divided further where they can be.
  std::int64_t blocks_wanted = 0;
  std::size_t shared_bytes_most = 227 << 10; ///< of a block
  /// If it is given, it outlives the device.
  emulated_usage* usage = nullptr;
  /// It has algorithms for products: one whose bits depend on the number of
  /// rows, which is the fastest, one that fails, and a good one,
  /// which pays for many rows.
  bool has_library = false;
  /// It cannot capture launches.
  bool has_no_graphs = false;
  /// It does nothing before somebody waits: so what is sent has to be there
  /// still, and nobody finds what was not waited for.
  bool is_late = false;
  /// The blocks of a launch run from the last to the first, and those that
  /// differ in block_y one after the other.
  bool runs_backwards = false;
  /// As one of several ranks, it reaches the others' memory.
  bool has_peers = true;
  /// Called before each kernel is run; what it throws is the device's failure.
  std::function<void()> before_kernel = nullptr;
};

/// A device that is this process: for tests of what runs on a GPU where there
/// is none.
class emulated_device {
public:
  explicit emulated_device(const emulated_options& how = {}) : how_(how) {
    // nop
  }

  /// So many blocks of a launch would keep it busy.
  std::int64_t blocks_wanted() const {
    return how_.blocks_wanted;
  }
  std::size_t shared_bytes_most() const {
    return how_.shared_bytes_most;
  }

  std::string name() const {
    return "emulated";
  }
  std::string description() const {
    return "emulated GPU";
  }

  ~emulated_device();
  emulated_device(const emulated_device&) = delete;
  emulated_device& operator=(const emulated_device&) = delete;

  void* allocate(std::size_t bytes);
  void release(void* memory);
  void* allocate_host(std::size_t bytes);
  void release_host(void* memory);
  void zero(void* memory, std::size_t bytes);
  void copy_in(void* to, const void* from, std::size_t bytes);
  void copy_out(void* to, const void* from, std::size_t bytes);
  void send(void* to, const void* from, std::size_t bytes);
  void receive(void* to, const void* from, std::size_t bytes);

  // -- order ------------------------------------------------------------------

  /// A place in the order of what was asked for.
  struct event {
    explicit event(emulated_device&) {
      // nop
    }
    std::uint64_t after = 0; ///< so many
  };
  void record(event& here);
  void wait(const event& there);
  /// Each thing that it was asked for in between takes a microsecond.
  double seconds_between(const event& from, const event& to) const {
    constexpr double each = 1e-6;
    return each * static_cast<double>(to.after - from.after);
  }

  /// Launches with their arguments as they were.
  using graph = std::vector<std::function<void()>>;
  std::optional<graph> capture(const std::function<void()>& calls);
  void launch(const graph& what);

  // -- between the ranks' devices ---------------------------------------------

  /// `from` may be another emulated device's.
  void copy_within(void* to, const void* from, std::size_t bytes);
  /// For all that was asked for.
  void wait() {
    run_until(enqueued_);
  }
  /// Memory that other devices' kernels use too; it may outlive this one.
  std::shared_ptr<void> allocate_shared(std::size_t bytes);
  /// What was asked for does not wait for somebody who waits for it: a late
  /// one does it now.
  void go_on() {
    run_until(enqueued_);
  }

  // -- products of a library --------------------------------------------------

  std::string library() const {
    return how_.has_library ? "emulated library 1" : "no library";
  }
  std::vector<product_algorithm> product_algorithms(const product_shape& shape,
                                                    std::size_t workspace);
  bool multiply(const product_algorithm& algorithm, const product& what);

  /// Of f, nothing if that says that it cannot. Not the time, but what a GPU
  /// would have to do, which is always the same; it is not done.
  template <class F>
  std::optional<double> seconds(F f) {
    work_ = 0;
    only_counts_ = true;
    const bool could = f();
    only_counts_ = false;
    return could ? std::optional{static_cast<double>(work_)} : std::nullopt;
  }

  template <class Kernel>
  void launch(const launch_shape& shape, const Kernel& kernel) {
    constexpr std::uint64_t weight = weight_of_block<Kernel>();
    work_ += weight * shape.blocks_x * shape.blocks_y * shape.threads;
    if (!only_counts_)
      enqueue([this, shape, kernel] {
        if (how_.usage != nullptr)
          ++how_.usage->launches;
        if (how_.before_kernel)
          how_.before_kernel();
        run_blocks(shape, kernel);
      });
  }

private:
  /// Does it, now or when somebody waits, or keeps it for a graph.
  void enqueue(std::function<void()> what);
  void run_until(std::uint64_t done);
  void run_out() noexcept; ///< all, whatever comes of it
  void count(std::size_t bytes);
  void check_not_captured(const char* what) const;

  emulated_options how_;
  std::deque<std::function<void()>> queue_; ///< of a late one
  std::uint64_t enqueued_ = 0, done_ = 0;
  graph* captured_ = nullptr; ///< while a graph is captured
  std::uint64_t work_ = 0;    ///< threads that ran
  bool only_counts_ = false;
  std::size_t bytes_ = 0;
  std::unordered_map<void*, std::size_t> sizes_;
  std::map<unsigned, std::unique_ptr<emulated_block>> blocks_; ///< by threads

  /// Of so many threads, one for all launches. (After one that failed it is
  /// another: threads of that are where they waited.)
  emulated_block& block_of(unsigned threads);

  /// Who says how many blocks are to run at once has much to do in each, and
  /// who leaves room for one alone has most.
  template <class Kernel>
  static constexpr std::uint64_t weight_of_block() {
    if constexpr (requires { Kernel::blocks_at_once; })
      return Kernel::blocks_at_once == 1 ? 128 : 16;
    else
      return 1;
  }

  template <class Kernel>
  void run_blocks(const launch_shape& shape, const Kernel& kernel) {
    auto* block = Kernel::collective ? &block_of(shape.threads) : nullptr;
    std::vector<float> shared;
    const unsigned blocks = shape.blocks_x * shape.blocks_y;
    for (unsigned i = 0; i < blocks; ++i) {
      const unsigned b = blocks - 1 - i;
      const unsigned x =
          how_.runs_backwards ? b / shape.blocks_y : i % shape.blocks_x;
      const unsigned y =
          how_.runs_backwards ? b % shape.blocks_y : i / shape.blocks_x;
      // What nobody has written is no number.
      shared.assign(shape.shared_floats,
                    std::numeric_limits<float>::quiet_NaN());
      run_block(shape, kernel, block, x, y, shared.data());
    }
  }

  template <class Kernel>
  void run_block(const launch_shape& shape, const Kernel& kernel,
                 emulated_block* block, unsigned x, unsigned y, float* shared) {
    auto run_one = [&](unsigned i) {
      emulated_thread thread{block, i, shape.threads, x, y, shared};
      kernel(thread);
    };
    if (block != nullptr)
      block->run(run_one);
    else
      for (unsigned i = 0; i < shape.threads; ++i)
        run_one(i);
  }
};

} // namespace troupe::cuda
