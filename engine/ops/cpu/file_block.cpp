#include "engine/ops/cpu/file_block.hpp"

#include <cstring>

namespace troupe::ops::cpu {

namespace {

constexpr std::uint32_t each_byte = 0x01010101u;

template <class T>
T read(const std::byte* from) {
  T out;
  std::memcpy(&out, from, sizeof out);
  return out;
}

std::uint8_t byte_at(const std::byte* from, std::int64_t index) {
  return static_cast<std::uint8_t>(from[index]);
}

/// Of the columns of group g, `bits` bits from bit `from` of their bytes.
std::uint32_t group(const std::byte* bytes, int g, int from, int bits) {
  return read<std::uint32_t>(bytes + 4 * g) >> from &
         each_byte * ((1u << bits) - 1);
}

// Types with blocks of 32: a scale, perhaps a minimum, perhaps a word with the
// fifth bits of all columns, then the values; of four-bit ones column k is the
// low half of byte k and column k + 16 the high half.

void read_bytes(const std::byte* values, file_block& out) {
  for (int g = 0; g < 8; ++g)
    out.stored[g] = group(values, g, 0, 8) ^ 0x80 * each_byte;
}

void read_nibbles(const std::byte* values, file_block& out) {
  for (int g = 0; g < 8; ++g)
    out.stored[g] = group(values, g % 4, g / 4 * 4, 4);
}

/// The four fifth bits of a group, spread over its bytes.
std::uint32_t fifth_bits(std::uint32_t all, int g) {
  const std::uint32_t four = all >> 4 * g & 15;
  return (four * 0x00204081u & each_byte) << 4;
}

void read_five_bits(const std::byte* fifth, file_block& out) {
  read_nibbles(fifth + 4, out);
  for (int g = 0; g < 8; ++g)
    out.stored[g] |= fifth_bits(read<std::uint32_t>(fifth), g);
}

// Types with super-blocks of 256. Block b of the eight has its bits at another
// place of the same bytes than its neighbours: of two-bit parts four blocks
// share 32 bytes, of four-bit ones two do.

/// The six-bit scale and minimum of block b, out of twelve bytes (q4_k, q5_k):
/// those of blocks 0-3 are the low six bits of bytes 0-3 and 4-7; of blocks 4-7
/// the low four bits are in bytes 8-11, the high two above those six.
void read_six_bit_scales(const std::byte* packed, int b, file_block& out) {
  const auto at = [&](int i) { return unsigned{byte_at(packed, i)}; };
  if (b < 4) {
    out.bytes[0] = at(b) & 63;
    out.bytes[1] = at(b + 4) & 63;
    return;
  }
  out.bytes[0] =
      static_cast<std::uint8_t>((at(b + 4) & 15) | at(b - 4) >> 6 << 4);
  out.bytes[1] = static_cast<std::uint8_t>(at(b + 4) >> 4 | at(b) >> 6 << 4);
}

/// Scale, minimum, 12 bytes of scales, (q5_k: 32 of fifth bits,) 128 of values.
void read_q4_k(const std::byte* block, int b, bool five_bits, file_block& out) {
  out.scale = read<std::uint16_t>(block);
  out.minimum = read<std::uint16_t>(block + 2);
  read_six_bit_scales(block + 4, b, out);
  const std::byte* fifth = block + 16;
  const std::byte* values = five_bits ? fifth + 32 : fifth;
  for (int g = 0; g < 8; ++g) {
    out.stored[g] = group(values + b / 2 * 32, g, b % 2 * 4, 4);
    if (five_bits)
      out.stored[g] |= group(fifth, g, b, 1) << 4;
  }
}

/// 128 bytes of low four bits, 64 of high two, 16 scales, the scale.
void read_q6_k(const std::byte* block, int b, file_block& out) {
  const std::byte* low = block + b / 4 * 64 + b % 2 * 32;
  const std::byte* high = block + 128 + b / 4 * 32;
  for (int g = 0; g < 8; ++g)
    out.stored[g] =
        group(low, g, b % 4 / 2 * 4, 4) | group(high, g, b % 4 * 2, 2) << 4;
  for (int i = 0; i < 2; ++i)
    out.bytes[i] = byte_at(block, 192 + 2 * b + i);
  out.scale = read<std::uint16_t>(block + 208);
}

/// The six-bit scale i of sixteen, less 32: its low four bits are in bytes 0-7
/// (the high halves are those of scales 8-15), its high two in bytes 8-11.
std::uint8_t q3_k_scale(const std::byte* packed, int i) {
  const int low = byte_at(packed, i % 8) >> i / 8 * 4 & 15;
  const int high = byte_at(packed, 8 + i % 4) >> i / 4 * 2 & 3;
  return static_cast<std::uint8_t>((low | high << 4) - 32);
}

/// 32 bytes of third bits, 64 of low two, 12 of scales, the scale.
void read_q3_k(const std::byte* block, int b, file_block& out) {
  for (int g = 0; g < 8; ++g)
    out.stored[g] = group(block + 32 + b / 4 * 32, g, b % 4 * 2, 2) |
                    group(block, g, b, 1) << 2;
  for (int i = 0; i < 2; ++i)
    out.bytes[i] = q3_k_scale(block + 96, 2 * b + i);
  out.scale = read<std::uint16_t>(block + 108);
}

/// 16 scales with minimums, 64 bytes of values, the scale, the minimum.
void read_q2_k(const std::byte* block, int b, file_block& out) {
  for (int g = 0; g < 8; ++g)
    out.stored[g] = group(block + 16 + b / 4 * 32, g, b % 4 * 2, 2);
  for (int i = 0; i < 2; ++i)
    out.bytes[i] = byte_at(block, 2 * b + i);
  out.scale = read<std::uint16_t>(block + 80);
  out.minimum = read<std::uint16_t>(block + 82);
}

} // namespace

file_block read_file_block(element_type type, const std::byte* row,
                           std::int64_t b) {
  file_block out{};
  const auto layout = layout_of(type);
  const auto blocks = layout.elements / 32; // of 32 columns, in one of the file
  const std::byte* block = row + b / blocks * layout.bytes;
  const auto within = static_cast<int>(b % blocks);
  if (layout.elements == 32)
    out.scale = read<std::uint16_t>(block);
  switch (type) {
  case element_type::q8_0:
    read_bytes(block + 2, out);
    break;
  case element_type::q4_0:
  case element_type::iq4_nl:
    read_nibbles(block + 2, out);
    break;
  case element_type::q4_1:
    out.minimum = read<std::uint16_t>(block + 2);
    read_nibbles(block + 4, out);
    break;
  case element_type::q5_0:
    read_five_bits(block + 2, out);
    break;
  case element_type::q5_1:
    out.minimum = read<std::uint16_t>(block + 2);
    read_five_bits(block + 4, out);
    break;
  case element_type::q4_k:
    read_q4_k(block, within, false, out);
    break;
  case element_type::q5_k:
    read_q4_k(block, within, true, out);
    break;
  case element_type::q6_k:
    read_q6_k(block, within, out);
    break;
  case element_type::q3_k:
    read_q3_k(block, within, out);
    break;
  case element_type::q2_k:
    read_q2_k(block, within, out);
    break;
  case element_type::f32:
  case element_type::f16:
  case element_type::bf16:
  case element_type::e4m3:
    break; // not in blocks
  }
  return out;
}

} // namespace troupe::ops::cpu
