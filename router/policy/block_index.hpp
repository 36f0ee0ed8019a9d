#pragma once

#include "engine/codec/block_name.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

namespace troupe::router {

/// Which replicas hold which blocks: a table with open addressing, so that a
/// whole chain is looked up with its cells asked for ahead of their use. Never
/// larger than its bound in bytes. Replicas are known by their incarnations.
class block_index {
public:
  /// `seed` decides where in the table a name lies, so that nobody can make
  /// names that meet there.
  block_index(std::size_t bytes_max, std::uint64_t seed);

  /// The replica holds the block. False if the block is new and there is no
  /// cell for it.
  bool add(codec::block_name, std::uint64_t holder);

  /// Nothing happens if it does not.
  void remove(codec::block_name, std::uint64_t holder);

  /// The replica holds nothing any more.
  void remove_all(std::uint64_t holder);

  /// Makes room by a block that nobody added since the last round (CLOCK:
  /// Corbató, 1968).
  void forget_one();

  /// For each of the replicas, how many blocks from the chain's start on it
  /// holds without a gap; `out` has as many entries.
  void match(std::span<const codec::block_name> chain,
             std::span<const std::uint64_t> holders,
             std::span<std::uint32_t> out) const;

  /// Different blocks that are known, and those of one replica.
  std::size_t size() const {
    return size_;
  }
  std::size_t size_of(std::uint64_t holder) const;

  std::size_t bytes() const;

private:
  /// A cell is a name (0 = empty) and a bit per slot of a replica.
  static constexpr std::size_t slots_per_word = 64;

  struct slot_state {
    std::size_t slot = 0;
    std::size_t blocks = 0;
  };

  std::size_t cells() const {
    return touched_.size();
  }
  std::size_t home(codec::block_name) const;
  std::size_t cell_of(codec::block_name) const; // its own, or an empty one
  std::uint64_t* bits(std::size_t cell);
  slot_state& slot_for(std::uint64_t holder);
  bool make_room();
  void rebuild(std::size_t cells, std::size_t words);
  void erase(std::size_t cell);
  void uncount(const std::uint64_t* bits);

  std::size_t bytes_max_;
  std::uint64_t seed_;
  std::size_t words_ = 1; // of bits in a cell
  std::vector<std::uint64_t> table_;
  std::vector<std::uint8_t> touched_; // by cell, since the hand was there
  std::size_t size_ = 0;
  std::size_t hand_ = 0;
  std::map<std::uint64_t, slot_state> slots_; // by incarnation
  std::vector<std::uint64_t> holder_of_;      // by slot; 0 = free
};

} // namespace troupe::router
