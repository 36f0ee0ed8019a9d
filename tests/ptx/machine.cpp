#include "tests/ptx/machine.hpp"

#include "tests/ptx/warp.hpp"

#include <algorithm>
#include <deque>
#include <thread>

namespace troupe::ptx {

namespace {

void check(const kernel& what, const launch& how) {
  const auto fail = [&](const std::string& why) {
    throw fault{why + "\n  kernel " + what.name};
  };
  std::uint64_t threads = 1;
  for (const auto n : how.threads)
    threads *= n;
  for (const auto n : how.blocks)
    if (n == 0)
      fail("there are no blocks");
  constexpr unsigned beside_x = 65535;
  if (how.blocks[1] > beside_x || how.blocks[2] > beside_x)
    fail("there are too many blocks");
  constexpr unsigned threads_most = 1024, deep_most = 64;
  if (threads == 0 || threads > threads_most || how.threads[2] > deep_most ||
      threads > what.threads_most)
    fail(std::to_string(threads) + " threads are none or too many: " +
         std::to_string(what.threads_most) + " is most");
  if (what.shared_bytes + how.shared_bytes > shared_bytes_most)
    fail(std::to_string(what.shared_bytes + how.shared_bytes) +
         " bytes of shared memory are more than " +
         std::to_string(shared_bytes_most));
}

/// Those of one block, in turns.
void run_block(block& of, std::deque<warp>& warps) {
  for (auto& one : warps)
    one.begin();
  for (;;) {
    bool runs = false;
    for (auto& one : warps)
      if (one.is() == warp::state::runs) {
        one.go();
        runs = runs || one.is() == warp::state::runs;
      }
    if (runs) {
      // It waits for what another thread of this process may do.
      std::this_thread::yield();
      continue;
    }
    const warp* waits = nullptr;
    const warp* has_ended = nullptr;
    for (const auto& one : warps)
      (one.is() == warp::state::waits ? waits : has_ended) = &one;
    if (waits == nullptr)
      return;
    if (has_ended != nullptr)
      waits->fail(waits->last(), 0,
                  "warp " + std::to_string(has_ended->number()) +
                      " has ended and never comes to this barrier");
    for (auto& one : warps)
      one.pass_barrier();
    of.shared.pass_barrier();
  }
}

} // namespace

work_done& work_done::operator+=(const work_done& other) {
  instructions += other.instructions;
  lane_instructions += other.lane_instructions;
  products += other.products;
  loaded += other.loaded;
  stored += other.stored;
  shared += other.shared;
  return *this;
}

namespace {

constexpr std::uint64_t sector_bytes = 32;

} // namespace

namespace {

/// Calls f(sector, its words) for each sector that has some of so many bytes,
/// until it says so.
template <class F>
bool any_sector(std::uint64_t address, std::size_t bytes, F f) {
  constexpr std::uint64_t word = 4;
  if (bytes == 0)
    return false;
  const auto last = address + bytes - 1;
  for (auto s = address / sector_bytes; s <= last / sector_bytes; ++s) {
    const auto begin = s * sector_bytes, end = begin + sector_bytes - 1;
    unsigned words = 0;
    for (auto at = std::max(begin, address) / word;
         at <= std::min(end, last) / word; ++at)
      words |= 1u << at % (sector_bytes / word);
    if (f(s, words))
      return true;
  }
  return false;
}

} // namespace

void unfinished_writes::add(std::uint64_t address, std::size_t bytes) {
  any_sector(address, bytes, [this](std::uint64_t sector, unsigned words) {
    words_[sector] |= words;
    return false;
  });
}

bool unfinished_writes::touch(std::uint64_t address, std::size_t bytes) const {
  return any_sector(
      address, bytes, [this](std::uint64_t sector, unsigned words) {
        const auto found = words_.find(sector);
        return found != words_.end() && (found->second & words) != 0;
      });
}

work_done run(const kernel& what, const launch& how, memory& where) {
  check(what, how);
  block of{what, how, where};
  std::deque<warp> warps;
  for (unsigned n = 0; n * lanes < of.threads; ++n)
    warps.emplace_back(of, n);
  for (of.at[2] = 0; of.at[2] < how.blocks[2]; ++of.at[2])
    for (of.at[1] = 0; of.at[1] < how.blocks[1]; ++of.at[1])
      for (of.at[0] = 0; of.at[0] < how.blocks[0]; ++of.at[0]) {
        of.shared.begin_block();
        run_block(of, warps);
      }
  work_done out;
  for (const auto& one : warps)
    out += one.done;
  return out;
}

} // namespace troupe::ptx
