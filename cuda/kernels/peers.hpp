#pragma once

#include "cuda/kernels/threads.hpp"
#include "engine/ops/dense_layout.hpp"

#include <limits>

// What several ranks do with the same numbers, each by a kernel on a device of
// its own that reads the others' memory. All ranks launch the same kernels in
// the same order. The blocks with the same number of all ranks are a channel:
// they wait for each other, and for nobody else.
//
// A channel counts its meetings, in device memory, so that a launch that is
// kept in a graph goes on where the last one was. In meeting k each rank has
// staged what the others are to read in its half k % 2. Two halves are enough:
// a rank stages for meeting k + 2 after it has passed k + 1, and whoever has
// arrived there has read what was staged for k.

namespace troupe::cuda {

using peer_layout = ops::gpu_peer_layout;

/// A rank's room in its device's memory, as peer_layout has it.
struct peer_room {
  std::uint32_t* words;
  float* staged;
};

/// All ranks' rooms, as a kernel of one of them has them.
struct peer_rooms {
  std::int32_t rank;
  std::int32_t ranks;
  /// In the host's memory: not 0 if no rank is to be waited for any more.
  const std::uint32_t* has_ended;
  peer_room of[peer_layout::ranks_max];

  /// How often a channel has met, as `rank` knows.
  TROUPE_KERNEL std::uint32_t* meetings(unsigned channel) const {
    return of[rank].words + channel * peer_layout::channel_words;
  }

  /// In `at`'s room: the last meeting of the channel at which `who` arrived.
  TROUPE_KERNEL std::uint32_t* arrived(unsigned channel, std::int32_t at,
                                       std::int32_t who) const {
    return of[at].words + channel * peer_layout::channel_words + 1 + who;
  }

  TROUPE_KERNEL float* half(unsigned channel, std::int32_t of_rank,
                            std::uint32_t meeting) const {
    return of[of_rank].staged + (std::int64_t{channel} * 2 + meeting % 2) *
                                    peer_layout::channel_floats;
  }
};

/// A block's part in its channel. Needs a shared float per rank.
template <class Threads>
class peer_channel {
public:
  TROUPE_KERNEL peer_channel(Threads& t, const peer_rooms& rooms)
      : t_(t), rooms_(rooms), channel_(t.block_x()),
        next_(*rooms.meetings(channel_) + 1) {
    // nop
  }

  /// Where this rank stages what the others read after the next `meet`.
  TROUPE_KERNEL float* own() const {
    return rooms_.half(channel_, rooms_.rank, next_);
  }

  /// Returns when all ranks have staged. False, for all threads: a rank is not
  /// waited for any more.
  TROUPE_KERNEL bool meet() {
    const auto who = static_cast<std::int32_t>(t_.index());
    t_.sync(); // all is staged, and what was staged before is read
    if (who == 0)
      *rooms_.meetings(channel_) = next_;
    if (who < rooms_.ranks)
      t_.store_release(rooms_.arrived(channel_, who, rooms_.rank), next_);
    t_.sync();
    if (who < rooms_.ranks)
      t_.shared()[who] = has_come(who) ? 1 : 0;
    t_.sync();
    bool all = true;
    for (std::int32_t r = 0; r < rooms_.ranks; ++r)
      all = all && t_.shared()[r] == 1;
    met_ = next_++;
    return all;
  }

  /// What a rank had staged at the last `meet`.
  TROUPE_KERNEL const float* staged_by(std::int32_t rank) const {
    return rooms_.half(channel_, rank, met_);
  }

private:
  /// Counts go round.
  TROUPE_KERNEL bool has_come(std::int32_t who) const {
    constexpr unsigned looks = 64; // the host's memory is far
    const auto* word = rooms_.arrived(channel_, rooms_.rank, who);
    for (unsigned i = 1;; ++i) {
      if (static_cast<std::int32_t>(t_.load_acquire(word) - next_) >= 0)
        return true;
      if (i % looks == 0 && t_.load_acquire(rooms_.has_ended) != 0)
        return false;
      t_.pause();
    }
  }

