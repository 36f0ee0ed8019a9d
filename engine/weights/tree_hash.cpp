#include "engine/weights/tree_hash.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <fmt/format.h>
#include <openssl/sha.h>
#include <thread>
#include <vector>

namespace troupe::weights {

namespace {

constexpr std::size_t chunk_bytes = 1u << 20;
using digest = std::array<unsigned char, SHA256_DIGEST_LENGTH>;

digest sha256(std::span<const std::byte> data) {
  digest out;
  SHA256(reinterpret_cast<const unsigned char*>(data.data()), data.size(),
         out.data());
  return out;
}

std::vector<digest> chunk_digests(std::span<const std::byte> data,
                                  int threads) {
  std::vector<digest> digests((data.size() + chunk_bytes - 1) / chunk_bytes);
  std::atomic<std::size_t> next{0};
  auto work = [&] {
    for (auto i = next++; i < digests.size(); i = next++) {
      auto rest = data.subspan(i * chunk_bytes);
      digests[i] = sha256(rest.first(std::min(chunk_bytes, rest.size())));
    }
  };
  auto others = std::clamp<std::size_t>(threads, 1, 64) - 1;
  std::vector<std::jthread> team;
  for (std::size_t i = 0; i < std::min(others, digests.size()); ++i)
    team.emplace_back(work);
  work();
  team.clear();
  return digests;
}

} // namespace

std::string tree_hash(std::span<const std::byte> data, int threads) {
  auto digests = chunk_digests(data, std::max(threads, 1));
  std::vector<std::byte> root(8);
  for (std::size_t i = 0; i < 8; ++i)
    root[i] = static_cast<std::byte>(std::uint64_t{data.size()} >> (8 * i));
  for (const auto& one : digests)
    root.insert(root.end(), reinterpret_cast<const std::byte*>(one.data()),
                reinterpret_cast<const std::byte*>(one.data()) + one.size());
  std::string text;
  for (auto byte : sha256(root))
    text += fmt::format("{:02x}", byte);
  return text;
}

} // namespace troupe::weights
