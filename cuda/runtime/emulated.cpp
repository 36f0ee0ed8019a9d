#include "cuda/runtime/emulated.hpp"

#include <cmath>
#include <csetjmp>
#include <cstring>
#include <string>
#include <ucontext.h>
#include <utility>

namespace troupe::cuda {

namespace {

constexpr std::size_t stack_bytes = 64 << 10;

} // namespace

struct emulated_block::fibers {
  /// Made by makecontext, which asks the kernel twice a switch; so everything
  /// but the first step into it is a jump.
  struct fiber {
    ucontext_t context;
    std::jmp_buf place;
    bool begun = false;
    bool ended = false;
    wait waits_for = wait::block;
  };

  explicit fibers(unsigned threads)
      : all(threads), stacks(new char[threads * stack_bytes]) {
    for (auto& one : all)
      getcontext(&one.context);
  }

  static void enter(unsigned high, unsigned low);
  void make_ready(unsigned i);
  void run_current();
  void back_to_scheduler();
  /// Throws if they do not all wait for the same, or are at their end.
  void check_same(unsigned begin, unsigned end) const;
  /// Until it waits for the block.
  void run_warp(unsigned begin);

  std::vector<fiber> all;
  std::unique_ptr<char[]> stacks; // not touched before it is used
  std::jmp_buf scheduler;
  unsigned current = 0;
  const std::function<void(unsigned)>* body = nullptr;
};

// A fiber's arguments are ints: the address comes in two.
void emulated_block::fibers::enter(unsigned high, unsigned low) {
  auto address = std::uintptr_t{high} << 32 | low;
  auto& self = *reinterpret_cast<fibers*>(address);
  auto& own = self.all[self.current];
  (*self.body)(self.current);
  own.ended = true;
  self.back_to_scheduler();
}

void emulated_block::fibers::run_current() {
  auto& own = all[current];
  if (_setjmp(scheduler) != 0)
    return; // it has come back
  if (std::exchange(own.begun, true))
    std::longjmp(own.place, 1);
  setcontext(&own.context);
}

void emulated_block::fibers::back_to_scheduler() {
  auto& own = all[current];
  if (_setjmp(own.place) == 0)
    std::longjmp(scheduler, 1);
}

void emulated_block::fibers::make_ready(unsigned i) {
  all[i].begun = all[i].ended = false;
  all[i].waits_for = wait::block;
  auto& one = all[i].context;
  one.uc_stack.ss_sp = stacks.get() + i * stack_bytes;
  one.uc_stack.ss_size = stack_bytes;
  one.uc_link = nullptr;
  auto address = reinterpret_cast<std::uintptr_t>(this);
  makecontext(&one, reinterpret_cast<void (*)()>(enter), 2,
              static_cast<unsigned>(address >> 32),
              static_cast<unsigned>(address));
}

void emulated_block::fibers::check_same(unsigned begin, unsigned end) const {
  for (unsigned i = begin; i < end; ++i)
    if (all[i].ended != all[begin].ended ||
        all[i].waits_for != all[begin].waits_for)
      throw std::logic_error{
          "threads of a block wait for different things: a GPU would hang"};
}

void emulated_block::fibers::run_warp(unsigned begin) {
  do {
    for (current = begin; current < begin + warp_size; ++current)
      run_current();
    check_same(begin, begin + warp_size);
  } while (!all[begin].ended && all[begin].waits_for == wait::warp);
}

emulated_block::emulated_block(unsigned threads)
    : fibers_(std::make_unique<fibers>(threads)),
      exchange_(2 * threads / warp_size) {
  if (threads == 0 || threads % warp_size != 0)
    throw std::logic_error{"a block has whole warps"};
}

emulated_block::~emulated_block() = default;

void emulated_block::run(const std::function<void(unsigned)>& body) {
  auto& f = *fibers_;
  const auto threads = static_cast<unsigned>(f.all.size());
  f.body = &body;
  for (unsigned i = 0; i < threads; ++i)
    f.make_ready(i);
  while (!f.all[0].ended) {
    for (unsigned begin = 0; begin < threads; begin += warp_size)
      f.run_warp(begin);
    f.check_same(0, threads);
  }
}

void emulated_block::arrive(wait what) {
  auto& f = *fibers_;
  f.all[f.current].waits_for = what;
  f.back_to_scheduler();
}

emulated_device::~emulated_device() {
  // Whoever is gone has waited, or nobody looks at what is left.
  queue_.clear();
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
