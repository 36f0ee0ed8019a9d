#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace troupe::protocol {

/// GPUs of one node by number, from 0 on.
using gpu_numbers = std::vector<std::uint32_t>;

/// What is left of each of a node's GPUs. A replica has a part of one of them,
/// or several whole ones. The head chooses which, and the node hands out just
/// those: so what is placed can be had, in whatever order replicas come and go.
class gpu_room {
public:
  /// A GPU is counted in so many parts, so that parts of one add up to it.
  static constexpr std::int32_t parts = 10'000;

  gpu_room() = default;

  /// All of them free.
  explicit gpu_room(std::size_t count);

  /// With so many parts of each left.
  explicit gpu_room(const std::vector<std::uint32_t>& left);

  /// Those of a node that offers so much "GPU": 1.5 are two, of which the node
  /// gives no more than that together.
  static gpu_room of(double offered);

  std::size_t count() const {
    return left_.size();
  }

  /// What an `amount` can be had of: for a part of a GPU the most that is left
  /// of one, else how many are whole.
  double room_for(double amount) const;

  /// Which GPUs an amount is: for a part of one that with the least room for
  /// it, so that whole ones stay whole; else so many whole ones, a fraction
  /// being one more. None for nothing; no value: there is no room.
  std::optional<gpu_numbers> choose(double amount) const;

  /// Whether so much of each of these is left: of a part of a GPU that, else
  /// all. False for what is no GPU.
  bool has(const gpu_numbers&, double amount) const;

  /// Of each of these; what is no GPU of the node does not count. Whoever has
  /// not looked may take more than there is.
  void take(const gpu_numbers&, double amount);
  void give_back(const gpu_numbers&, double amount);

  /// Parts of each that are left, 0 where more was taken than there is.
  std::vector<std::uint32_t> left() const;

  bool operator==(const gpu_room&) const = default;

private:
  std::vector<std::int32_t> left_; ///< parts, by number
};

} // namespace troupe::protocol
