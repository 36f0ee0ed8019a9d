#include "engine/ops/cpu/bf16_tile.hpp"
#include "engine/ops/cpu/lane_kernels.hpp"
#include "engine/ops/cpu/lanes_avx512.hpp"

/// What the matrix unit of an Intel CPU does faster: products of bf16. All else
/// is AVX-512's.
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

/// The registers hold something from here to the end of its life.
class tile_registers {
public:
  tile_registers() {
    _tile_loadconfig(&whole_registers);
  }
  ~tile_registers() {
    _tile_release();
  }
  tile_registers(const tile_registers&) = delete;
  tile_registers& operator=(const tile_registers&) = delete;
};

/// 32 columns of 16 rows, or of 16 outputs.
constexpr std::int64_t register_bytes = 1024;

void round_rows_to_bf16(const float* x, int rows, std::int64_t columns,
                        std::byte* out) {
  for (int row = 0; row < rows; ++row)
    round_row<avx512_lanes>(x + row * columns, columns, [&](auto i, __m512 v) {
      const auto block = i / block_columns;
      std::byte* to = out + (block * rows + row) * 64 + i % block_columns * 2;
      const __m256i halves =
          _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(v), 16));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), halves);
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

/// Writes what register I holds of a group's rows.
template <int I>
void store_register(int rows, const tile_output& out) {
  alignas(64) float sums[group_rows][tile_lanes];
  if constexpr (I == 0)
    _tile_stored(0, sums, 64);
  else if constexpr (I == 1)
    _tile_stored(1, sums, 64);
  else if constexpr (I == 2)
    _tile_stored(2, sums, 64);
  else
    _tile_stored(3, sums, 64);
  for (int r = 0; r < rows; ++r)
    finish_row<avx512_lanes>(out, r, _mm512_load_ps(sums[r]));
}

inline void ask_ahead(const std::byte* block) {
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
    ask_ahead(first + b * register_bytes);
    _tile_loadd(4, a.x + b * a.rows * 64, 64);
    _tile_loadd(6, first + b * register_bytes, 64);
    _tile_dpbf16ps(0, 4, 6);
    ask_ahead(second + b * register_bytes);
    _tile_loadd(7, second + b * register_bytes, 64);
    _tile_dpbf16ps(1, 4, 7);
  }
}

/// Two groups of rows and two tiles.
void two_groups(const std::byte* first, const std::byte* second,
                std::int64_t blocks, const row_group& a, const row_group& b) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
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
  const tile_registers registers;
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

kernel_table make() {
  auto table = avx512_kernels();
  table.round = round_rows_to_bf16;
  table.rounded_bytes = 2;
  table.bf16 = bf16_weights;
  return table;
}

} // namespace

const kernel_table& amx_kernels() {
  static const kernel_table table = make();
  return table;
}

} // namespace troupe::ops::cpu
