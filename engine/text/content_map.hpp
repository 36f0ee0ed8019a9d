#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace troupe::text {

/// Which bytes of a text came from a request.
class content_map {
public:
  void append(std::size_t size, bool content) {
    size_ += size;
    if (size == 0 || !content)
      return;
    if (!ranges_.empty() && ranges_.back().second == size_ - size)
      ranges_.back().second = size_;
    else
      ranges_.emplace_back(size_ - size, size_);
  }

  /// Whether a byte of [begin, end) is content.
  bool touches(std::size_t begin, std::size_t end) const {
    auto range = std::upper_bound(
        ranges_.begin(), ranges_.end(), begin,
        [](std::size_t at, const auto& r) { return at < r.second; });
    return range != ranges_.end() && range->first < end;
  }

private:
  std::vector<std::pair<std::size_t, std::size_t>> ranges_;
  std::size_t size_ = 0;
};

} // namespace troupe::text
