#include "engine/ops/cpu/bf16_tile.hpp"
#include "engine/ops/cpu/lane_kernels.hpp"
#include "engine/ops/cpu/lanes_avx512.hpp"

/// What the matrix unit of an Intel CPU does faster: products of bf16, and
/// attention over it. All else is AVX-512's.
namespace troupe::ops::cpu {
namespace {

/// What LDTILECFG reads: registers of 16 rows of 64 bytes.
struct alignas(64) tile_configuration {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr tile_configuration whole_registers;

/// For attention of so many queries: what takes as long as there are rows.
/// Registers 5 and 7 are for blocks of 16 columns: rows of half the size, and
/// eight pairs of columns.
tile_configuration registers_for(int queries) {
  tile_configuration out;
  for (int i = 0; i < 6; ++i)
    out.rows[i] = static_cast<std::uint8_t>(queries);
  out.row_bytes[5] = 32;
  out.rows[7] = 8;
  return out;
}

/// The registers hold something from here to the end of its life.
class tile_registers {
public:
  explicit tile_registers(const tile_configuration& how) {
    _tile_loadconfig(&how);
  }
  ~tile_registers() {
    _tile_release();
  }
  tile_registers(const tile_registers&) = delete;
  tile_registers& operator=(const tile_registers&) = delete;
};

/// 32 columns of 16 rows, or of 16 outputs.
constexpr std::int64_t register_bytes = 1024;

/// The upper halves of 16 floats that are bf16.
inline __m256i upper_halves(__m512 v) {
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(v), 16));
}

void round_rows_to_bf16(const float* x, int rows, std::int64_t columns,
                        std::byte* out) {
  for (int row = 0; row < rows; ++row)
    round_row<avx512_lanes>(x + row * columns, columns, [&](auto i, __m512 v) {
      const auto block = i / block_columns;
      std::byte* to = out + (block * rows + row) * 64 + i % block_columns * 2;
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), upper_halves(v));
    });
}

/// A group of rows: where it begins and how many there are.
struct row_group {
  const std::byte* x;
  int rows;
};

row_group group_at(const rounded_rows& x, std::int64_t first) {
  return {x.x + first * x.blocks * block_columns * 2,
          group_size(first, x.rows)};
}

/// Writes the rows of register I.
template <int I>
void write_register(float* to, int stride) {
  if constexpr (I == 0)
    _tile_stored(0, to, stride * sizeof(float));
  else if constexpr (I == 1)
    _tile_stored(1, to, stride * sizeof(float));
  else if constexpr (I == 2)
    _tile_stored(2, to, stride * sizeof(float));
  else
    _tile_stored(3, to, stride * sizeof(float));
}

/// Writes what register I holds of a group's rows.
template <int I>
void store_register(int rows, const tile_output& out) {
  alignas(64) float sums[group_rows][tile_lanes];
  write_register<I>(&sums[0][0], tile_lanes);
  for (int r = 0; r < rows; ++r)
    finish_row<avx512_lanes>(out, r, _mm512_load_ps(sums[r]));
}

inline void ask_for_weights(const std::byte* block) {
  for (int at = 0; at < bf16_block_bytes; at += 64)
    _mm_prefetch(block + prefetch_bytes + at, _MM_HINT_T0);
}

// A register of rows beyond the group's holds whatever lies there: a row's sums
// have nothing of another row.

/// One group of rows and two tiles, or one (which is then there twice).
void one_group(const std::byte* first, const std::byte* second,
               std::int64_t blocks, const row_group& a) {
  _tile_zero(0);
  _tile_zero(1);
  for (std::int64_t b = 0; b < blocks; ++b) {
    ask_for_weights(first + b * register_bytes);
    _tile_loadd(4, a.x + b * a.rows * 64, 64);
    _tile_loadd(6, first + b * register_bytes, 64);
    _tile_dpbf16ps(0, 4, 6);
    ask_for_weights(second + b * register_bytes);
    _tile_loadd(7, second + b * register_bytes, 64);
    _tile_dpbf16ps(1, 4, 7);
  }
}

