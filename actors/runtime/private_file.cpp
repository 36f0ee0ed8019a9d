#include "actors/runtime/private_file.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <sys/stat.h>
#include <unistd.h>

namespace fs = std::filesystem;

namespace troupe::runtime {

namespace {

error file_error(std::string_view what, const fs::path& path) {
  return {errc::io, "cannot " + std::string{what} + " " + path.string() + ": " +
                        std::strerror(errno)};
}

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    auto n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return false;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return ::fsync(fd) == 0;
}

/// Puts the names in a directory on disk.
bool sync_directory(const fs::path& path) {
  int fd = ::open(path.empty() ? "." : path.c_str(),
                  O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return false;
  bool done = ::fsync(fd) == 0;
  ::close(fd);
  return done;
}

} // namespace

result<void> make_private_directory(const fs::path& path) {
  std::error_code failed;
  fs::create_directories(path, failed);
  if (failed)
    return error{errc::io, "cannot make the directory " + path.string() + ": " +
                               failed.message()};
  if (::chmod(path.c_str(), 0700) != 0)
    return file_error("restrict", path);
  return {};
}

result<void> write_private(const fs::path& path, std::string_view text,
                           if_there other) {
  auto draft = path.string() + ".XXXXXX";
  int fd = ::mkostemp(draft.data(), O_CLOEXEC); // mode 0600
  if (fd < 0)
    return file_error("write", path);
  bool done = write_all(fd, text);
  done = ::close(fd) == 0 && done;
  if (done && other == if_there::replace)
    done = ::rename(draft.c_str(), path.c_str()) == 0;
  else if (done)
    done = ::link(draft.c_str(), path.c_str()) == 0 || errno == EEXIST;
  auto why = file_error("write", path);
  ::unlink(draft.c_str());
  if (!done)
    return why;
  if (!sync_directory(path.parent_path()))
    return file_error("write", path);
  return {};
}

result<std::string> read_private(const fs::path& path, std::size_t bytes_max) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0)
    return file_error("read", path);
  if (!S_ISREG(info.st_mode))
    return error{errc::invalid_argument, path.string() + " is not a file"};
  if ((info.st_mode & 077) != 0)
    return error{errc::invalid_argument,
                 path.string() + " is private but others may read it; its mode "
                                 "must be 0600"};
  if (static_cast<std::size_t>(info.st_size) > bytes_max)
    return error{errc::corrupt, path.string() + " is too large"};
  std::ifstream in{path, std::ios::binary};
  std::string text{std::istreambuf_iterator<char>{in}, {}};
  if (!in)
    return error{errc::io, "cannot read " + path.string()};
  return text;
}

} // namespace troupe::runtime
