#pragma once

#include "engine/codec/error.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace troupe::weights {

/// A regular file, mapped for reading as long as this object lives. gguf.hpp
/// says what a mapping does not protect from.
class mapped_file {
public:
  /// Nothing mapped; `bytes()` is empty.
  mapped_file() = default;

  /// Refuses what is not a regular file (a device or FIFO would block or never
  /// end) and an empty one.
  static result<mapped_file> open(const std::filesystem::path& path);

  mapped_file(mapped_file&& other) noexcept;
  mapped_file& operator=(mapped_file&& other) noexcept;
  ~mapped_file();

  std::span<const std::byte> bytes() const {
    return bytes_;
  }

  /// True if the file's size or time of change is not what it was at `open`.
  bool changed() const;

private:
  int descriptor_ = -1;
  std::span<const std::byte> bytes_;
  std::int64_t changed_at_ns_ = 0;
};

} // namespace troupe::weights