inline void zero_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

/// Two groups of rows and two tiles.
void two_groups(const std::byte* first, const std::byte* second,
                std::int64_t blocks, const row_group& a, const row_group& b) {
  zero_sums();
  for (std::int64_t k = 0; k < blocks; ++k) {
    _tile_loadd(4, a.x + k * a.rows * 64, 64);
    _tile_loadd(6, first + k * register_bytes, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, second + k * register_bytes, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, b.x + k * b.rows * 64, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

void bf16_weights(const std::byte* tile, int tiles, const rounded_rows& x,
                  const tile_output& out) {
  const tile_registers registers{whole_registers};
  const auto tile_bytes = x.blocks * register_bytes;
  for (int t = 0; t < tiles; t += 2) {
    const std::byte* first = tile + t * tile_bytes;
    const bool both = t + 1 < tiles;
    const std::byte* second = both ? first + tile_bytes : first;
    // The sums of the group that begins at `row`, in two registers from `i` on.
    const auto store = [&](auto i, std::int64_t row) {
      const int rows = group_size(row, x.rows);
      store_register<decltype(i)::value>(rows, output_at(out, t, tiles, row));
      if (both)
        store_register<decltype(i)::value + 1>(
            rows, output_at(out, t + 1, tiles, row));
    };
    std::int64_t row = 0;
    for (; row + group_rows < x.rows; row += 2 * group_rows) {
      two_groups(first, second, x.blocks, group_at(x, row),
                 group_at(x, row + group_rows));
      store(constant<0>{}, row);
      store(constant<2>{}, row + group_rows);
    }
    if (row < x.rows) {
      one_group(first, second, x.blocks, group_at(x, row));
      store(constant<0>{}, row);
    }
  }
}

/// Writes what the gates in register I and what they gate in the next one give
/// for a group's rows.
template <int I>
void finish_gated(int rows, gated_row f, const tile_output& out) {
  alignas(64) float gates[group_rows][tile_lanes], ups[group_rows][tile_lanes];
  write_register<I>(&gates[0][0], tile_lanes);
  write_register<I + 1>(&ups[0][0], tile_lanes);
  f(&gates[0][0], &ups[0][0], std::int64_t{rows} * tile_lanes, &gates[0][0]);
  for (int r = 0; r < rows; ++r)
    finish_row<avx512_lanes>(out, r, _mm512_load_ps(gates[r]));
}

void bf16_gated_weights(const std::byte* gates, const std::byte* ups, int tiles,
                        const rounded_rows& x, gated_row f,
                        const tile_output& out) {
  const tile_registers registers{whole_registers};
  const auto tile_bytes = x.blocks * register_bytes;
  for (int t = 0; t < tiles; ++t, gates += tile_bytes, ups += tile_bytes) {
    std::int64_t row = 0;
    for (; row + group_rows < x.rows; row += 2 * group_rows) {
      const auto next = row + group_rows;
      two_groups(gates, ups, x.blocks, group_at(x, row), group_at(x, next));
      finish_gated<0>(group_rows, f, output_at(out, t, tiles, row));
      finish_gated<2>(group_size(next, x.rows), f,
                      output_at(out, t, tiles, next));
    }
    if (row < x.rows) {
      one_group(gates, ups, x.blocks, group_at(x, row));
      finish_gated<0>(group_size(row, x.rows), f,
                      output_at(out, t, tiles, row));
    }
  }
}

// Attention: four neighbouring groups of positions, or of dimensions, have a
// register of sums each, 0 to 3. Registers 4 and 5 hold queries or weights, 6
// and 7 keys or values.

constexpr int registers_of_sums = 4;

/// Four blocks in bf16, as in bf16_block.
struct four_blocks {
  const std::byte* numbers[registers_of_sums];
  std::int64_t pair_bytes;
};

/// Adds blocks of 32 columns, at which the rows are 64 bytes apart.
inline void add_blocks(const std::byte* rows, const four_blocks& b) {
  _tile_loadd(4, rows, 64);
  _tile_loadd(6, b.numbers[0], b.pair_bytes);
  _tile_dpbf16ps(0, 4, 6);
  _tile_loadd(6, b.numbers[1], b.pair_bytes);
  _tile_dpbf16ps(1, 4, 6);
  _tile_loadd(6, b.numbers[2], b.pair_bytes);
  _tile_dpbf16ps(2, 4, 6);
  _tile_loadd(6, b.numbers[3], b.pair_bytes);
  _tile_dpbf16ps(3, 4, 6);
}

/// Adds blocks of 16 columns.
inline void add_half_blocks(const void* rows, std::int64_t row_bytes,
                            const four_blocks& b) {
  _tile_loadd(5, rows, row_bytes);
  _tile_loadd(7, b.numbers[0], b.pair_bytes);
  _tile_dpbf16ps(0, 5, 7);
  _tile_loadd(7, b.numbers[1], b.pair_bytes);
  _tile_dpbf16ps(1, 5, 7);
  _tile_loadd(7, b.numbers[2], b.pair_bytes);
  _tile_dpbf16ps(2, 5, 7);
  _tile_loadd(7, b.numbers[3], b.pair_bytes);
  _tile_dpbf16ps(3, 5, 7);
}

/// Sums of q k of all queries for groups g to g + 3, those beyond `to` being
/// the last one again.
void score_four_groups(const attention_span& a, int g, int to,
                       float (*scores)[span_positions]) {
  const auto keys_at = [&](int d) {
    four_blocks out{{}, 64};
    for (int i = 0; i < registers_of_sums; ++i)
      out.numbers[i] = reinterpret_cast<const std::byte*>(
                           a.keys[g + i < to ? g + i : to - 1]) +
                       d * 32;
    return out;
  };
  zero_sums();
  int d = 0;
  for (; d + block_columns <= a.head_dim; d += block_columns)
    add_blocks(a.rounded + d * a.count * 2, keys_at(d));
  if (d < a.head_dim)
    add_half_blocks(a.rounded + d * a.count * 2, 64, keys_at(d));
  float* out = scores[0] + g * 16;
  write_register<0>(out, span_positions);
  if (g + 1 < to)
    write_register<1>(out + 16, span_positions);
  if (g + 2 < to)
    write_register<2>(out + 32, span_positions);
  if (g + 3 < to)
    write_register<3>(out + 48, span_positions);
}

using halves = std::uint16_t[span_positions];

/// Weighted sums of dimensions d to d + 63 of all queries, 64 a query; those
/// beyond the last are dimensions d to d + 15 again.
void sum_dimensions(const attention_span& a, int d, position_range groups,
                    const halves* weights, float* out) {
  zero_sums();
  for (int g = groups.from; g < groups.to; ++g) {
    if (d == 0)
      ask_ahead<avx512_lanes>(a, a.values, groups, g + groups_ahead, 1);
    four_blocks values{{}, a.head_dim * 4};
    for (int i = 0; i < registers_of_sums; ++i)
      values.numbers[i] = reinterpret_cast<const std::byte*>(a.values[g]) +
                          (d + i * 16 < a.head_dim ? d + i * 16 : d) * 4;
    add_half_blocks(weights[0] + g * 16, sizeof(halves), values);
  }
  write_register<0>(out, 64);
  write_register<1>(out + 16, 64);
  write_register<2>(out + 32, 64);
  write_register<3>(out + 48, 64);
}

/// The same as `tree_sum`, without going through memory.
inline float sum_of(__m512 v) {
  const __m256 eight =
      _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight),
                                 _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/// What query r sees of the 16 positions from i on.
inline __mmask16 seen_of(const attention_span& a, int r, int i) {
  const auto below = [&](int n) {
    return n - i >= 16 ? 0xffffu : n <= i ? 0u : (1u << (n - i)) - 1;
  };
  return static_cast<__mmask16>(below(a.visible[r]) & ~below(a.first[r]));
}

/// `weigh_rounded` of query r, whose scores have been capped: the weights as
/// bf16, times `scale` first.
void weigh_query(const attention_span& a, position_range groups, int r,
                 float scale, const float* scores, std::uint16_t* weights) {
  using L = avx512_lanes;
  const auto factor = L::set(scale);
  const auto nothing = L::set(-__builtin_inff());
  auto most = nothing;
  for (int i = groups.from * 16; i < groups.to * 16; i += 16)
    most = L::max(_mm512_mask_mul_ps(nothing, seen_of(a, r, i),
                                     L::load(scores + i), factor),
                  most);
  const float maximum = _mm512_reduce_max_ps(most);
  const auto least = L::set(0x1p-56f);
  auto sums = L::zero();
  for (int i = groups.from * 16; i < groups.to * 16; i += 16) {
    const auto shifted =
        L::sub(L::mul(L::load(scores + i), factor), L::set(maximum));
    const auto w = exp_lanes<L>(shifted);
    // A NaN is not less.
    const auto kept =
        _mm512_mask_cmp_ps_mask(seen_of(a, r, i), w, least, _CMP_NLT_UQ);
    const auto rounded =
        (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_mov_ps(kept, w));
    _mm256_store_si256(reinterpret_cast<__m256i*>(weights + i), rounded);
    const auto wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16);
    sums = L::add(sums, _mm512_castsi512_ps(wide));
  }
  a.partial[r][0] = maximum;
  a.partial[r][1] = sum_of(sums);
}

void attend_rounded_amx(const attention_span& a) {
  const tile_registers registers{registers_for(a.count)};
  alignas(64) float scores[rounded_query_tile][span_positions];
  const auto groups = seen_groups(a);
  for (int g = groups.from; g < groups.to; g += registers_of_sums) {
    ask_ahead<avx512_lanes>(a, a.keys, groups, g + registers_of_sums,
                            registers_of_sums);
    score_four_groups(a, g, groups.to, scores);
  }
  ask_ahead<avx512_lanes>(a, a.values, groups, groups.from, groups_ahead);
  alignas(64) halves weights[rounded_query_tile];
  const int from = groups.from * 16, count = groups.to * 16 - from;
  for (int r = 0; r < a.count; ++r) {
    if (a.soft_cap > 0) {
      scale_row<avx512_lanes>(scores[r] + from, a.scale, count);
      soft_cap_row<avx512_lanes>(scores[r] + from, a.soft_cap, count);
    }
    weigh_query(a, groups, r, a.soft_cap > 0 ? 1 : a.scale, scores[r],
                weights[r]);
  }
  alignas(64) float sums[rounded_query_tile][64];
  for (int d = 0; d < a.head_dim; d += 64) {
    sum_dimensions(a, d, groups, weights, sums[0]);
    for (int r = 0; r < a.count; ++r)
      for (int i = 0; i < 64 && d + i < a.head_dim; i += 16)
        _mm512_storeu_ps(a.partial[r] + partial_header + d + i,
                         _mm512_load_ps(sums[r] + i));
  }
}

kernel_table make() {
  auto table = avx512_kernels();
  table.round = round_rows_to_bf16;
  table.rounded_bytes = 2;
  table.bf16 = bf16_weights;
  table.bf16_gated = bf16_gated_weights;
  table.attend_rounded = attend_rounded_amx;
  return table;
}

} // namespace

const kernel_table& amx_kernels() {
  static const kernel_table table = make();
  return table;
}

} // namespace troupe::ops::cpu
