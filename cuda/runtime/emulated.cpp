#include "cuda/runtime/emulated.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <type_traits>
#include <ucontext.h>
#include <utility>

namespace troupe::cuda {

namespace {

// Not a power of two: what the threads of a warp do at the same depth is not to
// share the few places that a cache has for addresses so far apart.
constexpr std::size_t stack_bytes = (64 << 10) + 17 * 64;

/// Where a fiber, or who runs it, goes on.
using place = void* [5];

// (A sanitizer would think that a jump leaves what is on the stack.)
[[noreturn, gnu::noipa, gnu::no_sanitize_address]] void jump(place& there) {
  __builtin_longjmp(there, 1);
}

/// Returns when somebody goes to `here`, which is not `there`. (The library's
/// jumps, and far more so ucontext, take longer than most of what is done in
/// between; so would `jump`, whose call no return answers.)
[[gnu::noipa, gnu::no_sanitize_address]] void go(place& here, place& there) {
  if (__builtin_setjmp(here) != 0)
    return;
  // Never. But were no function called that may jump back, the compiler would
  // think that nobody does.
  if (&here == &there)
    jump(there);
  __builtin_longjmp(there, 1);
}

} // namespace

struct emulated_block::fibers {
  struct fiber {
    place goes_on;
    bool ended = true;
    wait waits_for = wait::block;
  };

  explicit fibers(unsigned threads);

  static void enter(unsigned high, unsigned low);
  /// To the next of the warp, behind its last to who runs it.
  void next();
  /// Throws if they do not all wait for the same, or are at their end.
  void check_same(unsigned begin, unsigned end) const;
  /// Until it waits for the block.
  void run_warp(unsigned begin);

