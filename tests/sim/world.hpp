#pragma once

#include <chrono>
#include <concepts>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

// The simulator: the state machines that Troupe ships, in a world of one
// thread. Everything that could differ from run to run comes from one seed.

namespace troupe::sim {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

/// True time: what passed since the run began. No process sees it; each has a
/// clock of its own (process.hpp).
using instant = nanoseconds;

/// An invariant does not hold. Ends the run.
struct violation {
  std::string invariant; ///< "I2"
  std::string what;      ///< one sentence
};

/// The event queue, ordered by (time, order of arrival), the one source of
/// chance, and the trace of the run.
class world {
public:
  using action = std::function<void()>;

  /// `print`: the trace goes to standard output as well.
  world(std::uint64_t seed, bool print) : print_(print), random_(seed) {
    // nop
  }

  instant now() const {
    return now_;
  }
  void after(nanoseconds, action);
  /// Runs the next event at or before `end`; false if there is none, and then
  /// it is `end`.
  bool step(instant end);

  std::uint64_t random() {
    return random_();
  }
  /// Uniform over 0 .. n - 1; n > 0.
  std::uint64_t below(std::uint64_t n) {
    return random_() % n;
  }
  bool chance(double probability) {
    return static_cast<double>(random_() >> 11) * 0x1p-53 < probability;
  }
  nanoseconds between(nanoseconds low, nanoseconds high);
  template <class List>
  auto& pick(List& from) {
    return from[below(from.size())];
  }

  /// One line of the trace: its hash always, its text if it is printed.
  template <class... Values>
  void trace(std::string_view what, const Values&... values) {
    mix(static_cast<std::uint64_t>(now_.count()));
    mix_text(what);
    (mix_value(values), ...);
    if (!print_)
      return;
    std::printf("%10.3f ms  %.*s", static_cast<double>(now_.count()) / 1e6,
                static_cast<int>(what.size()), what.data());
    (print_value(values), ...);
    std::printf("\n");
  }
  std::uint64_t trace_hash() const {
    return hash_;
  }
  std::uint64_t events() const {
    return events_;
  }

  [[noreturn]] void fail(std::string invariant, std::string what);

private:
  struct event {
    instant when;
    std::uint64_t sequence;
    action what;
  };
  static bool later(const event& a, const event& b) {
    return std::pair{a.when, a.sequence} > std::pair{b.when, b.sequence};
  }

  void mix(std::uint64_t);
  void mix_text(std::string_view);
  template <class T>
  void mix_value(const T& x) {
    if constexpr (std::convertible_to<const T&, std::string_view>)
      mix_text(x);
    else
      mix(static_cast<std::uint64_t>(x));
  }
  template <class T>
  static void print_value(const T& x) {
    if constexpr (std::convertible_to<const T&, std::string_view>)
      std::printf(" %s", std::string{std::string_view{x}}.c_str());
    else if (static_cast<std::uint64_t>(x) >> 32)
      std::printf(" %016llx", static_cast<unsigned long long>(x));
    else
      std::printf(" %llu", static_cast<unsigned long long>(x));
  }

  bool print_;
  std::mt19937_64 random_;
  instant now_{0};
  std::uint64_t sequence_ = 0;
  std::uint64_t events_ = 0;
  std::uint64_t hash_ = 0xcbf29ce484222325;
  std::vector<event> queue_; // a heap, the next one first
};

/// A number that depends on every bit of `x`.
std::uint64_t scramble(std::uint64_t x);

} // namespace troupe::sim
