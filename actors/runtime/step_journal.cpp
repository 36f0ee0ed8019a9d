#include "actors/runtime/step_journal.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <new>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace troupe::runtime {

/// The file: this, then the members. They count only if `count` says so, and
/// it says so only while they are whole.
struct step_journal::page {
  std::uint64_t kind;
  std::uint64_t members_max;
  std::atomic<std::uint64_t> count; ///< of the running step; 0 = none runs

  step_member* members() {
    return reinterpret_cast<step_member*>(this + 1);
  }
};

namespace {

constexpr std::uint64_t journal_kind = 0x316c6e726a707374; // "tspjrnl1"
constexpr std::size_t members_bound = std::size_t{1} << 20;

struct head {
  std::uint64_t kind = 0;
  std::uint64_t members_max = 0;
  std::uint64_t count = 0;
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(sizeof(std::atomic<std::uint64_t>) == sizeof(std::uint64_t));
static_assert(sizeof(step_member) == 16);

class open_file {
public:
  open_file(const std::filesystem::path& path, int flags)
      : fd_(::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0600)) {
    // nop
  }

  open_file(const open_file&) = delete;
  open_file& operator=(const open_file&) = delete;

  ~open_file() {
    if (fd_ >= 0)
      ::close(fd_);
  }

  int get() const {
    return fd_;
  }

private:
  int fd_;
};

error failure(const std::filesystem::path& path, int number) {
  return {number == ENOENT ? errc::not_found : errc::io,
          "step journal '" + path.string() + "': " + std::strerror(number)};
}

error broken(const std::filesystem::path& path) {
  return {errc::corrupt,
          "step journal '" + path.string() + "' says what cannot be"};
}

bool read_at(int fd, std::size_t offset, void* to, std::size_t size) {
  auto* at = static_cast<char*>(to);
  while (size > 0) {
    auto n = ::pread(fd, at, size, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return false;
    at += n;
    offset += static_cast<std::size_t>(n);
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

} // namespace

result<std::unique_ptr<step_journal>>
step_journal::create(const std::filesystem::path& path,
                     std::size_t members_max) {
  if (members_max == 0 || members_max > members_bound)
    return error{errc::invalid_argument, "a step journal holds between 1 and " +
                                             std::to_string(members_bound) +
                                             " choices"};
  open_file file{path, O_RDWR | O_CREAT | O_EXCL};
  if (file.get() < 0)
    return failure(path, errno);
  auto bytes = sizeof(page) + members_max * sizeof(step_member);
  // Not ftruncate: on a full disk a write into a hole would be a SIGBUS.
  if (int number = ::posix_fallocate(file.get(), 0, static_cast<off_t>(bytes));
      number != 0)
    return failure(path, number);
  void* where =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (where == MAP_FAILED)
    return failure(path, errno);
  auto* made = new (where) page{journal_kind, members_max, 0};
  return std::unique_ptr<step_journal>{
      new step_journal{made, bytes, members_max}};
}

step_journal::step_journal(page* where, std::size_t bytes,
                           std::size_t members_max)
    : page_(where), bytes_(bytes), members_max_(members_max) {
  // nop
}

step_journal::~step_journal() {
  ::munmap(page_, bytes_);
}

// Its reader comes after the process: all that matters is the order in which
// this thread's writes are made.

void step_journal::begin(std::span<const step_member> step) {
  end();
  std::atomic_thread_fence(std::memory_order_release);
  auto count = std::min(step.size(), members_max_);
  std::copy_n(step.begin(), count, page_->members());
  page_->count.store(count, std::memory_order_release);
}

void step_journal::end() {
  page_->count.store(0, std::memory_order_release);
}

result<std::vector<step_member>>
read_step_journal(const std::filesystem::path& path) {
  open_file file{path, O_RDONLY | O_NONBLOCK};
  if (file.get() < 0)
    return failure(path, errno);
  struct stat found {};
  if (::fstat(file.get(), &found) != 0)
    return failure(path, errno);
  // Read, not mapped: it may be cut short at any time.
  head from;
  if (!S_ISREG(found.st_mode) || !read_at(file.get(), 0, &from, sizeof from) ||
      from.kind != journal_kind || from.members_max > members_bound ||
      from.count > from.members_max ||
      static_cast<std::uint64_t>(found.st_size) !=
          sizeof from + from.members_max * sizeof(step_member))
    return broken(path);
  std::vector<step_member> out(from.count);
  if (!read_at(file.get(), sizeof from, out.data(),
               out.size() * sizeof(step_member)))
    return broken(path);
  return out;
}

} // namespace troupe::runtime
