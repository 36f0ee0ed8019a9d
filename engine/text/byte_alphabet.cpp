#include "engine/text/byte_alphabet.hpp"

#include "engine/text/utf8.hpp"

#include <array>
#include <cstdint>

namespace troupe::text {

namespace {

constexpr char32_t first_stand_in = 0x100;
constexpr std::size_t stand_ins = 68;

constexpr bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
         byte >= 0xAE;
}

struct alphabet {
  std::array<char32_t, 256> character_of{};
  std::array<std::int16_t, first_stand_in + stand_ins> byte_of{};
};

constexpr alphabet make_alphabet() {
  alphabet out;
  out.byte_of.fill(-1);
  auto next = first_stand_in;
  for (unsigned byte = 0; byte < 256; ++byte) {
    char32_t character = stands_for_itself(byte) ? byte : next++;
    out.character_of[byte] = character;
    out.byte_of[character] = static_cast<std::int16_t>(byte);
  }
  return out;
}

constexpr auto table = make_alphabet();

} // namespace

std::string spell_bytes(std::string_view bytes) {
  std::string out;
  for (auto c : bytes)
    append_utf8(table.character_of[static_cast<unsigned char>(c)], out);
  return out;
}

std::optional<std::string> bytes_of_spelling(std::string_view spelling) {
  std::string out;
  while (!spelling.empty()) {
    auto unit = first_utf8_unit(spelling);
    if (unit.what != utf8_unit::kind::character)
      return std::nullopt;
    auto character = decode_utf8(spelling.substr(0, unit.size));
    if (character >= table.byte_of.size() || table.byte_of[character] < 0)
      return std::nullopt;
    out += static_cast<char>(table.byte_of[character]);
    spelling.remove_prefix(unit.size);
  }
  return out;
}

} // namespace troupe::text
