#include "tests/interpreted_gpu/device.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

namespace troupe::interpreted {

namespace {

using clock = std::chrono::steady_clock;

std::size_t rounded(std::size_t bytes) {
  constexpr auto unit = device_facts::allocation_unit;
  return (bytes + unit - 1) / unit * unit;
}

/// All bits set: floats of every kind are no numbers then.
void* poisoned(std::size_t bytes) {
  void* out = std::aligned_alloc(device_facts::allocation_unit, rounded(bytes));
  if (out != nullptr)
    std::memset(out, 0xff, bytes);
  return out;
}

struct pinned_memory {
  std::mutex mutex;
  std::map<const char*, std::size_t> taken;
};

pinned_memory& pinned() {
  static pinned_memory all;
  return all;
}

} // namespace

// -- devices ------------------------------------------------------------------

int device_count() {
  const char* said = std::getenv("INTERPRETED_GPUS");
  const int there =
      said == nullptr ? 2 : std::clamp(std::atoi(said), 0, devices_most);
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (visible == nullptr)
    return there;
  const std::string_view list{visible};
  const auto listed =
      static_cast<int>(std::count(list.begin(), list.end(), ','));
  return list.empty() ? 0 : std::min(there, listed + 1);
}

device& device_of(int number) {
  static auto* all = [] { // streams may outlive all else
    auto* made = new std::vector<std::unique_ptr<device>>;
    for (int i = 0; i < devices_most; ++i)
      made->push_back(std::make_unique<device>(i));
    return made;
  }();
  return *(*all)[static_cast<std::size_t>(number)];
}

bool is_on_a_device(const void* at, std::size_t bytes) {
  for (int i = 0; i < device_count(); ++i)
    if (device_of(i).holds(at, bytes))
      return true;
  return false;
}

void* device::allocate(std::size_t bytes) {
  std::lock_guard guard{mutex_};
  if (bytes > device_facts::bytes - taken_bytes_)
    return nullptr;
  void* out = poisoned(bytes);
  if (out == nullptr)
    return nullptr;
  taken_[out] = bytes;
  taken_bytes_ += rounded(bytes);
  reached_.add(out, bytes);
  for (auto* other : who_reaches_)
    other->reached_.add(out, bytes);
  return out;
}

bool device::has(void* at) const {
  std::lock_guard guard{mutex_};
  return taken_.count(at) > 0;
}

void device::release(void* at) {
  std::lock_guard guard{mutex_};
  const auto found = taken_.find(at);
  if (found == taken_.end())
    return;
  taken_bytes_ -= rounded(found->second);
  taken_.erase(found);
  reached_.remove(at);
  for (auto* other : who_reaches_)
    other->reached_.remove(at);
  std::free(at);
}

// The lock is held meanwhile, so that none of them ends.
void device::finish() {
  std::lock_guard guard{streams_mutex_};
  for (auto* one : streams_)
    one->drain();
}

bool device::holds(const void* at, std::size_t bytes) const {
  const auto* first = static_cast<const char*>(at);
  std::lock_guard guard{mutex_};
  auto next = taken_.upper_bound(const_cast<void*>(at));
  if (next == taken_.begin())
    return false;
  const auto& [begin, size] = *std::prev(next);
  const auto before =
      static_cast<std::size_t>(first - static_cast<char*>(begin));
  return before <= size && bytes <= size - before;
}

std::size_t device::free_bytes() const {
  std::lock_guard guard{mutex_};
  return device_facts::bytes - taken_bytes_;
}

cudaError_t device::reach(device& other) {
  if (&other == this)
    return cudaErrorInvalidDevice;
  std::lock_guard guard{other.mutex_};
  auto& who = other.who_reaches_;
  if (std::find(who.begin(), who.end(), this) != who.end())
    return cudaErrorPeerAccessAlreadyEnabled;
  who.push_back(this);
  for (const auto& [at, bytes] : other.taken_)
    reached_.add(at, bytes);
  return cudaSuccess;
}

// -- memory of the host -------------------------------------------------------

void* allocate_pinned(std::size_t bytes) {
  void* out = poisoned(bytes);
  if (out == nullptr)
    return nullptr;
  std::lock_guard guard{pinned().mutex};
  pinned().taken[static_cast<const char*>(out)] = bytes;
  for (int i = 0; i < device_count(); ++i)
    device_of(i).reached().add(out, bytes);
  return out;
}

bool release_pinned(void* at) {
  std::lock_guard guard{pinned().mutex};
  if (pinned().taken.erase(static_cast<const char*>(at)) == 0)
    return false;
  for (int i = 0; i < device_count(); ++i)
    device_of(i).reached().remove(at);
  std::free(at);
  return true;
}

bool is_pinned(const void* at, std::size_t bytes) {
  const auto* byte = static_cast<const char*>(at);
  std::lock_guard guard{pinned().mutex};
  auto next = pinned().taken.upper_bound(byte);
  return next != pinned().taken.begin() &&
         byte + bytes <= std::prev(next)->first + std::prev(next)->second;
}

bool touches_pinned(const void* at, std::size_t bytes) {
  const auto* byte = static_cast<const char*>(at);
  std::lock_guard guard{pinned().mutex};
  for (const auto& [begin, size] : pinned().taken)
    if (byte < begin + size && begin < byte + bytes)
      return true;
  return false;
}

// -- streams ------------------------------------------------------------------

stream::stream(device& of) : of_(of), worker_([this] { run(); }) {
  std::lock_guard guard{of_.streams_mutex_};
  of_.streams_.push_back(this);
}

stream::~stream() {
  {
    std::lock_guard guard{of_.streams_mutex_};
    std::erase(of_.streams_, this);
  }
  {
    std::lock_guard guard{mutex_};
    is_over_ = true;
  }
  changed_.notify_all();
  worker_.join();
}

void stream::run() {
  std::unique_lock guard{mutex_};
  for (;;) {
    changed_.wait(guard, [this] { return is_over_ || !waiting_.empty(); });
    if (waiting_.empty())
      return;
    auto next = std::move(waiting_.front());
    waiting_.pop_front();
    is_busy_ = true;
    guard.unlock();
    try {
      next();
    } catch (const std::exception& why) {
      std::fprintf(stderr, "interpreted GPU %d: %s\n", of_.number(),
                   why.what());
      of_.fail(cudaErrorLaunchFailure);
    }
    guard.lock();
    is_busy_ = false;
    changed_.notify_all();
  }
}

ptx::unfinished_writes& stream::unfinished() {
  thread_local ptx::unfinished_writes of_this_worker;
  return of_this_worker;
}

cudaError_t stream::add(work what) {
  std::unique_lock guard{mutex_};
  if (is_captured_) {
    if (std::this_thread::get_id() != capturer_) {
      is_spoiled_ = true;
      return cudaErrorStreamCaptureWrongThread;
    }
    captured_.push_back(std::move(what));
    return cudaSuccess;
  }
  if (of_.failure() != cudaSuccess)
    return of_.failure();
  changed_.wait(guard, [this] { return waiting_.size() < most_waiting; });
  waiting_.push_back(std::move(what));
  changed_.notify_all();
  return cudaSuccess;
}

cudaError_t stream::wait() {
  std::unique_lock guard{mutex_};
  if (is_captured_) {
    is_spoiled_ = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  changed_.wait(guard, [this] { return waiting_.empty() && !is_busy_; });
  return of_.failure();
}

void stream::drain() {
  std::unique_lock guard{mutex_};
  changed_.wait(guard, [this] { return waiting_.empty() && !is_busy_; });
}

cudaError_t stream::begin_capture() {
  std::lock_guard guard{mutex_};
  if (is_captured_)
    return cudaErrorIllegalState;
  is_captured_ = true;
  is_spoiled_ = false;
  capturer_ = std::this_thread::get_id();
  captured_.clear();
  return cudaSuccess;
}

cudaError_t stream::end_capture(std::vector<work>& out) {
  std::lock_guard guard{mutex_};
  if (!is_captured_)
    return cudaErrorIllegalState;
  is_captured_ = false;
  out = std::move(captured_);
  return is_spoiled_ ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
}

bool stream::is_captured() const {
  std::lock_guard guard{mutex_};
  return is_captured_;
}

cudaError_t stream::spoil_capture() {
  std::lock_guard guard{mutex_};
  is_spoiled_ = true;
  return cudaErrorStreamCaptureUnsupported;
}

// -- events -------------------------------------------------------------------

struct event::state {
  mutable std::mutex mutex;
  std::condition_variable changed;
  std::uint64_t recorded = 0, passed = 0;
  clock::time_point when{};
};

std::shared_ptr<event::state> event::make() {
  return std::make_shared<state>();
}

work event::record() {
  std::lock_guard guard{state_->mutex};
  return [state = state_, turn = ++state_->recorded] {
    {
      std::lock_guard inner{state->mutex};
      state->passed = std::max(state->passed, turn);
      state->when = clock::now();
    }
    state->changed.notify_all();
  };
}

void event::wait() {
  std::unique_lock guard{state_->mutex};
  state_->changed.wait(guard,
                       [this] { return state_->passed >= state_->recorded; });
}

bool event::is_recorded() const {
  std::lock_guard guard{state_->mutex};
  return state_->recorded > 0;
}

bool event::is_passed() const {
  std::lock_guard guard{state_->mutex};
  return state_->passed >= state_->recorded;
}

double event::seconds_since(const event& other) const {
  std::scoped_lock guard{state_->mutex, other.state_->mutex};
  return std::chrono::duration<double>(state_->when - other.state_->when)
      .count();
}

} // namespace troupe::interpreted
