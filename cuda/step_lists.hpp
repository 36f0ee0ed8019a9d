#pragma once

#include "cuda/device_memory.hpp"
#include "cuda/kernels/paged_kv.hpp"
#include "engine/ops/backend.hpp"
#include "engine/ops/dense_layout.hpp"

#include <array>
#include <cassert>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <vector>

namespace troupe::cuda {

/// Where a step's lists begin, in numbers after its ids. It follows from the
/// numbers of rows, logits and sequences alone: tables come last.
struct step_places {
  std::size_t logit_rows = 0, positions = 0, sequences = 0, last = 0, tiles = 0,
              table_begins = 0, tables = 0;
  std::size_t end = 0; ///< behind the tables
};
step_places places_of(const ops::step_input& in);

/// How attention takes the rows of a step: a tile is its first row and a number
/// of rows, all of one sequence. Sequences with few rows have a tile per row;
/// those come first.
struct tile_counts {
  std::size_t of_one = 0, of_many = 0;
  std::int32_t rows_of_many = 0; ///< of one of those at most
  std::int32_t last_of_many = 0; ///< position of all their rows
};
/// Rows of a tile at most; a sequence with fewer than `few_rows` has one per
/// tile.
inline constexpr std::int32_t tile_rows = 64, few_rows = 8;
tile_counts count_tiles(const ops::batch_view& batch);
/// Whether each row is the only one of its sequence.
bool are_alone(const ops::batch_view& batch);

/// Writes a step's lists where `places_of` says. Pure.
void pack_step(const ops::step_input& in, std::span<std::int32_t> to);

/// Lists of the host in the device's memory, for the kernels of a step. Those
/// that `begin` sends are good until the next `begin`, at the same place for
/// the same numbers of them; others until as many more as there are places have
/// been put.
template <class Device>
class step_lists {
public:
  explicit step_lists(Device& device)
      : device_(device), outgoing_{outgoing{device}, outgoing{device}},
        slots_(ops::gpu_step_layout::lists) {
    // nop
  }

  /// Steps within the bounds find all the memory that they need.
  void make_room(const ops::step_bounds& bounds) {
    for (auto& slot : slots_)
      grow(device_, slot, ops::gpu_step_layout::list_bytes(bounds));
    const auto bytes = ops::gpu_step_layout::rows_bytes(bounds);
    grow(device_, rows_, bytes);
    for (auto& one : outgoing_)
      grow(device_, one.memory, bytes);
  }

  /// Sends the lists of a step, which are known from then on until `end`.
  void begin(const ops::step_input& in) {
    auto& from = outgoing_[next_outgoing_++ % outgoing_.size()];
    device_.wait(from.arrived); // what it sent two steps ago
    places_ = places_of(in);
    const auto bytes = places_.end * sizeof(std::int32_t);
    assert(bytes <= rows_.bytes() && bytes <= from.memory.bytes());
    auto* numbers = from.memory.template as<std::int32_t>();
    pack_step(in, {numbers, places_.end});
    device_.send(rows_.template as<void>(), numbers, bytes);
    device_.record(from.arrived);
    step_ = &in;
    sent_.clear();
  }

  void end() {
    step_ = nullptr;
  }

  /// Null: no step is under way.
  const ops::step_input* step() const {
    return step_;
  }

  /// Of the step under way.
  std::int32_t* ids() const {
    return rows_.template as<std::int32_t>();
  }

  const std::int32_t* put(std::span<const std::int32_t> list) {
    if (step_ != nullptr && is_same(list, step_->ids))
      return ids();
    if (step_ != nullptr && is_same(list, step_->logit_rows))
      return ids() + places_.logit_rows;
    if (step_ != nullptr && step_->repeats)
      throw std::logic_error{"a list that no step was given"};
    auto& to = slots_[next_++ % slots_.size()];
    if (to.bytes() < list.size_bytes())
      grow(device_, to, 2 * list.size_bytes());
    device_.copy_in(to.template as<void>(), list.data(), list.size_bytes());
    return to.template as<const std::int32_t>();
  }

  /// The tiles of the same rows, which have been asked for.
  const std::int32_t* tiles() const {
    return ids() + places_.tiles;
  }

  /// All layers of a step ask for the same: it is sent once.
  rows_view rows_of(const ops::batch_view& batch) {
    if (step_ != nullptr && is_same(batch.positions, step_->batch.positions))
      return view();
    if (step_ != nullptr)
      throw std::logic_error{"rows that no step was given"};
    const ops::step_input alone{{}, batch, {}};
    places_ = places_of(alone);
    packed_.resize(places_.end);
    pack_step(alone, packed_);
    if (packed_ != sent_) {
      const auto bytes = packed_.size() * sizeof(std::int32_t);
      if (rows_.bytes() < bytes)
        grow(device_, rows_, 2 * bytes);
      device_.copy_in(rows_.template as<void>(), packed_.data(), bytes);
      std::swap(packed_, sent_);
    }
    return view();
  }

private:
  /// Lists on their way.
  struct outgoing {
    explicit outgoing(Device& device) : arrived(device) {
      // nop
    }
    host_memory<Device> memory;
    typename Device::event arrived;
  };

  static bool is_same(std::span<const std::int32_t> a,
                      std::span<const std::int32_t> b) {
    return a.data() == b.data() && a.size() == b.size();
  }

  rows_view view() const {
    const auto* from = rows_.template as<const std::int32_t>();
    return {from + places_.positions, from + places_.sequences,
            from + places_.tables, from + places_.table_begins,
            from + places_.last};
  }

  Device& device_;
  std::array<outgoing, 2> outgoing_;
  std::size_t next_outgoing_ = 0;
  const ops::step_input* step_ = nullptr;
  step_places places_;
  device_memory<Device> rows_;
  std::vector<std::int32_t> packed_, sent_; ///< where no step is begun
  std::vector<device_memory<Device>> slots_;
  std::size_t next_ = 0;
};

} // namespace troupe::cuda
