#include "engine/weights/mapped_file.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace troupe::weights {

namespace {

std::int64_t changed_at_ns(const struct stat& status) {
  return std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 +
         status.st_mtim.tv_nsec;
}

error failure(const std::filesystem::path& path, const std::string& reason) {
  return {errno == ENOENT ? errc::not_found : errc::io,
          path.filename().string() + ": " + reason};
}

} // namespace

result<mapped_file> mapped_file::open(const std::filesystem::path& path) {
  mapped_file file;
  errno = 0;
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  file.descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file.descriptor_ < 0)
    return failure(path, std::string{"cannot open: "} + std::strerror(errno));
  struct stat status {};
  if (::fstat(file.descriptor_, &status) != 0)
    return failure(path, std::string{"cannot stat: "} + std::strerror(errno));
  if (!S_ISREG(status.st_mode))
    return failure(path, "not a regular file");
  if (status.st_size == 0)
    return error{errc::corrupt, path.filename().string() + ": empty file"};
  auto size = static_cast<std::size_t>(status.st_size);
  void* data =
      ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.descriptor_, 0);
  if (data == MAP_FAILED)
    return failure(path, std::string{"cannot map: "} + std::strerror(errno));
  ::madvise(data, size, MADV_WILLNEED);
  file.bytes_ = {static_cast<const std::byte*>(data), size};
  file.changed_at_ns_ = changed_at_ns(status);
  return file;
}

mapped_file::mapped_file(mapped_file&& other) noexcept {
  *this = std::move(other);
}

mapped_file& mapped_file::operator=(mapped_file&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(bytes_, other.bytes_);
  std::swap(changed_at_ns_, other.changed_at_ns_);
  return *this;
}

mapped_file::~mapped_file() {
  if (!bytes_.empty())
    ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  if (descriptor_ >= 0)
    ::close(descriptor_);
}

bool mapped_file::changed() const {
  if (descriptor_ < 0)
    return false;
  struct stat status {};
  return ::fstat(descriptor_, &status) != 0 ||
         static_cast<std::size_t>(status.st_size) != bytes_.size() ||
         changed_at_ns(status) != changed_at_ns_;
}

} // namespace troupe::weights
