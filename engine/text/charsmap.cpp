#include "engine/text/charsmap.hpp"

#include <cstring>

namespace troupe::text {

namespace {

constexpr std::size_t table_bytes_max = 8u << 20;
constexpr std::size_t replacement_bytes_max = 256;

// Fields of a unit.
bool has_leaf(std::uint32_t unit) {
  return (unit >> 8 & 1) != 0;
}

std::uint32_t value_of(std::uint32_t unit) {
  return unit & 0x7FFFFFFF;
}

std::uint32_t label_of(std::uint32_t unit) {
  return unit & 0x800000FF;
}

std::uint32_t offset_of(std::uint32_t unit) {
  return (unit >> 10) << ((unit & 1u << 9) >> 6);
}

error broken(const char* why) {
  return {errc::corrupt, std::string{"charsmap: "} + why};
}

bool has_long_run(std::string_view text) {
  std::size_t run = 0;
  for (auto c : text) {
    run = c == '\0' ? 0 : run + 1;
    if (run > replacement_bytes_max)
      return true;
  }
  return false;
}

} // namespace

result<charsmap> charsmap::make(std::string_view table) {
  std::uint32_t bytes = 0;
  if (table.size() > table_bytes_max)
    return error{errc::limit, "charsmap: larger than 8 MiB"};
  if (table.size() < sizeof bytes)
    return broken("cut short");
  std::memcpy(&bytes, table.data(), sizeof bytes);
  table.remove_prefix(sizeof bytes);
  if (bytes % 4 != 0 || bytes == 0 || bytes > table.size())
    return broken("its trie does not fit");
  charsmap out;
  out.units_.resize(bytes / 4);
  std::memcpy(out.units_.data(), table.data(), bytes);
  out.replacements_ = table.substr(bytes);
  if (has_long_run(out.replacements_))
    return error{errc::limit, "charsmap: a replacement of over 256 bytes"};
  return out;
}

std::optional<std::string_view> charsmap::find(std::string_view text) const {
  std::size_t node = offset_of(units_[0]);
  for (auto c : text) {
    auto byte = static_cast<unsigned char>(c);
    node ^= byte;
    if (byte == 0 || node >= units_.size() || label_of(units_[node]) != byte)
      return std::nullopt;
    auto unit = units_[node];
    node ^= offset_of(unit);
    if (!has_leaf(unit))
      continue;
    if (node >= units_.size() || value_of(units_[node]) >= replacements_.size())
      return std::nullopt;
    auto rest = std::string_view{replacements_}.substr(value_of(units_[node]));
    return rest.substr(0, rest.find('\0'));
  }
  return std::nullopt;
}

} // namespace troupe::text
