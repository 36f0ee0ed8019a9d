#pragma once

#include "cuda/device_memory.hpp"
#include "cuda/kernels/peers.hpp"
#include "engine/ops/thread_group.hpp"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <memory>
#include <utility>

namespace troupe::cuda {

/// Ranks that are threads of one process, on devices of their own that reach
/// each other's memory: what is added up or placed is read by the kernel that
/// does it. All is launched, nothing waits on the host, but for the first call,
/// in which the ranks show each other their rooms. All ranks make the same
/// calls in the same order.
///
/// When the group ends, kernels wait for no rank any more: what they leave is
/// no number.
template <class Device>
class peer_link {
public:
  using layout = ops::gpu_peer_layout;

  /// `device` outlives it.
  peer_link(Device& device, std::shared_ptr<ops::thread_group> group,
            std::int32_t rank)
      : device_(device), group_(std::move(group)), rank_(rank),
        has_ended_(device, sizeof(std::uint32_t)) {
    assert(group_->size() <= layout::ranks_max);
    *has_ended_.template as<std::uint32_t>() = 0;
    listener_ = group_->at_end([this] { give_up(); });
  }

  /// The others' rooms are there until none of its kernels runs any more.
  ~peer_link() {
    group_->forget(listener_);
    give_up();
    try {
      device_.wait();
    } catch (const std::exception&) {
      // Then nothing of it runs.
    }
  }

  peer_link(const peer_link&) = delete;
  peer_link& operator=(const peer_link&) = delete;

  /// Gives the bytes that it takes, of the device.
  std::size_t make_room() {
    auto& own = group_->rooms[static_cast<std::size_t>(rank_)];
    if (own == nullptr) {
      own = device_.allocate_shared(layout::bytes());
      device_.zero(own.get(), layout::words_bytes());
      device_.wait(); // before another rank writes there
    }
    return layout::bytes();
  }

  /// x[i] = the sum of all ranks', in their order, whether in parts or not.
  void add_up(float* x, std::int64_t n, bool in_parts) {
    launch(n, [&](const peer_slices& slices) {
      return add_peers_kernel{rooms_, slices, in_parts, x};
    });
  }

  /// out[row * ranks + r][col] = what rank r has in x[row][col].
  void place(const float* x, std::int64_t rows, std::int64_t cols, float* out) {
    launch(rows * cols, [&](const peer_slices& slices) {
      return place_peers_kernel{rooms_, slices, cols, x, out};
    });
  }

private:
  template <class MakeKernel>
  void launch(std::int64_t n, MakeKernel make) {
    if (n <= 0)
      return;
    group_->check();
    link();
    constexpr std::int64_t few = 1024, of_thread = 4, threads_max = 512;
    const auto up = [](std::int64_t x, std::int64_t to) {
      return (x + to - 1) / to;
    };
    peer_slices slices{n, 0, 0};
    slices.channels = static_cast<unsigned>(
        std::min(up(n, few), std::int64_t{layout::channels}));
    slices.slice = std::min(up(up(n, slices.channels), warp_size) * warp_size,
                            layout::channel_floats);
    launch_shape shape;
    shape.blocks_x = slices.channels;
    shape.threads = static_cast<unsigned>(std::min(
        up(slices.slice, of_thread * warp_size) * warp_size, threads_max));
    shape.shared_floats = layout::ranks_max;
    device_.launch(shape, make(slices));
  }

  /// Once.
  void link() {
    if (rooms_.ranks > 0)
      return;
    make_room();
    group_->meet();
    rooms_.rank = rank_;
    rooms_.has_ended = has_ended_.template as<const std::uint32_t>();
    for (std::int32_t r = 0; r < group_->size(); ++r) {
      auto* room = group_->rooms[static_cast<std::size_t>(r)].get();
      rooms_.of[r] = {static_cast<std::uint32_t*>(room),
                      reinterpret_cast<float*>(static_cast<std::byte*>(room) +
                                               layout::words_bytes())};
    }
    group_->meet();
    rooms_.ranks = group_->size();
  }

  void give_up() {
    std::atomic_ref{*has_ended_.template as<std::uint32_t>()}.store(
        1, std::memory_order_release);
  }

  Device& device_;
  std::shared_ptr<ops::thread_group> group_;
  std::int32_t rank_;
  host_memory<Device> has_ended_; ///< a word that the kernels look at
  std::uint64_t listener_ = 0;
  peer_rooms rooms_{}; ///< no ranks: not linked
};

} // namespace troupe::cuda
