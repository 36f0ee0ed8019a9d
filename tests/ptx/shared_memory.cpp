#include "tests/ptx/shared_memory.hpp"

#include <algorithm>
#include <cstring>

namespace troupe::ptx {

namespace {

constexpr std::uint32_t warp_bits = 63;
constexpr std::uint32_t is_atomic = 64;
constexpr unsigned epoch_at = 7;

bool is_of_epoch(std::uint32_t tag, std::uint32_t other) {
  return (tag ^ other) >> epoch_at == 0;
}

bool is_of_warp(std::uint32_t tag, std::uint32_t other) {
  return ((tag ^ other) & warp_bits) == 0;
}

/// With whom: `tag` is that of the other.
[[noreturn]] void fail(shared_memory::access how, std::size_t offset,
                       std::uint32_t tag, std::uint32_t instruction) {
  throw shared_memory::conflict{shared_memory::conflict::kind::race, offset,
                                how, tag & warp_bits, instruction};
}

/// Whether another warp is in one of the tags' epochs.
bool has_other(const std::uint32_t* tags, std::size_t count,
               std::uint32_t tag) {
  std::uint32_t others = 0;
  for (std::size_t n = 0; n < count; ++n)
    others |= static_cast<std::uint32_t>(is_of_epoch(tags[n], tag) &
                                         !is_of_warp(tags[n], tag));
  return others != 0;
}

} // namespace

shared_memory::shared_memory(std::size_t bytes)
    : size_(bytes), data_((bytes + 15) / 16 * 16), written_(data_.size()),
      words_(data_.size() / 4), split_(data_.size() / 4),
      pending_(data_.size() / 4) {
  // nop
}

void shared_memory::next_epoch() {
  has_split_ = false;
  if (++epoch_ < epochs)
    return;
  epoch_ = 1;
  bytes_.reset();
  std::fill(words_.wrote.begin(), words_.wrote.end(), 0);
  std::fill(words_.read.begin(), words_.read.end(), 0);
  std::fill(split_.begin(), split_.end(), 0);
}

void shared_memory::begin_block() {
  next_epoch();
  std::fill(written_.begin(), written_.end(), std::uint8_t{0});
}

/// `unit`: of how many bytes each of `of` is.
void shared_memory::use_one(users& of, access how, std::size_t index,
                            unsigned unit, unsigned warp,
                            std::uint32_t instruction) {
  const auto tag = epoch_ << epoch_at | warp;
  auto& wrote = of.wrote[index];
  auto& read = of.read[index];
  const bool was_written = is_of_epoch(wrote, tag);
  const bool was_atomic = (wrote & is_atomic) != 0;
  if (was_written && !is_of_warp(wrote, tag) &&
      !(was_atomic && how == access::atomic))
    fail(was_atomic ? access::atomic : access::write, index * unit, wrote,
         of.wrote_at[index]);
  if (how == access::read) {
    read = is_of_epoch(read, tag) && !is_of_warp(read, tag) ? tag | warp_bits
                                                            : tag;
    of.read_at[index] = instruction;
    return;
  }
  if (is_of_epoch(read, tag) && !is_of_warp(read, tag))
    fail(access::read, index * unit, read, of.read_at[index]);
  if (how == access::write)
    wrote = tag;
  else if (!was_written)
    wrote = tag | is_atomic;
  else if (!is_of_warp(wrote, tag))
    wrote |= warp_bits;
  of.wrote_at[index] = instruction;
}

/// As use_one for all of them, faster where nothing is wrong.
void shared_memory::use_run(users& of, access how, std::size_t first,
                            std::size_t count, unsigned unit, unsigned warp,
                            std::uint32_t instruction) {
  const auto tag = epoch_ << epoch_at | warp;
  auto* const wrote = &of.wrote[first];
  auto* const read = &of.read[first];
  if (how == access::atomic || has_other(wrote, count, tag) ||
      (how == access::write && has_other(read, count, tag))) {
    for (std::size_t n = 0; n < count; ++n)
      use_one(of, how, first + n, unit, warp, instruction);
    return;
  }
  if (how == access::write) {
    std::fill_n(wrote, count, tag);
    std::fill_n(&of.wrote_at[first], count, instruction);
    return;
  }
  for (std::size_t n = 0; n < count; ++n)
    read[n] = tag | ((is_of_epoch(read[n], tag) & !is_of_warp(read[n], tag))
                         ? warp_bits
                         : 0);
  std::fill_n(&of.read_at[first], count, instruction);
}

/// Byte for byte.
void shared_memory::use_split(access how, std::size_t offset, std::size_t bytes,
                              unsigned warp, std::uint32_t instruction) {
  has_split_ = true;
  if (!bytes_)
    bytes_.emplace(data_.size());
  for (std::size_t w = offset / 4; w < (offset + bytes + 3) / 4; ++w)
    if (split_[w] != epoch_) {
      split_[w] = epoch_;
      std::fill_n(&bytes_->wrote[w * 4], 4, words_.wrote[w]);
      std::fill_n(&bytes_->read[w * 4], 4, words_.read[w]);
      std::fill_n(&bytes_->wrote_at[w * 4], 4, words_.wrote_at[w]);
      std::fill_n(&bytes_->read_at[w * 4], 4, words_.read_at[w]);
    }
  use_run(*bytes_, how, offset, bytes, 1, warp, instruction);
}

void shared_memory::use(access how, std::size_t offset, std::size_t bytes,
                        unsigned warp, std::uint32_t instruction) {
  const auto first = offset / 4, last = (offset + bytes + 3) / 4;
  if (pending_count_ != 0)
    for (auto w = first; w < last; ++w)
      if (pending_[w] != 0)
        throw conflict{conflict::kind::pending, w * 4, access::write, many,
                       pending_[w] - 1};
  if (how != access::write)
    if (const auto* none = std::memchr(&written_[offset], 0, bytes))
      throw conflict{
          conflict::kind::unwritten,
          static_cast<std::size_t>(static_cast<const std::uint8_t*>(none) -
                                   written_.data())};
  if (bytes < 4) {
    use_split(how, offset, bytes, warp, instruction);
  } else if (has_split_) {
    for (auto w = first; w < last; ++w)
      if (split_[w] == epoch_)
        use_split(how, w * 4, 4, warp, instruction);
      else
        use_one(words_, how, w, 4, warp, instruction);
  } else {
    use_run(words_, how, first, last - first, 4, warp, instruction);
  }
  if (how == access::write)
    std::memset(&written_[offset], 1, bytes);
}

void shared_memory::begin_copy(std::size_t offset, std::size_t bytes,
                               unsigned warp, std::uint32_t instruction) {
  // It may be done at once.
  use(access::write, offset, bytes, warp, instruction);
  std::fill_n(&pending_[offset / 4], bytes / 4, instruction + 1);
  ++pending_count_;
}

void shared_memory::end_copy(std::size_t offset, std::size_t bytes,
                             unsigned warp, std::uint32_t instruction) {
  std::fill_n(&pending_[offset / 4], bytes / 4, 0);
  --pending_count_;
  use(access::write, offset, bytes, warp, instruction);
}

} // namespace troupe::ptx
