#include "tests/ptx/shared_memory.hpp"

#include <algorithm>
#include <cstring>

namespace troupe::ptx {

namespace {

// A tag: 32 bits of epoch, 1 whether all were atomic, 6 of warp, 25 of
// instruction.
constexpr std::uint64_t is_atomic = std::uint64_t{1} << 31;
constexpr std::uint64_t warp_bits = std::uint64_t{63} << 25;

bool is_of_epoch(std::uint64_t tag, std::uint64_t other) {
  return (tag ^ other) >> 32 == 0;
}

bool is_of_warp(std::uint64_t tag, std::uint64_t other) {
  return ((tag ^ other) & warp_bits) == 0;
}

/// With whom: `tag` is that of the other.
[[noreturn]] void fail(shared_memory::access how, std::size_t offset,
                       std::uint64_t tag) {
  throw shared_memory::conflict{shared_memory::conflict::kind::race, offset,
                                how, static_cast<unsigned>(tag >> 25 & 63),
                                static_cast<std::uint32_t>(tag & 0x1ffffff)};
}

} // namespace

shared_memory::shared_memory(std::size_t bytes)
    : size_(bytes), data_((bytes + 15) / 16 * 16), written_(data_.size()),
      words_(data_.size() / 4), bytes_(data_.size()) {
  // nop
}

void shared_memory::begin_block() {
  ++epoch_;
  std::fill(written_.begin(), written_.end(), std::uint8_t{0});
}

/// `how` it is used; `of` who did before.
inline void shared_memory::use(users& of, access how, std::size_t offset,
                               std::uint64_t tag) {
  const bool was_written = is_of_epoch(of.wrote, tag);
  const bool was_atomic = (of.wrote & is_atomic) != 0;
  if (was_written && !is_of_warp(of.wrote, tag) &&
      !(was_atomic && how == access::atomic))
    fail(was_atomic ? access::atomic : access::write, offset, of.wrote);
  if (how == access::read) {
    if (!is_of_epoch(of.read, tag))
      of.read = tag;
    else if (!is_of_warp(of.read, tag))
      of.read |= warp_bits;
    return;
  }
  if (is_of_epoch(of.read, tag) && !is_of_warp(of.read, tag))
    fail(access::read, offset, of.read);
  if (how == access::write)
    of.wrote = tag;
  else if (!was_written)
    of.wrote = tag | is_atomic;
  else if (!is_of_warp(of.wrote, tag))
    of.wrote |= warp_bits;
}

void shared_memory::use_bytes(access how, std::size_t offset, std::size_t bytes,
                              std::uint64_t tag) {
  auto& of = words_[offset / 4];
  auto* const one = &bytes_[offset / 4 * 4];
  if (of.split != epoch_) {
    of.split = epoch_;
    std::fill_n(one, 4, of.all);
  }
  for (std::size_t b = offset % 4; b < offset % 4 + bytes; ++b)
    use(one[b], how, offset / 4 * 4 + b, tag);
}

inline void shared_memory::use_word(access how, std::size_t index,
                                    std::uint64_t tag) {
  auto& of = words_[index];
  if (of.split == epoch_)
    use_bytes(how, index * 4, 4, tag);
  else
    use(of.all, how, index * 4, tag);
}

void shared_memory::check_written(std::size_t offset, std::size_t bytes) const {
  for (std::size_t b = offset; b < offset + bytes; ++b)
    if (written_[b] == 0)
      throw conflict{conflict::kind::unwritten, b};
}

void shared_memory::use(access how, std::size_t offset, std::size_t bytes,
                        unsigned warp, std::uint32_t instruction) {
  const auto tag = tag_of(warp, instruction);
  for (std::size_t w = offset / 4; w < (offset + bytes + 3) / 4; ++w)
    if (words_[w].pending != 0)
      throw conflict{conflict::kind::pending, w * 4, access::write, many,
                     words_[w].pending - 1};
  if (how != access::write)
    check_written(offset, bytes);
  if (bytes < 4)
    use_bytes(how, offset, bytes, tag);
  else
    for (std::size_t w = offset / 4; w < (offset + bytes) / 4; ++w)
      use_word(how, w, tag);
  if (how == access::write)
    std::memset(&written_[offset], 1, bytes);
}

void shared_memory::begin_copy(std::size_t offset, std::size_t bytes,
                               unsigned warp, std::uint32_t instruction) {
  // It may be done at once.
  use(access::write, offset, bytes, warp, instruction);
  for (std::size_t w = offset / 4; w < (offset + bytes) / 4; ++w)
    words_[w].pending = instruction + 1;
}

void shared_memory::end_copy(std::size_t offset, std::size_t bytes,
                             unsigned warp, std::uint32_t instruction) {
  for (std::size_t w = offset / 4; w < (offset + bytes) / 4; ++w)
    words_[w].pending = 0;
  use(access::write, offset, bytes, warp, instruction);
}

} // namespace troupe::ptx
