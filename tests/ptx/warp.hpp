#pragma once

#include "tests/ptx/instruction.hpp"
#include "tests/ptx/known_memory.hpp"
#include "tests/ptx/shared_memory.hpp"
#include "tests/ptx/text.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace troupe::ptx {

/// What the warps of a block share; one block after the other uses it.
struct block {
  block(const kernel& what, const launch& how, memory& where);

  const kernel& of;
  const decoded_body& body;
  const launch& how;
  unsigned threads;
  unsigned at[3] = {}; ///< which of the launch
  known_memory global;
  shared_memory shared;
  std::vector<std::byte> parameters;
  /// By instruction: what it found last, so that it seldom looks.
  std::vector<range> found;
};

struct of_lanes {
  std::uint64_t at[lanes];

  /// Lanes that are not of the mask get what one of them has, so that what is
  /// looked at for all lanes is as for those of the mask.
  void fill_others(std::uint32_t mask);
  /// Whether so many bytes of each are from `begin` to before `end`, and each
  /// is a multiple of them (a power of 2).
  bool are_within(std::uint64_t begin, std::uint64_t end,
                  std::uint64_t bytes) const;
  /// Whether each of the mask's is so far behind the one before.
  bool ascend(std::uint32_t mask, std::uint64_t by) const;
};

/// f(lane) for each lane of the mask, in order.
template <class F>
void for_each_lane(std::uint32_t mask, F f) {
  if (mask == all_lanes)
    for (unsigned l = 0; l < lanes; ++l)
      f(l);
  else
    for (; mask != 0; mask &= mask - 1)
      f(static_cast<unsigned>(std::countr_zero(mask)));
}

/// 32 threads of a block, or fewer.
class warp {
public:
  enum class state : std::uint8_t { runs, waits, has_ended };

  warp(block& of, unsigned number);

  /// The block's next one.
  void begin();
  /// Until it waits for the block, has ended, or gave its turn to others.
  void go();
  state is() const {
    return state_;
  }
  /// The barrier that it waits for is passed.
  void pass_barrier() {
    state_ = state::runs;
  }
  const instruction& last() const {
    return of_.body.code[last_];
  }
  unsigned number() const {
    return number_;
  }

  // -- registers --------------------------------------------------------------

  template <class T>
  T* at(std::uint32_t slot) {
    return reinterpret_cast<T*>(file_.get() + std::size_t{slot} * slot_bytes);
  }
  std::uint32_t& predicate(std::uint32_t slot) {
    return *at<std::uint32_t>(slot);
  }
  std::uint32_t defined(std::uint32_t slot) const {
    return defined_[slot];
  }
  /// The lanes of a mask wrote it; those of `whole` what is defined.
  void define(std::uint32_t slot, std::uint32_t mask, std::uint32_t whole) {
    defined_[slot] = (defined_[slot] & ~mask) | (mask & whole);
  }
  /// Fails if a lane of the mask has nothing there.
  void need(const instruction& i, std::uint32_t mask, std::uint32_t slot) {
    if (const auto without = mask & ~defined_[slot]; without != 0)
      fail(i, std::countr_zero(without), "a register was never written");
  }

  // -- where its threads are --------------------------------------------------

  std::uint32_t active() const {
    return active_;
  }
  std::uint32_t live() const {
    return live_;
  }
  std::uint32_t exists() const {
    return exists_;
  }
  /// Lanes of `taken` go on at `target`, the others of `active` after this.
  void branch(std::uint32_t taken, std::uint32_t target);
  void end_threads(std::uint32_t which);
  /// An instruction that `arrived` lanes do together with all of `wanted`:
  /// whether they are all here. If not they wait.
  bool meet(const instruction& i, std::uint32_t arrived, std::uint32_t wanted);
  void wait_for_block() {
    state_ = state::waits;
  }
  void give_turn() {
    gives_turn_ = true;
  }
  /// Threads of the mask have waited for the launches before.
  void wait_for_earlier(std::uint32_t mask) {
    early_ &= ~mask;
  }

