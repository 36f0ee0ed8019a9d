#include "engine/ops/cpu/pages.hpp"

#include <sys/mman.h>
#include <utility>

namespace troupe::ops::cpu {

std::optional<pages> pages::allocate(std::uint64_t bytes) {
  constexpr std::uint64_t huge_page = 2u << 20;
  pages made;
  made.size_ = bytes < huge_page
                   ? bytes + (bytes == 0)
                   : (bytes + huge_page - 1) / huge_page * huge_page;
  void* at = mmap(nullptr, made.size_, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) {
    made.size_ = 0;
    return std::nullopt;
  }
  made.data_ = static_cast<std::byte*>(at);
  if (made.size_ >= huge_page)
    madvise(at, made.size_, MADV_HUGEPAGE);
  return made;
}

pages::pages(pages&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {
}

pages& pages::operator=(pages&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

pages::~pages() {
  if (data_ != nullptr)
    munmap(data_, size_);
}

} // namespace troupe::ops::cpu