  std::vector<fiber> all;
  std::unique_ptr<char[]> stacks; // not touched before it is used
  place scheduler;
  unsigned current = 0;
  const std::function<void(unsigned)>* body = nullptr;
};

// Each is run up to where it waits for its first body.
emulated_block::fibers::fibers(unsigned threads)
    : all(threads), stacks(new char[threads * stack_bytes]) {
  const auto address = reinterpret_cast<std::uintptr_t>(this);
  for (current = 0; current < threads; ++current) {
    ucontext_t begin;
    getcontext(&begin);
    begin.uc_stack.ss_sp = stacks.get() + current * stack_bytes;
    begin.uc_stack.ss_size = stack_bytes;
    begin.uc_link = nullptr;
    // A fiber's arguments are ints: the address comes in two.
    makecontext(&begin, reinterpret_cast<void (*)()>(enter), 2,
                static_cast<unsigned>(address >> 32),
                static_cast<unsigned>(address));
    if (__builtin_setjmp(scheduler) == 0)
      setcontext(&begin);
  }
}

void emulated_block::fibers::enter(unsigned high, unsigned low) {
  auto address = std::uintptr_t{high} << 32 | low;
  auto& self = *reinterpret_cast<fibers*>(address);
  const auto own = self.current;
  go(self.all[own].goes_on, self.scheduler);
  for (;;) {
    (*self.body)(own);
    self.all[own].ended = true;
    self.next();
  }
}

void emulated_block::fibers::next() {
  auto& own = all[current++];
  go(own.goes_on, current % warp_size == 0 ? scheduler : all[current].goes_on);
}

void emulated_block::fibers::check_same(unsigned begin, unsigned end) const {
  for (unsigned i = begin; i < end; ++i)
    if (all[i].ended != all[begin].ended ||
        (!all[i].ended && all[i].waits_for != all[begin].waits_for))
      throw std::logic_error{
          "threads of a block wait for different things: a GPU would hang"};
}

void emulated_block::fibers::run_warp(unsigned begin) {
  do {
    current = begin;
    go(scheduler, all[begin].goes_on);
    check_same(begin, begin + warp_size);
  } while (!all[begin].ended && all[begin].waits_for == wait::warp);
}

emulated_block::emulated_block(unsigned threads)
    : exchange_(2 * threads / warp_size) {
  if (threads == 0 || threads % warp_size != 0)
    throw std::logic_error{"a block has whole warps"};
  fibers_ = std::make_unique<fibers>(threads);
}

emulated_block::~emulated_block() = default;

void emulated_block::run(const std::function<void(unsigned)>& body) {
  auto& f = *fibers_;
  const auto threads = static_cast<unsigned>(f.all.size());
  f.body = &body;
  for (auto& one : f.all) {
    one.ended = false;
    one.waits_for = wait::block;
  }
  while (!f.all[0].ended) {
    for (unsigned begin = 0; begin < threads; begin += warp_size)
      f.run_warp(begin);
    f.check_same(0, threads);
  }
}

bool emulated_block::has_ended() const {
  return std::ranges::all_of(fibers_->all, &fibers::fiber::ended);
}

void emulated_block::arrive(wait what) {
  auto& f = *fibers_;
  f.all[f.current].waits_for = what;
  f.next();
}

namespace {

/// Eight numbers, or words.
using floats [[gnu::vector_size(32)]] = float;
using words [[gnu::vector_size(32)]] = std::uint32_t;
using halves [[gnu::vector_size(16)]] = std::uint16_t;

/// As `to_float` does.
template <class Stored>
[[gnu::always_inline]] inline void widen(const void* from, float* to) {
  halves some;
  std::memcpy(&some, from, sizeof some);
  const auto bits = __builtin_convertvector(some, words);
  floats out;
  if constexpr (std::is_same_v<Stored, bf16>) {
    out = reinterpret_cast<floats>(bits << 16);
  } else {
    const words sign = (bits & 0x8000u) << 16;
    const words rest = (bits & 0x7fffu) << 13;
    const words finite = reinterpret_cast<words>(
        reinterpret_cast<floats>(sign | rest) * 0x1p112f);
    out = reinterpret_cast<floats>(
        rest >= 0x7c00u << 13 ? (sign | 0x7f800000u | rest) : finite);
  }
  std::memcpy(to, &out, sizeof out);
}

template <class Stored>
[[gnu::always_inline]] inline void add_products(emulated_block::shown& all) {
  float a[16][16], b[16][8];
  for (unsigned i = 0; i < 4; ++i)
    for (unsigned g = 0; g < 8; ++g)
      widen<Stored>(all.a[i] + 4 * g, a[g + i % 2 * 8] + i / 2 * 8);
  for (unsigned k = 0; k < 16; ++k)
    widen<Stored>(all.b[k], b[k]);
  for (unsigned row = 0; row < 16; row += 4) {
    floats sums[4];
    std::memcpy(sums, all.sums[row], sizeof sums);
#pragma GCC unroll 16
    for (unsigned k = 0; k < 16; ++k) {
      floats of_b;
      std::memcpy(&of_b, b[k], sizeof of_b);
#pragma GCC unroll 4
      for (unsigned r = 0; r < 4; ++r)
        sums[r] += a[row + r][k] * of_b;
    }
    std::memcpy(all.sums[row], sums, sizeof sums);
  }
}

#ifdef __x86_64__
template <class Stored>
[[gnu::target("avx2")]] void add_products_by_avx2(emulated_block::shown& all) {
  add_products<Stored>(all);
}
#endif

/// The bits are the same: neither fuses anything.
template <class Stored>
void add_products_by_any(emulated_block::shown& all) {
#ifdef __x86_64__
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  if (has_avx2)
    return add_products_by_avx2<Stored>(all);
#endif
  add_products<Stored>(all);
}

} // namespace

void multiply_add(emulated_block::shown& all, f16) {
  add_products_by_any<f16>(all);
}
void multiply_add(emulated_block::shown& all, bf16) {
  add_products_by_any<bf16>(all);
}

emulated_device::~emulated_device() {
  // Whoever is gone has waited, or nobody looks at what is left.
  queue_.clear();
}

emulated_block& emulated_device::block_of(unsigned threads) {
  auto& found = blocks_[threads];
  if (!found || !found->has_ended())
    found = std::make_unique<emulated_block>(threads);
  return *found;
}

void* emulated_device::allocate(std::size_t bytes) {
  check_not_captured("memory is taken");
  auto* out = ::operator new(bytes);
  sizes_.emplace(out, bytes);
  count(bytes);
  return out;
}

void emulated_device::count(std::size_t bytes) {
  bytes_ += bytes;
  if (auto* usage = how_.usage) {
    ++usage->allocations;
    usage->bytes = bytes_;
    usage->bytes_most = std::max(usage->bytes_most, bytes_);
  }
}

std::shared_ptr<void> emulated_device::allocate_shared(std::size_t bytes) {
  check_not_captured("memory is taken");
  count(bytes);
  return {::operator new(bytes),
          [](void* memory) { ::operator delete(memory); }};
}

void emulated_device::release(void* memory) {
  run_out();
  auto found = sizes_.find(memory);
  bytes_ -= found->second;
  if (how_.usage != nullptr)
    how_.usage->bytes = bytes_;
  sizes_.erase(found);
  ::operator delete(memory);
}

void* emulated_device::allocate_host(std::size_t bytes) {
  check_not_captured("memory is taken");
  if (how_.usage != nullptr)
    ++how_.usage->allocations;
  return ::operator new(bytes);
}

void emulated_device::release_host(void* memory) {
  run_out();
  ::operator delete(memory);
}

void emulated_device::check_not_captured(const char* what) const {
  if (captured_ != nullptr)
    throw std::logic_error{std::string{what} + " while a graph is captured"};
}

void emulated_device::enqueue(std::function<void()> what) {
  if (captured_ != nullptr)
    return captured_->push_back(std::move(what));
  ++enqueued_;
  queue_.push_back(std::move(what));
  if (!how_.is_late)
    run_until(enqueued_);
}

// After a failure nothing is left to be done.
void emulated_device::run_until(std::uint64_t done) {
  try {
    while (done_ < done) {
      const auto next = std::move(queue_.front());
      queue_.pop_front();
      ++done_;
      next();
    }
  } catch (...) {
    queue_.clear();
    done_ = enqueued_;
    throw;
  }
}

void emulated_device::run_out() noexcept {
  try {
    run_until(enqueued_);
  } catch (const std::exception&) {
    // Nobody waits for it.
  }
}

void emulated_device::record(event& here) {
  check_not_captured("an event is recorded");
  here.after = enqueued_;
}

void emulated_device::wait(const event& there) {
  check_not_captured("somebody waits");
  run_until(there.after);
}

std::optional<emulated_device::graph>
emulated_device::capture(const std::function<void()>& calls) {
  graph out;
  captured_ = &out;
  try {
    calls();
  } catch (...) {
    captured_ = nullptr;
    throw;
  }
  captured_ = nullptr;
  if (how_.has_no_graphs)
    return std::nullopt;
  if (how_.usage != nullptr)
    ++how_.usage->captures;
  return out;
}

void emulated_device::launch(const graph& what) {
  if (how_.usage != nullptr)
    ++how_.usage->replays;
  for (const auto& one : what)
    enqueue(one);
}

namespace {

constexpr std::uint64_t by_company = 1, failing = 2, good = 3;

template <class Stored>
float product_of(const product& of, std::int64_t row, std::int64_t output) {
  const auto cols = of.shape.cols;
  const auto* x = static_cast<const Stored*>(of.x) + row * cols;
  const auto* weight = static_cast<const Stored*>(of.weight) + output * cols;
  float sum = 0;
  for (std::int64_t i = 0; i < cols; ++i)
    sum += to_float(x[i]) * to_float(weight[i]);
  return sum;
}

/// `off`: by the last bit.
template <class Stored>
void multiply_rows(const product& what, bool off) {
  for (std::int64_t r = 0; r < what.rows; ++r)
    for (std::int64_t o = 0; o < what.shape.outputs; ++o) {
      auto& to = what.y[r * what.shape.outputs + o];
      const auto sum = product_of<Stored>(what, r, o);
      to = (off ? std::nextafter(sum, 0.0f) : sum) + (what.add ? to : 0);
    }
}

} // namespace

std::vector<product_algorithm>
emulated_device::product_algorithms(const product_shape&, std::size_t) {
  if (!how_.has_library)
    return {};
  return {{by_company}, {failing}, {good}};
}

bool emulated_device::multiply(const product_algorithm& algorithm,
                               const product& what) {
  if (algorithm[0] == failing)
    return false;
  if (how_.usage != nullptr)
    ++how_.usage->products;
  // Our own kernel's work is 4 per output and row, but that of 32 rows at
  // least.
  const auto rows = std::max<std::int64_t>(what.rows, 960);
  const auto all = static_cast<std::uint64_t>(rows * what.shape.outputs);
  work_ += algorithm[0] == good ? all / 4 : all / 8;
  if (only_counts_)
    return true;
  const bool off = algorithm[0] == by_company && what.rows < 17;
  enqueue([what, off] {
    if (what.shape.kind == ops::library_kind::f16)
      multiply_rows<f16>(what, off);
    else
      multiply_rows<bf16>(what, off);
  });
  return true;
}

void emulated_device::zero(void* memory, std::size_t bytes) {
  check_not_captured("memory is cleared");
  enqueue([=] { std::memset(memory, 0, bytes); });
}

void emulated_device::copy_in(void* to, const void* from, std::size_t bytes) {
  check_not_captured("a copy is made");
  if (bytes == 0)
    return;
  const auto* begin = static_cast<const std::byte*>(from);
  enqueue([to, all = std::vector<std::byte>(begin, begin + bytes)] {
    std::memcpy(to, all.data(), all.size());
  });
}

void emulated_device::copy_out(void* to, const void* from, std::size_t bytes) {
  check_not_captured("a copy is made");
  run_until(enqueued_);
  if (bytes > 0)
    std::memcpy(to, from, bytes);
}

void emulated_device::send(void* to, const void* from, std::size_t bytes) {
  check_not_captured("a copy is made");
  if (bytes > 0)
    enqueue([=] { std::memcpy(to, from, bytes); });
}

void emulated_device::receive(void* to, const void* from, std::size_t bytes) {
  send(to, from, bytes);
}

void emulated_device::copy_within(void* to, const void* from,
                                  std::size_t bytes) {
  send(to, from, bytes);
}

} // namespace troupe::cuda
