#pragma once

#include "cuda/device_memory.hpp"
#include "cuda/kernels/paged_kv.hpp"
#include "engine/ops/backend.hpp"

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
packed_rows pack_rows(const ops::batch_view& batch);

/// Chooses experts on the host as ops::backend::route says.
void choose_experts(std::span<const float> scores, std::int32_t experts,
                    bool normalise, const ops::routing_view& out);

/// Lists of the host in the device's memory, for the kernels of a step. A list
/// is good until `slots` more have been put.
template <class Device>
class step_lists {
public:
  explicit step_lists(Device& device) : device_(device), slots_(slots) {
    // nop
  }

  template <class T>
  const T* put(std::span<const T> list) {
    auto& slot = slots_[next_++ % slots];
    return copy(list, slot);
  }

  /// All layers of a step ask for the same: it is sent once.
  rows_view rows_of(const ops::batch_view& batch) {
    auto packed = pack_rows(batch);
    if (packed != sent_ || rows_.bytes() == 0) {
      copy(std::span<const std::int32_t>{packed.numbers}, rows_);
      sent_ = std::move(packed);
    }
    const auto* from = rows_.template as<const std::int32_t>();
    return {from, from + sent_.sequences, from + sent_.tables,
            from + sent_.table_begins, from + sent_.last};
  }

private:
  static constexpr std::size_t slots = 16;

  template <class T>
  const T* copy(std::span<const T> list, device_memory<Device>& to) {
    if (to.bytes() < list.size_bytes() || to.bytes() == 0)
      to = device_memory<Device>{device_, 2 * list.size_bytes() + 256};
    device_.copy_in(to.template as<void>(), list.data(), list.size_bytes());
    return to.template as<const T>();
  }

  Device& device_;
  std::vector<device_memory<Device>> slots_;
  std::size_t next_ = 0;
  device_memory<Device> rows_;
  packed_rows sent_;
};

} // namespace troupe::cuda
