#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

namespace troupe::ops::cpu {

/// Zeroed memory straight from the kernel, in huge pages where it gives them.
/// Moves, and is given back at the end.
class pages {
public:
  /// Nothing if the kernel refuses.
  static std::optional<pages> allocate(std::uint64_t bytes);

  pages() = default;
  pages(pages&& other) noexcept;
  pages& operator=(pages&& other) noexcept;
  ~pages();

  std::byte* data() const {
    return data_;
  }
  std::uint64_t size() const {
    return size_;
  }

private:
  std::byte* data_ = nullptr;
  std::uint64_t size_ = 0;
};

} // namespace troupe::ops::cpu
