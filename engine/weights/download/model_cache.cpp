#include "engine/weights/download/model_cache.hpp"

#include "engine/weights/download/model_reference.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <random>
#include <sys/file.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace troupe::download {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t names_max = listing_limits::files;

error failure(const fs::path& path, const std::string& what) {
  return {errc::io, fmt::format("{}: {}", path.string(), what)};
}

result<void> make_directory(const fs::path& path) {
  std::error_code why;
  fs::create_directories(path, why);
  if (why)
    return failure(path, "cannot be made: " + why.message());
  return {};
}

/// A name beside `path` that nobody else uses, also no container with ids of
/// its own.
fs::path beside(const fs::path& path) {
  std::random_device random;
  auto out = path;
  out += fmt::format(".{:08x}{:08x}.tmp", random(), random());
  return out;
}

/// Puts `text` where `at` is, whole or not at all.
result<void> put_text(const fs::path& at, const std::string& text) {
  if (auto made = make_directory(at.parent_path()); !made)
    return made;
  auto fresh = beside(at);
  std::ofstream file{fresh, std::ios::binary | std::ios::trunc};
  file << text;
  file.close();
  std::error_code why;
  if (file)
    fs::rename(fresh, at, why);
  if (file && !why)
    return {};
  fs::remove(fresh, why);
  return failure(at, "cannot be written");
}

} // namespace

file_lock::file_lock(file_lock&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)) {
  // nop
}

file_lock& file_lock::operator=(file_lock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

file_lock::~file_lock() {
  if (descriptor_ >= 0)
    ::close(descriptor_);
}

result<std::optional<file_lock>> file_lock::try_take(const fs::path& path) {
  int descriptor =
      ::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
  if (descriptor < 0)
    return failure(path,
                   std::string{"cannot be opened: "} + std::strerror(errno));
  file_lock held{descriptor};
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK || errno == EINTR)
      return std::optional<file_lock>{};
    return failure(path,
                   std::string{"cannot be locked: "} + std::strerror(errno));
  }
  // Whoever held it may have removed it: then this is a lock of nothing.
  struct stat mine {};
  struct stat there {};
  if (::fstat(descriptor, &mine) != 0 || ::stat(path.c_str(), &there) != 0 ||
      mine.st_ino != there.st_ino || mine.st_dev != there.st_dev)
    return std::optional<file_lock>{};
  return std::optional{std::move(held)};
}

bool is_version(std::string_view text) {
  return is_hex(text, 40) || is_hex(text, 64);
}

std::string model_cache::hub_folder(std::string_view id) {
  std::string out{"models--"};
  for (char c : id)
    if (c == '/')
      out += "--";
    else
      out += c;
  return out;
}

model_cache::model_cache(fs::path root, std::string folder)
    : root_(std::move(root)), folder_(root_ / folder),
      locks_(root_ / ".locks" / folder) {
  // nop
}

fs::path model_cache::blob(const remote_file& file) const {
  return folder_ / "blobs" / file.blob;
}

fs::path model_cache::partial(const remote_file& file) const {
  return folder_ / "blobs" / (file.blob + ".troupe.incomplete");
}

fs::path model_cache::lock(const remote_file& file) const {
  return locks_ / (file.blob + ".lock");
}

fs::path model_cache::snapshot(const std::string& version) const {
  return folder_ / "snapshots" / version;
}

bool model_cache::has_blob(const remote_file& file) const {
  struct stat found {};
  return ::lstat(blob(file).c_str(), &found) == 0 && S_ISREG(found.st_mode) &&
         static_cast<std::uint64_t>(found.st_size) == file.size;
}

std::uint64_t model_cache::blob_inode(const remote_file& file) const {
  struct stat found {};
  return ::lstat(blob(file).c_str(), &found) == 0 ? found.st_ino : 0;
}

result<void> model_cache::drop_blob(const remote_file& file) const {
  std::error_code why;
  fs::remove(blob(file), why);
  if (why)
    return failure(blob(file), "cannot be removed: " + why.message());
  return {};
}

result<void> model_cache::make_directories(const std::string& version) const {
  for (const auto& path : {folder_ / "blobs", locks_, snapshot(version)})
    if (auto made = make_directory(path); !made)
      return made;
  return {};
}

result<void> model_cache::link(const std::string& version,
                               const remote_file& file) const {
  auto at = snapshot(version) / file.name;
  if (auto made = make_directory(at.parent_path()); !made)
    return made;
  auto depth = 2 + std::count(file.name.begin(), file.name.end(), '/');
  fs::path target;
  for (auto i = depth; i > 0; --i)
    target /= "..";
  target /= fs::path{"blobs"} / file.blob;
  std::error_code why;
  if (fs::read_symlink(at, why) == target && !why)
    return {};
  auto fresh = beside(at);
  fs::create_symlink(target, fresh, why);
  if (!why)
    fs::rename(fresh, at, why);
  if (why)
    return failure(at, "cannot be linked: " + why.message());
  return {};
}

result<void> model_cache::set_ref(const std::string& revision,
                                  const std::string& version) const {
  return put_text(folder_ / "refs" / revision, version);
}

result<void> model_cache::set_offer(const std::string& version,
                                    const name_list& names) const {
  return put_text(folder_ / ".troupe" / version,
                  fmt::format("{}\n", fmt::join(names, "\n")));
}

name_list model_cache::offer_of(const std::string& version) const {
  std::ifstream file{folder_ / ".troupe" / version, std::ios::binary};
  name_list out;
  std::string name;
  while (out.size() < names_max && std::getline(file, name)) {
    if (!is_safe_name(name))
      return {}; // not written by us
    out.push_back(name);
  }
  return out;
}

std::string model_cache::version_of(const std::string& revision) const {
  if (is_version(revision))
    return revision;
  std::ifstream file{folder_ / "refs" / revision, std::ios::binary};
  std::string out(65, '\0');
  file.read(out.data(), static_cast<std::streamsize>(out.size()));
  out.resize(
      static_cast<std::size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  while (!out.empty() && (out.back() == '\n' || out.back() == '\r'))
    out.pop_back();
  return is_version(out) ? out : std::string{};
}

name_list model_cache::names_in(const std::string& version) const {
  name_list out;
  auto top = snapshot(version);
  std::error_code why;
  fs::recursive_directory_iterator entry{top, why};
  for (; !why && entry != fs::recursive_directory_iterator{};
       entry.increment(why)) {
    if (out.size() >= names_max)
      break;
    std::error_code ignored;
    if (entry->is_directory(ignored)) {
      if (entry.depth() > 0 || entry->is_symlink(ignored))
        entry.disable_recursion_pending();
      continue;
    }
    out.push_back(entry->path().lexically_relative(top).string());
  }
  std::sort(out.begin(), out.end());
  return out;
}

result<void> model_cache::check_entry(const std::string& version,
                                      const std::string& name) const {
  auto at = snapshot(version) / name;
  std::error_code why;
  auto real = fs::canonical(at, why);
  auto root = why ? fs::path{} : fs::canonical(root_, why);
  if (why || !fs::is_regular_file(real, why))
    return error{errc::not_found,
                 fmt::format("{}: not there, or no file", at.string())};
  auto [end, ignored] =
      std::mismatch(root.begin(), root.end(), real.begin(), real.end());
  if (end != root.end())
    return error{errc::corrupt,
                 fmt::format("{}: leads out of the cache", at.string())};
  return {};
}

} // namespace troupe::download
