#include "engine/weights/download/partial_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <numeric>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace troupe::download {

namespace {

constexpr std::uint64_t magic = 0x313a657075'6f7274; // "troupe:1"
constexpr std::uint64_t chunk_bytes_min = 16u << 20;
constexpr std::uint64_t chunk_bytes_max = 128u << 20;
constexpr std::uint64_t chunks_wished = 32;

/// What stands behind the content, before the bytes done.
using head = std::array<std::uint64_t, 4>;

std::uint64_t chunk_bytes_for(std::uint64_t size) {
  auto wished = (size / chunks_wished + chunk_bytes_min - 1) / chunk_bytes_min *
                chunk_bytes_min;
  return std::clamp(wished, chunk_bytes_min, chunk_bytes_max);
}

std::uint64_t chunks_for(std::uint64_t size) {
  auto chunk = chunk_bytes_for(size);
  return (size + chunk - 1) / chunk;
}

std::uint64_t whole_size(std::uint64_t size) {
  return size + sizeof(head) + chunks_for(size) * sizeof(std::uint64_t);
}

bool read_at(int descriptor, std::uint64_t at, void* to, std::size_t bytes) {
  return ::pread(descriptor, to, bytes, static_cast<off_t>(at)) ==
         static_cast<ssize_t>(bytes);
}

/// Reads the counts of a file whose content has `size` bytes; empty if it is
/// no such file.
std::vector<std::uint64_t> read_counts(int descriptor, std::uint64_t size) {
  head found{};
  const head expected{magic, size, chunk_bytes_for(size), chunks_for(size)};
  if (!read_at(descriptor, size, found.data(), sizeof found) ||
      found != expected)
    return {};
  std::vector<std::uint64_t> out(chunks_for(size));
  if (!read_at(descriptor, size + sizeof found, out.data(),
               out.size() * sizeof out[0]))
    return {};
  for (std::size_t i = 0; i < out.size(); ++i)
    if (out[i] > std::min(expected[2], size - i * expected[2]))
      return {};
  return out;
}

} // namespace

result<partial_file> partial_file::open(const std::filesystem::path& path,
                                        std::uint64_t size) {
  partial_file out;
  out.path_ = path;
  out.size_ = size;
  out.chunk_bytes_ = chunk_bytes_for(size);
  out.descriptor_ =
      ::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
  if (out.descriptor_ < 0)
    return out.failure("cannot be made", errno);
  if (out.read_state())
    return out;
  if (auto begun = out.begin_anew(); !begun)
    return begun.error();
  return out;
}

partial_file::partial_file(partial_file&& other) noexcept {
  *this = std::move(other);
}

partial_file& partial_file::operator=(partial_file&& other) noexcept {
  path_ = std::move(other.path_);
  std::swap(descriptor_, other.descriptor_);
  size_ = other.size_;
  chunk_bytes_ = other.chunk_bytes_;
  done_ = std::move(other.done_);
  return *this;
}

partial_file::~partial_file() {
  if (descriptor_ >= 0)
    ::close(descriptor_);
}

std::uint64_t partial_file::begin_of(std::size_t chunk) const {
  return chunk * chunk_bytes_;
}

std::uint64_t partial_file::end_of(std::size_t chunk) const {
  return std::min(size_, begin_of(chunk) + chunk_bytes_);
}

std::uint64_t partial_file::done(std::size_t chunk) const {
  return done_[chunk];
}

bool partial_file::is_done(std::size_t chunk) const {
  return begin_of(chunk) + done_[chunk] == end_of(chunk);
}

std::uint64_t partial_file::bytes_done() const {
  return std::accumulate(done_.begin(), done_.end(), std::uint64_t{0});
}

bool partial_file::read_state() {
  done_ = read_counts(descriptor_, size_);
  struct stat now {};
  return !done_.empty() && ::fstat(descriptor_, &now) == 0 &&
         static_cast<std::uint64_t>(now.st_size) == whole_size(size_);
}

result<void> partial_file::begin_anew() {
  auto whole = static_cast<off_t>(whole_size(size_));
  if (::ftruncate(descriptor_, 0) != 0)
    return failure("cannot be emptied", errno);
  // Where a file system cannot set room aside, a hole of that size will do.
  if (::fallocate(descriptor_, 0, 0, whole) != 0) {
    if (errno != EOPNOTSUPP)
      return failure("cannot get its room", errno);
    if (::ftruncate(descriptor_, whole) != 0)
      return failure("cannot get its room", errno);
  }
  done_.assign(chunks_for(size_), 0);
  const head state{magic, size_, chunk_bytes_, done_.size()};
  if (auto put = write_at(size_ + sizeof state, done_.data(),
                          done_.size() * sizeof done_[0]);
      !put)
    return put;
  return write_at(size_, state.data(), sizeof state);
}

std::uint64_t partial_file::state_at(std::size_t chunk) const {
  return size_ + sizeof(head) + chunk * sizeof(std::uint64_t);
}

result<void> partial_file::write_at(std::uint64_t at, const void* data,
                                    std::size_t bytes) {
  const auto* from = static_cast<const char*>(data);
  while (bytes > 0) {
    auto n = ::pwrite(descriptor_, from, bytes, static_cast<off_t>(at));
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return failure("cannot be written", n < 0 ? errno : EIO);
    from += n;
    at += static_cast<std::uint64_t>(n);
    bytes -= static_cast<std::size_t>(n);
  }
  return {};
}

result<void> partial_file::append(std::size_t chunk, std::string_view bytes) {
  auto at = begin_of(chunk) + done_[chunk];
  if (bytes.size() > end_of(chunk) - at)
    return error{errc::corrupt, "more bytes came than were asked for"};
  if (auto put = write_at(at, bytes.data(), bytes.size()); !put)
    return put;
  done_[chunk] += bytes.size();
  return write_at(state_at(chunk), &done_[chunk], sizeof done_[chunk]);
}

result<void> partial_file::restart(std::size_t chunk) {
  done_[chunk] = 0;
  return write_at(state_at(chunk), &done_[chunk], sizeof done_[chunk]);
}

result<void> partial_file::finish() {
  // What takes long comes first: ended there, it can still go on.
  if (::fsync(descriptor_) != 0)
    return failure("cannot be brought to the disk", errno);
  if (::ftruncate(descriptor_, static_cast<off_t>(size_)) != 0)
    return failure("cannot be finished", errno);
  return {};
}

std::uint64_t partial_file::look(const std::filesystem::path& path,
                                 std::uint64_t size) {
  int descriptor = ::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (descriptor < 0)
    return 0;
  auto counts = read_counts(descriptor, size);
  ::close(descriptor);
  return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
}

error partial_file::failure(const char* what, int code) const {
  return {code == ENOSPC || code == EDQUOT ? errc::limit : errc::io,
          fmt::format("{} {}: {}", path_.string(), what, std::strerror(code))};
}

} // namespace troupe::download
