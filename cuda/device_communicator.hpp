#pragma once

#include "cuda/device_memory.hpp"
#include "cuda/device_transport.hpp"
#include "cuda/kernels/parts.hpp"
#include "cuda/launches.hpp"
#include "cuda/peer_link.hpp"
#include "engine/ops/communicator.hpp"
#include "engine/ops/dense_layout.hpp"

#include <algorithm>
#include <memory>
#include <utility>

namespace troupe::cuda {

/// One of several ranks over its device's memory. Where the devices reach each
/// other's memory, kernels read what the others have (peer_link.hpp), but for
/// large sums; else it is moved here, and added by our own kernel. The order of
/// sums is the same in all ways. What the hosts say to each other goes through
/// a communicator of theirs.
template <class Device>
class device_communicator final : public ops::communicator {
public:
  /// From so many floats on a sum of more than two ranks is made in parts.
  static constexpr std::int64_t parts_from = 16'384;

  /// `device` outlives it. No `peers`: not all devices reach each other.
  device_communicator(Device& device, std::unique_ptr<ops::communicator> hosts,
                      std::unique_ptr<device_transport> transport,
                      std::unique_ptr<peer_link<Device>> peers)
      : device_(device), peers_(std::move(peers)), hosts_(std::move(hosts)),
        transport_(std::move(transport)) {
    // nop
  }

  std::int32_t rank() const override {
    return hosts_->rank();
  }

  std::int32_t size() const override {
    return hosts_->size();
  }

  /// In pieces; the order of a number's sum does not depend on them.
  void all_reduce(float* x, std::int64_t n) override {
    if (is_kept(n))
      return peers_->add_up(x, n, goes_in_parts(n));
    make_room(n);
    for (std::int64_t done = 0; n > 0; x += done, n -= done)
      done = goes_in_parts(n) ? reduce_parts(x, n) : reduce_whole(x, n);
  }

  void all_gather(const float* x, std::int64_t rows, std::int64_t cols,
                  float* out) override {
    if (peers_)
      return peers_->place(x, rows, cols, out);
    const auto n = rows * cols;
    make_room(n);
    for (std::int64_t first = 0; first < n; first += piece_) {
      const auto some = std::min(piece_, n - first);
      transport_->gather(x + first, some, room());
      over_numbers(some, size(), [&](unsigned blocks) {
        return place_parts_kernel{room(), size(), blocks, some,
                                  first,  cols,   out};
      });
    }
  }

  void broadcast(std::vector<std::byte>& bytes) override {
    device_.go_on();
    hosts_->broadcast(bytes);
  }

  std::vector<std::string> tell_all(const std::string& own) override {
    device_.go_on();
    return hosts_->tell_all(own);
  }

  std::uint64_t prepare(std::int64_t floats) override {
    make_room(floats);
    return room_.bytes() + (peers_ ? peers_->make_room() : 0);
  }

  bool is_kept(std::int64_t floats) const override {
    return peers_ != nullptr && floats <= ops::gpu_peer_layout::sum_max;
  }

  bool runs_ahead() const override {
    return peers_ != nullptr || !transport_->waits();
  }

  void check() override {
    hosts_->check();
  }

private:
  float* room() const {
    return room_.template as<float>();
  }

  void make_room(std::int64_t floats) {
    using layout = ops::gpu_rank_layout;
    const auto piece = layout::piece(size(), floats);
    if (piece <= piece_)
      return;
    room_ = {}; // two at once are not planned
    room_ = {device_, layout::bytes(size(), floats)};
    piece_ = piece;
  }

  bool goes_in_parts(std::int64_t n) const {
    return size() > 2 && n >= parts_from;
  }

  /// Gives how many are done.
  std::int64_t reduce_whole(float* x, std::int64_t n) {
    n = std::min(n, piece_);
    transport_->gather(x, n, room());
    add_up(n, x);
    return n;
  }

  /// Each rank adds up a part, and has the others' from them.
  std::int64_t reduce_parts(float* x, std::int64_t n) {
    const auto part = std::min(n / size(), piece_);
    transport_->exchange(x, part, room());
    add_up(part, x + rank() * part);
    transport_->gather(x + rank() * part, part, x);
    return part * size();
  }

  void add_up(std::int64_t n, float* to) {
    over_numbers(n, 1, [&](unsigned blocks) {
      return add_parts_kernel{room(), size(), blocks, n, to};
    });
  }

  template <class MakeKernel>
  void over_numbers(std::int64_t n, std::int32_t rows, MakeKernel make) {
    constexpr std::int64_t of_block = 1024, most = 4096;
    launch_shape shape;
    shape.blocks_x = static_cast<unsigned>(
        std::clamp((n + of_block - 1) / of_block, std::int64_t{1}, most));
    launch_over_rows(device_, static_cast<std::size_t>(rows), shape,
                     make(shape.blocks_x));
  }

  Device& device_;
  device_memory<Device> room_;
  std::int64_t piece_ = 0; ///< floats of a rank that the room has place for
  // In this order nobody waits for what is gone: what is moved is given up,
  // the group ends, and with it what kernels wait for.
  std::unique_ptr<peer_link<Device>> peers_;
  std::unique_ptr<ops::communicator> hosts_;
  std::unique_ptr<device_transport> transport_;
};

} // namespace troupe::cuda