  Threads& t_;
  const peer_rooms& rooms_;
  unsigned channel_;
  std::uint32_t next_; ///< meeting
  std::uint32_t met_ = 0;
};

/// A channel's slices of n numbers, of `slice` each at most: every
/// `channels`th.
struct peer_slices {
  std::int64_t n;
  std::int64_t slice; ///< at most peer_layout::channel_floats
  unsigned channels;
};

/// Calls f(first, count) for each of them.
template <class Threads, class F>
TROUPE_KERNEL void for_slices(Threads& t, const peer_slices& of, F f) {
  for (auto first = t.block_x() * of.slice; first < of.n;
       first += of.channels * of.slice)
    f(first, of.n - first < of.slice ? of.n - first : of.slice);
}

/// Calls f(i) for this thread's of the numbers from `first` to `end`.
template <class Threads, class F>
TROUPE_KERNEL void for_numbers(Threads& t, std::int64_t first, std::int64_t end,
                               F f) {
  for (auto i = first + t.index(); i < end; i += t.count())
    f(i);
}

/// x[i] = the sum of all ranks' x[i], in the order of ranks; NaN where a rank
/// was not waited for. In parts: each rank adds up a part of a slice, and has
/// the others' from them.
struct add_peers_kernel {
  static constexpr bool collective = true;
  peer_rooms rooms;
  peer_slices slices;
  bool in_parts;
  float* x;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    peer_channel<Threads> channel{t, rooms};
    for_slices(t, slices, [&](std::int64_t first, std::int64_t count) {
      auto* numbers = x + first;
      auto* own = channel.own();
      for_numbers(t, 0, count, [&](auto i) { own[i] = numbers[i]; });
      bool all = channel.meet();
      if (all && in_parts)
        all = add_parts(t, channel, count, numbers);
      else if (all)
        for_numbers(t, 0, count,
                    [&](auto i) { numbers[i] = sum_of(channel, i); });
      if (!all)
        for_numbers(t, 0, count, [&](auto i) {
          numbers[i] = std::numeric_limits<float>::quiet_NaN();
        });
    });
  }

private:
  template <class Threads>
  TROUPE_KERNEL float sum_of(const peer_channel<Threads>& channel,
                             std::int64_t i) const {
    float sum = channel.staged_by(0)[i];
    for (std::int32_t r = 1; r < rooms.ranks; ++r)
      sum += channel.staged_by(r)[i];
    return sum;
  }

  template <class Threads>
  TROUPE_KERNEL bool add_parts(Threads& t, peer_channel<Threads>& channel,
                               std::int64_t count, float* numbers) const {
    const auto part = (count + rooms.ranks - 1) / rooms.ranks;
    const auto end_of = [&](std::int64_t r) {
      return (r + 1) * part < count ? (r + 1) * part : count;
    };
    auto* sums = channel.own();
    for_numbers(t, rooms.rank * part, end_of(rooms.rank),
                [&](auto i) { sums[i] = sum_of(channel, i); });
    if (!channel.meet())
      return false;
    for (std::int32_t r = 0; r < rooms.ranks; ++r)
      for_numbers(t, r * part, end_of(r),
                  [&](auto i) { numbers[i] = channel.staged_by(r)[i]; });
    return true;
  }
};

/// Puts columns beside each other: out[row * ranks + r][col] = what rank r has
/// in x[row][col], of rows of `cols`; NaN where a rank was not waited for.
struct place_peers_kernel {
  static constexpr bool collective = true;
  peer_rooms rooms;
  peer_slices slices;
  std::int64_t cols;
  const float* x;
  float* out;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    peer_channel<Threads> channel{t, rooms};
    for_slices(t, slices, [&](std::int64_t first, std::int64_t count) {
      auto* own = channel.own();
      for_numbers(t, 0, count, [&](auto i) { own[i] = x[first + i]; });
      const bool all = channel.meet();
      for (std::int32_t r = 0; r < rooms.ranks; ++r)
        for_numbers(t, 0, count, [&](auto i) {
          const auto row = (first + i) / cols, col = (first + i) % cols;
          out[(row * rooms.ranks + r) * cols + col] =
              all ? channel.staged_by(r)[i]
                  : std::numeric_limits<float>::quiet_NaN();
        });
    });
  }
};

} // namespace troupe::cuda
