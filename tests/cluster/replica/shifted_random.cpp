#include "tests/cluster/replica/shifted_random.hpp"

#include "engine/sampling/philox.hpp"

#include <mutex>
#include <set>
#include <utility>

// The linker puts `shifted_uniform` where the sampler calls
// `sampling::uniform` (--wrap, ../CMakeLists.txt): the shipped code needs no
// place for this fault.

namespace troupe::test {

namespace {

std::mutex mutex;
std::set<std::pair<std::uint64_t, std::uint32_t>> shifted;

bool is_shifted(std::uint64_t seed, std::uint32_t choice) {
  std::lock_guard guard{mutex};
  return shifted.contains({seed, choice});
}

} // namespace

void shift_random(std::uint64_t seed, std::uint32_t choice, bool is) {
  std::lock_guard guard{mutex};
  if (is)
    shifted.emplace(seed, choice);
  else
    shifted.erase({seed, choice});
}

double
right_uniform(std::uint64_t seed, std::uint32_t choice,
              std::uint32_t position) asm("__real_" TROUPE_UNIFORM_SYMBOL);

double
shifted_uniform(std::uint64_t seed, std::uint32_t choice,
                std::uint32_t position) asm("__wrap_" TROUPE_UNIFORM_SYMBOL);

double shifted_uniform(std::uint64_t seed, std::uint32_t choice,
                       std::uint32_t position) {
  return right_uniform(seed, choice,
                       position + (is_shifted(seed, choice) ? 1 : 0));
}

} // namespace troupe::test