  // -- memory -----------------------------------------------------------------

  /// Those of the instruction's address, in r[slot].
  void addresses(const instruction& i, std::uint32_t mask, std::size_t slot,
                 of_lanes& out);
  /// Where so many bytes of each lane's address are; checks all that can be
  /// wrong. Null for lanes that are not of the mask.
  struct spots {
    std::byte* at[lanes];
    bool are_apart = false; ///< no two are the same for sure
  };
  void locate(const instruction& i, std::uint32_t mask, space where,
              of_lanes& addresses, std::size_t bytes, shared_memory::access how,
              spots& out);
  /// Of shared memory alone: the offset of one lane's address.
  std::size_t shared_offset(const instruction& i, unsigned lane,
                            std::uint64_t address, std::size_t bytes);
  /// To check what locate does not: the others of shared memory.
  void use_shared(const instruction& i, unsigned lane,
                  shared_memory::access how, std::size_t offset,
                  std::size_t bytes);
  void check_global(const instruction& i, std::uint32_t mask,
                    const of_lanes& addresses, std::size_t bytes,
                    shared_memory::access how);
  /// What an access costs, if that is to be counted.
  void count_traffic(std::uint32_t mask, space where, const of_lanes& addresses,
                     std::size_t bytes, shared_memory::access how);

  // -- asynchronous copies ----------------------------------------------------

  void begin_copy(const instruction& i, unsigned lane, std::size_t to,
                  const std::byte* from, std::size_t bytes, std::size_t read);
  void commit_copies(std::uint32_t mask);
  /// Those of all groups but the last `left`; of all if `left` is `none_left`.
  void finish_copies(std::uint32_t mask, std::uint64_t left);
  static constexpr std::uint64_t none_left = ~std::uint64_t{0};

  block& of() {
    return of_;
  }
  [[noreturn]] void fail(const instruction& i, unsigned lane,
                         const std::string& what) const;

  work_done done;

private:
  static constexpr std::size_t slot_bytes = 4 * lanes;

  struct copy {
    std::uint32_t lane;
    std::uint32_t instruction;
    std::size_t to;
    const std::byte* from;
    std::size_t bytes, read;
    std::uint64_t group;
  };

  std::uint32_t index_of(const instruction& i) const {
    return static_cast<std::uint32_t>(&i - of_.body.code.data());
  }
  void set_special(std::uint32_t slot, special what);
  /// The lanes that are least far go on.
  void regroup();
  /// As to what launches do that may not be over.
  void check_earlier(const instruction& i, std::uint32_t mask,
                     const of_lanes& addresses, std::size_t bytes,
                     shared_memory::access how);
  [[noreturn]] void fail_missing() const;
  [[noreturn]] void fail_shared(const instruction& i, unsigned lane,
                                shared_memory::access how,
                                const shared_memory::conflict& wrong) const;
  void locate_shared(const instruction& i, std::uint32_t mask,
                     const of_lanes& addresses, std::size_t bytes,
                     shared_memory::access how, spots& out);

  block& of_;
  unsigned number_;
  std::unique_ptr<std::byte[]> file_;
  std::vector<std::uint32_t> defined_, first_defined_;
  std::vector<std::byte> local_; ///< lane after lane
  std::vector<copy> copies_;
  std::uint64_t groups_[lanes] = {};

  state state_ = state::runs;
  bool gives_turn_ = false;
  std::uint32_t exists_ = 0, live_ = 0, active_ = 0;
  std::uint32_t early_ = 0; ///< that have not waited for earlier launches
  /// That wait for others of the warp, each at its `next_of_`.
  std::uint32_t waiting_ = 0;
  std::uint32_t next_of_[lanes] = {}; ///< of those that are not active
  std::uint32_t next_ = 0;            ///< of the active ones
  std::uint32_t last_ = 0;
  /// The least of those that are not active.
  std::uint32_t stop_ = 0;
};

} // namespace troupe::ptx
