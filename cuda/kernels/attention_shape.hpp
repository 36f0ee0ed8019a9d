#pragma once

#include "cuda/kernels/paged_kv.hpp"

#include <cstddef>
#include <cstdint>

namespace troupe::cuda {

/// Numbers of a head at most.
inline constexpr int head_dim_max = 512;
inline constexpr int attention_threads = 128;
inline constexpr int attention_warps =
    attention_threads / static_cast<int>(warp_size);
/// Positions that one block can do alone, and that are always summed up by
/// themselves.
inline constexpr std::int32_t part_positions = 128;
/// Rows of one product (`fragments`).
inline constexpr int queries_at_once = 16;

/// Adds multiples of 16 bytes until `bytes` leaves `rest` when it is divided.
constexpr int padded(int bytes, int divisor, int rest) {
  while (bytes % divisor != rest)
    bytes += 16;
  return bytes;
}

/// How a block of `attention_kernel` divides its work, and where what it keeps
/// lies in its shared memory (in bytes). `Dims`: numbers of a head, or more;
/// `Team`: warps that share 16 queries, each with a part of a span's keys, then
/// with a part of the values' numbers.
template <class Kept, int Dims, int Team>
struct attention_shape {
  static_assert(Team == 1 || Team == attention_warps);
  static_assert(Dims % 32 == 0 && Dims <= head_dim_max);

  using kept = Kept;
  static constexpr int lanes = static_cast<int>(warp_size);
  static constexpr int queries = queries_at_once * attention_warps / Team;
  /// Positions that are done at once. It is part of the arithmetic, so it
  /// depends on Dims alone.
  static constexpr int span = Dims <= 128 ? 64 : 32;
  static_assert(part_positions % span == 0);

  static constexpr int keys_of_warp = span / Team;
  static constexpr int key_tiles = keys_of_warp / 8;
  /// Products over 16 numbers of a head, and over 16 positions.
  static constexpr int head_steps = Dims / 16;
  static constexpr int span_steps = span / 16;
  /// Of a position's values a lane reads so many neighbours at once, each for a
  /// product of its own.
  static constexpr int dims_of_warp = Dims / Team;
  static constexpr int wide = dims_of_warp >= 64 ? 8 : dims_of_warp / 8;
  static constexpr int rounds = dims_of_warp / (8 * wide);
  /// In registers; else queries are in shared memory, where a team shares them.
  static constexpr bool keeps_queries = Team == 1 && Dims <= 128;

  // Rows are as long as keep the lanes that read at once in different banks:
  // of keys 8 numbers of one row by 4 neighbours, of values rows 2 apart.
  static constexpr int key_row = padded(
      Dims * int{sizeof(Kept)}, 64 * int{sizeof(Kept)}, 32 * int{sizeof(Kept)});
  static constexpr int value_row = padded(Dims * int{sizeof(Kept)}, 32, 16);
  static constexpr int weight_row = (span + 8) * 2;

  static constexpr int keys = 0;
  static constexpr int values = keys + span * key_row;
  static constexpr int query_words = values + span * value_row;
  static constexpr int whole =
      query_words + (keeps_queries ? 0 : head_steps * lanes * 16);
  static constexpr int weights = whole + attention_threads * rounds * wide * 16;
  static constexpr int most =
      weights + (Team > 1 ? queries_at_once * weight_row : 0);
  static constexpr int places =
      most + (Team > 1 ? attention_warps * queries_at_once * 4 : 0);
  static constexpr int bytes = places + 2 * span * 4;

  /// Of a multiprocessor: as many as hide that a block waits for its copies,
  /// where the sums and queries of a thread leave room for them.
  static constexpr int blocks_at_once = Team == 1     ? Dims <= 64 ? 3 : 2
                                        : Dims <= 128 ? 4
                                                      : 2;

  static constexpr std::size_t shared_floats = bytes / sizeof(float);
};

/// What two sums of weighted values, each relative to its own greatest score,
/// a power of two, count in their sum (Milakov and Gimelshein, 2018). A sum of
/// no positions has no weights and counts nothing.
struct attention_shares {
  float most;
  float first, second;
};
TROUPE_KERNEL attention_shares shares_of(float most, float weights,
                                         float second_most,
                                         float second_weights) {
  const float now = most > second_most ? most : second_most;
  return {now, weights != 0 ? about_power(most - now) : 0.0f,
          second_weights != 0 ? about_power(second_most - now) : 0.0f};
}

/// Of a part, for each query: its greatest score, its weights, and from the
/// fifth on its weighted values.
constexpr std::int64_t partial_floats(std::int32_t head_dim) {
  return (head_dim + 3) / 4 * 4 + 4;
}

// -- words of two f16 that lanes read from shared memory ----------------------

/// 8 numbers that follow each other.
template <class Threads>
TROUPE_KERNEL void read_words(Threads&, const f16* from, std::uint32_t* to) {
  const auto some = *reinterpret_cast<const pack<std::uint32_t, 4>*>(from);
  TROUPE_UNROLL
  for (int i = 0; i < 4; ++i)
    to[i] = some.at[i];
}
template <class Threads>
TROUPE_KERNEL void read_words(Threads& t, const e4m3* from, std::uint32_t* to) {
  const auto some = *reinterpret_cast<const pack<std::uint16_t, 4>*>(from);
  TROUPE_UNROLL
  for (int i = 0; i < 4; ++i)
    to[i] = t.widen_pair(some.at[i]);
}

/// to[i] is of low[i] and high[i], for N of them.
template <int N, class Threads>
TROUPE_KERNEL void read_pairs(Threads&, const f16* low, const f16* high,
                              std::uint32_t* to) {
  if constexpr (N == 1) {
    to[0] = low->bits | std::uint32_t{high->bits} << 16;
  } else {
    using words = pack<std::uint32_t, N / 2>;
    const auto a = *reinterpret_cast<const words*>(low);
    const auto b = *reinterpret_cast<const words*>(high);
    TROUPE_UNROLL
    for (int i = 0; i < N / 2; ++i) {
      to[2 * i] = lower_halves(a.at[i], b.at[i]);
      to[2 * i + 1] = upper_halves(a.at[i], b.at[i]);
    }
  }
}
template <int N, class Threads>
TROUPE_KERNEL void read_pairs(Threads& t, const e4m3* low, const e4m3* high,
                              std::uint32_t* to) {
  const auto a = *reinterpret_cast<const pack<e4m3, N>*>(low);
  const auto b = *reinterpret_cast<const pack<e4m3, N>*>(high);
  TROUPE_UNROLL
  for (int i = 0; i < N; ++i)
    to[i] = t.widen_pair(
        static_cast<std::uint16_t>(a.at[i].bits | b.at[i].bits << 8));
}

} // namespace troupe::cuda
