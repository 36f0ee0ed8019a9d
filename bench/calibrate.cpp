// Additions that wait for each other, on every core at once, for a second:
// what this machine gives in this second. Prints G additions/s, one per core.
// Absolute rates of a benchmark say nothing without it: on shared machines it
// swings by a factor of two.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <thread>
#include <vector>

namespace {

double rate() {
  using clock = std::chrono::steady_clock;
  constexpr std::uint64_t round = 10'000'000;
  auto begin = clock::now();
  std::uint64_t value = 0;
  std::uint64_t done = 0;
  std::chrono::duration<double> passed{};
  while (passed.count() < 1) {
    for (std::uint64_t i = 0; i < round; ++i)
      asm volatile("add $1, %0" : "+r"(value));
    done += round;
    passed = clock::now() - begin;
  }
  return static_cast<double>(done) / passed.count() / 1e9;
}

} // namespace

int main() {
  std::vector<double> rates(std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  for (auto& one : rates)
    threads.emplace_back([&one] { one = rate(); });
  for (auto& one : threads)
    one.join();
  for (auto one : rates)
    std::printf("%.2f ", one);
  std::printf("\n");
}
