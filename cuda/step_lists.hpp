#pragma once

#include "cuda/device_memory.hpp"
#include "cuda/kernels/paged_kv.hpp"
#include "engine/ops/backend.hpp"
#include "engine/ops/dense_layout.hpp"

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace troupe::cuda {

/// A step's rows for the device: its lists, one after the other. Pure.
struct packed_rows {
  std::vector<std::int32_t> numbers;
  std::size_t sequences = 0, tables = 0, table_begins = 0, last = 0; // from 0

  bool operator==(const packed_rows&) const = default;
};
void pack_rows(const ops::batch_view& batch, packed_rows& out);

/// Chooses experts on the host as ops::backend::route says.
void choose_experts(std::span<const float> scores, std::int32_t experts,
                    bool normalise, const ops::routing_view& out);

/// Lists of the host in the device's memory, for the kernels of a step. A list
/// is good until as many more as there are places have been put.
template <class Device>
class step_lists {
public:
  explicit step_lists(Device& device)
      : device_(device), slots_(ops::gpu_step_layout::lists) {
    // nop
  }

  /// Steps within the bounds find all the memory that they need.
  void make_room(const ops::step_bounds& bounds) {
    for (auto& slot : slots_)
      grow(slot, ops::gpu_step_layout::list_bytes(bounds));
    grow(rows_, ops::gpu_step_layout::rows_bytes(bounds));
  }

  template <class T>
  const T* put(std::span<const T> list) {
    return copy(list, slots_[next_++ % slots_.size()]);
  }

  /// All layers of a step ask for the same: it is sent once.
  rows_view rows_of(const ops::batch_view& batch) {
    pack_rows(batch, packed_);
    if (packed_ != sent_) {
      copy(std::span<const std::int32_t>{packed_.numbers}, rows_);
      std::swap(packed_, sent_);
    }
    const auto* from = rows_.template as<const std::int32_t>();
    return {from, from + sent_.sequences, from + sent_.tables,
            from + sent_.table_begins, from + sent_.last};
  }

private:
  template <class T>
  const T* copy(std::span<const T> list, device_memory<Device>& to) {
    if (to.bytes() < list.size_bytes())
      grow(to, 2 * list.size_bytes());
    device_.copy_in(to.template as<void>(), list.data(), list.size_bytes());
    return to.template as<const T>();
  }

  void grow(device_memory<Device>& what, std::size_t bytes) {
    if (what.bytes() >= bytes)
      return;
    what = {}; // two at once are not planned
    what = device_memory<Device>{device_, bytes};
  }

  Device& device_;
  std::vector<device_memory<Device>> slots_;
  std::size_t next_ = 0;
  device_memory<Device> rows_;
  packed_rows packed_, sent_;
};

} // namespace troupe::cuda
