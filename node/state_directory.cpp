#include "node/state_directory.hpp"

#include "router/api/json_writer.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace troupe::node {

std::filesystem::path default_state_dir() {
  if (const auto* state = std::getenv("XDG_STATE_HOME"); state && *state)
    return std::filesystem::path{state} / "troupe";
  const auto* home = std::getenv("HOME");
  return std::filesystem::path{home && *home ? home : "."} /
         ".local/state/troupe";
}

result<void> make_state_dir(const std::filesystem::path& folder) {
  auto wrong = [&](std::string_view why) {
    return error{errc::io, fmt::format("the state directory {} {}",
                                       folder.string(), why)};
  };
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  struct stat info {};
  if (code || ::stat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode))
    return wrong("cannot be made: " +
                 (code ? code.message() : std::string{"it is no directory"}));
  if (info.st_uid != ::geteuid())
    return wrong("belongs to somebody else");
  if (::chmod(folder.c_str(), 0700) != 0)
    return wrong(
        fmt::format("cannot be made private: {}", std::strerror(errno)));
  return {};
}

result<std::unique_ptr<state_lock>>
state_lock::take(const std::filesystem::path& state_dir) {
  auto file = state_dir / "lock";
  auto fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0)
    return error{errc::io, fmt::format("{} cannot be opened: {}", file.string(),
                                       std::strerror(errno))};
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    ::close(fd);
    return error{errc::unavailable,
                 fmt::format("another node runs with the state directory {}",
                             state_dir.string())};
  }
  return std::unique_ptr<state_lock>{new state_lock{fd}};
}

state_lock::~state_lock() {
  ::close(file_);
}

std::filesystem::path
membership_directory(const std::filesystem::path& state_dir) {
  return state_dir / "membership";
}

namespace {

std::filesystem::path membership_file(const std::filesystem::path& state_dir) {
  return membership_directory(state_dir) / "head.json";
}

} // namespace

result<void> store_membership(const std::filesystem::path& state_dir,
                              const runtime::membership& mine) {
  api::json_writer json;
  json.begin_object();
  json.key("address").text(mine.head.address);
  json.key("port").natural(mine.head.port);
  json.key("certificate").text(mine.tls.certificate.string());
  json.key("key").text(mine.tls.key.string());
  json.key("authority").text(mine.tls.authority.string());
  json.end_object();
  auto file = membership_file(state_dir);
  auto draft = file;
  draft += ".new";
  std::error_code code;
  {
    std::ofstream out{draft};
    out << json.take("\n");
    if (!out.flush())
      code = std::make_error_code(std::errc::io_error);
  }
  if (!code)
    std::filesystem::permissions(draft,
                                 std::filesystem::perms::owner_read |
                                     std::filesystem::perms::owner_write,
                                 code);
  if (!code)
    std::filesystem::rename(draft, file, code);
  if (code)
    return error{errc::io, fmt::format("{} cannot be written: {}",
                                       file.string(), code.message())};
  return {};
}

result<runtime::membership>
stored_membership(const std::filesystem::path& state_dir) {
  auto file = membership_file(state_dir);
  if (std::error_code code; !std::filesystem::exists(file, code))
    return error{errc::not_found,
                 "this machine has not joined yet: a token is needed (`troupe "
                 "token create` on the head prints one)"};
  simdjson::dom::parser parser;
  simdjson::dom::element all;
  std::string_view address, certificate, key, authority;
  std::uint64_t port = 0;
  if (parser.load(file.string()).get(all) != simdjson::SUCCESS ||
      all["address"].get(address) != simdjson::SUCCESS ||
      all["port"].get(port) != simdjson::SUCCESS || port == 0 ||
      port > 65'535 ||
      all["certificate"].get(certificate) != simdjson::SUCCESS ||
      all["key"].get(key) != simdjson::SUCCESS ||
      all["authority"].get(authority) != simdjson::SUCCESS)
    return error{errc::corrupt, file.string() + " cannot be read; join again "
                                                "with a token"};
  runtime::membership out;
  out.tls = {certificate, key, authority};
  out.head.address = std::string{address};
  out.head.port = static_cast<std::uint16_t>(port);
  return out;
}

} // namespace troupe::node
