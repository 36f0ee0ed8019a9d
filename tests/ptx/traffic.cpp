#include "tests/ptx/traffic.hpp"

#include "tests/ptx/warp.hpp"

#include <algorithm>
#include <array>

namespace troupe::ptx {

namespace {

constexpr unsigned banks = 32;
constexpr std::size_t word_bytes = 4, sector_bytes = 32;

/// Few numbers, each once.
template <std::size_t Most>
class few {
public:
  void add(std::uint64_t x) {
    if (std::find(all_.begin(), all_.begin() + size_, x) ==
        all_.begin() + size_)
      all_[size_++] = x;
  }
  std::size_t size() const {
    return size_;
  }
  auto begin() const {
    return all_.begin();
  }
  auto end() const {
    return all_.begin() + size_;
  }

private:
  std::array<std::uint64_t, Most> all_;
  std::ptrdiff_t size_ = 0;
};

std::uint64_t parts(std::size_t all, std::size_t each) {
  return (all + each - 1) / each;
}

} // namespace

traffic sectors_of(std::span<const std::uint64_t> addresses, std::uint32_t mask,
                   std::size_t bytes) {
  few<lanes> sectors, starts;
  for_each_lane(mask, [&](unsigned l) {
    sectors.add(addresses[l] / sector_bytes);
    starts.add(addresses[l]);
  });
  return {sectors.size(), parts(starts.size() * bytes, sector_bytes)};
}

traffic turns_of(std::span<const std::uint64_t> addresses, std::uint32_t mask,
                 std::size_t bytes) {
  const auto words_each = std::max(bytes / word_bytes, std::size_t{1});
  const auto at_once = static_cast<unsigned>(lanes / words_each);
  traffic out;
  for (unsigned first = 0; first < lanes; first += at_once) {
    few<lanes> words;
    for (unsigned l = first; l < first + at_once; ++l)
      if ((mask >> l & 1) != 0)
        for (std::size_t n = 0; n < words_each; ++n)
          words.add(addresses[l] / word_bytes + n);
    std::array<std::uint64_t, banks> of_bank{};
    for (const auto word : words)
      ++of_bank[word % banks];
    out.paid += *std::max_element(of_bank.begin(), of_bank.end());
    out.least += parts(words.size(), banks);
  }
  return out;
}

} // namespace troupe::ptx
