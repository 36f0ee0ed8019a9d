#include "engine/codec/tagged.hpp"

#include <cstdlib>

namespace troupe::codec {

static_assert(std::endian::native == std::endian::little,
              "the encoding is little-endian; add byte swaps for this machine");

namespace {

constexpr std::size_t header_size = 6;

} // namespace

void writer::put_raw(std::uint16_t tag, const void* data, std::size_t size) {
  if (size > UINT32_MAX)
    std::abort(); // callers bound what they encode long before this
  auto length = static_cast<std::uint32_t>(size);
  auto at = out_.size();
  out_.resize(at + header_size + size);
  std::memcpy(out_.data() + at, &tag, sizeof tag);
  std::memcpy(out_.data() + at + 2, &length, sizeof length);
  if (size != 0)
    std::memcpy(out_.data() + at + header_size, data, size);
}

bool reader::next(field& out) {
  if (rest_.empty())
    return false;
  if (rest_.size() < header_size) {
    ok_ = false;
    return false;
  }
  std::uint32_t length = 0;
  std::memcpy(&out.tag, rest_.data(), sizeof out.tag);
  std::memcpy(&length, rest_.data() + 2, sizeof length);
  if (length > rest_.size() - header_size) {
    ok_ = false;
    return false;
  }
  out.payload = rest_.subspan(header_size, length);
  rest_ = rest_.subspan(header_size + length);
  return true;
}

error unknown_field(std::string_view record, std::uint16_t tag) {
  return {errc::unsupported, std::string{record} + ": unknown field "
                                 + std::to_string(tag)
                                 + " (sent by a newer version?)"};
}

error broken_field(std::string_view record, std::uint16_t tag) {
  return {errc::corrupt, std::string{record} + ": field "
                             + std::to_string(tag) + " is malformed"};
}

} // namespace troupe::codec
