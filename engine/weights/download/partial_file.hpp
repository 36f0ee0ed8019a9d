#pragma once

#include "engine/codec/error.hpp"

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

namespace troupe::download {

/// A file in the making, whole in size from the start, and how far each of its
/// chunks is, which stands behind its content:
///
///   content        `size` bytes
///   magic          8 bytes, "troupe:1"
///   size, bytes of a chunk, number of chunks     u64 each
///   bytes done of each chunk                     u64 each
///
/// in the machine's byte order (it never leaves the machine). A byte is written
/// before it is counted, so a process that is killed loses nothing; what a
/// machine that loses power loses is found by the content's hash.
class partial_file {
public:
  /// Makes the file or goes on with it: one that does not fit `size` is begun
  /// anew. errc::limit if the disk has no room for it.
  static result<partial_file> open(const std::filesystem::path& path,
                                   std::uint64_t size);

  partial_file(partial_file&& other) noexcept;
  partial_file& operator=(partial_file&& other) noexcept;
  ~partial_file();

  std::size_t chunks() const {
    return done_.size();
  }
  /// Where a chunk begins and ends in the file.
  std::uint64_t begin_of(std::size_t chunk) const;
  std::uint64_t end_of(std::size_t chunk) const;
  std::uint64_t done(std::size_t chunk) const;
  std::uint64_t bytes_done() const;
  bool is_done(std::size_t chunk) const;

  /// Puts the next bytes of a chunk; no more than it lacks. Different chunks
  /// may be written by different threads at a time.
  result<void> append(std::size_t chunk, std::string_view bytes);

  /// Nothing of a chunk is done any more. By the thread that appends to it.
  result<void> restart(std::size_t chunk);

  /// The whole content is there: brings it to the disk and cuts off what stands
  /// behind it.
  result<void> finish();

  /// How many bytes are done in a file of `size` that another process writes; 0
  /// if it cannot be told.
  static std::uint64_t look(const std::filesystem::path& path,
                            std::uint64_t size);

private:
  partial_file() = default;

  result<void> begin_anew();
  bool read_state();
  std::uint64_t state_at(std::size_t chunk) const;
  result<void> write_at(std::uint64_t at, const void* data, std::size_t bytes);
  error failure(const char* what, int code) const;

  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  std::uint64_t chunk_bytes_ = 0;
  std::vector<std::uint64_t> done_; ///< each by one thread at a time
};

} // namespace troupe::download
