#include "actors/runtime/blob_listener.hpp"

#include "actors/runtime/sha256.hpp"
#include "actors/runtime/tls_client.hpp"
#include "actors/runtime/tls_listener.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

namespace troupe::runtime {

namespace {

using shared_content = std::shared_ptr<const std::string>;

constexpr std::size_t line_bytes_max = 128;

std::optional<std::uint64_t> to_number(std::string_view text) {
  std::uint64_t out = 0;
  auto* end = text.data() + text.size();
  auto [at, failed] = std::from_chars(text.data(), end, out);
  if (failed != std::errc{} || at != end)
    return std::nullopt;
  return out;
}

/// The words of a line without its end, split at single spaces.
std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> out;
  while (true) {
    auto space = line.find(' ');
    out.push_back(line.substr(0, space));
    if (space == std::string_view::npos)
      return out;
    line.remove_prefix(space + 1);
  }
}

struct part_request {
  std::string hash;
  std::uint64_t offset = 0;
  std::uint64_t length = 0; ///< 0 = to the end
};

std::optional<part_request> read_request(std::string_view line) {
  auto words = words_of(line);
  if (words.size() != 4 || words[0] != "GET" || !is_sha256_hex(words[1]))
    return std::nullopt;
  auto offset = to_number(words[2]);
  auto length = to_number(words[3]);
  if (!offset || !length)
    return std::nullopt;
  return part_request{std::string{words[1]}, *offset, *length};
}

std::string write_request(const part_request& x) {
  return "GET " + x.hash + " " + std::to_string(x.offset) + " " +
         std::to_string(x.length) + "\n";
}

} // namespace

std::string content_hash(std::string_view content) {
  return sha256_hex(content);
}

// -- server ------------------------------------------------------------------

namespace {

/// The blobs of a process; any thread.
class blob_shelf {
public:
  explicit blob_shelf(std::size_t bytes_max) : bytes_max_(bytes_max) {
    // nop
  }

  result<std::string> add(std::string content) {
    auto hash = content_hash(content);
    std::lock_guard guard{mutex_};
    if (blobs_.contains(hash))
      return hash;
    if (content.size() > bytes_max_ - bytes_)
      return error{errc::limit, "no room for a blob of " +
                                    std::to_string(content.size()) + " bytes"};
    bytes_ += content.size();
    blobs_.emplace(hash,
                   std::make_shared<const std::string>(std::move(content)));
    return hash;
  }

  shared_content find(const std::string& hash) const {
    std::lock_guard guard{mutex_};
    auto i = blobs_.find(hash);
    return i == blobs_.end() ? nullptr : i->second;
  }

private:
  mutable std::mutex mutex_;
  std::map<std::string, shared_content> blobs_;
  std::size_t bytes_ = 0;
  std::size_t bytes_max_;
};

/// Null until the line is whole.
std::optional<tls_reply> answer(const blob_shelf& blobs,
                                std::string_view bytes) {
  auto end = bytes.find('\n');
  if (end == bytes.npos)
    return std::nullopt;
  auto wanted = read_request(bytes.substr(0, end));
  if (!wanted)
    return tls_reply{};
  tls_reply out;
  out.content = blobs.find(wanted->hash);
  if (!out.content) {
    out.head = "NO\n";
    return out;
  }
  std::string_view whole = *out.content;
  out.part =
      whole.substr(std::min<std::uint64_t>(wanted->offset, whole.size()));
  if (wanted->length != 0)
    out.part = out.part.substr(0, wanted->length);
  out.head = "OK " + std::to_string(whole.size()) + " " +
             std::to_string(out.part.size()) + "\n";
  return out;
}

} // namespace

struct blob_listener::server {
  explicit server(std::size_t bytes_max) : blobs(bytes_max) {
    // nop
  }

  blob_shelf blobs;
  std::unique_ptr<tls_listener> listener; ///< uses the blobs: dies first
};

blob_listener::blob_listener(std::unique_ptr<server> from)
    : server_(std::move(from)) {
  // nop
}

blob_listener::~blob_listener() = default;

result<std::unique_ptr<blob_listener>>
blob_listener::start(const credentials& files, const std::string& address,
                     const blob_limits& limits) {
  auto tls = mutual_tls(files, tls_side::server);
  if (!tls)
    return tls.error();
  auto made = std::make_unique<server>(limits.blobs_bytes_max);
  tls_listener_options options;
  options.address = address;
  options.connections_max = limits.connections_max;
  options.request_bytes_max = line_bytes_max;
  options.request_max = limits.request_max;
  auto listener = tls_listener::start(
      *tls, options,
      [blobs = &made->blobs](std::string_view bytes, const std::string&) {
        return answer(*blobs, bytes);
      });
  if (!listener)
    return listener.error();
  made->listener = std::move(*listener);
  return std::unique_ptr<blob_listener>{new blob_listener{std::move(made)}};
}

std::uint16_t blob_listener::port() const {
  return server_->listener->port();
}

result<std::string> blob_listener::add(std::string content) {
  return server_->blobs.add(std::move(content));
}

// -- client ------------------------------------------------------------------

namespace {

error unreachable(const protocol::endpoint& from, const std::string& why) {
  return {errc::unavailable, "cannot get a blob from " + from.address + ":" +
                                 std::to_string(from.blob_port) + ": " + why};
}

struct answer_head {
  std::uint64_t size = 0; ///< of the bytes that follow
  std::string begun;      ///< those of them that came already
};

result<answer_head> read_answer_head(tls_client& client,
                                     const protocol::endpoint& from) {
  std::array<char, 4096> buffer{};
  std::string text;
  while (text.find('\n') == text.npos) {
    if (text.size() > line_bytes_max)
      return error{errc::corrupt, "a blob's answer is malformed"};
    auto n = client.read_some(buffer.data(), buffer.size());
    if (!n)
      return unreachable(from, n.error().message);
    if (*n == 0)
      return unreachable(from, "it closed the connection");
    text.append(buffer.data(), *n);
  }
  auto line_size = text.find('\n');
  auto words = words_of(std::string_view{text}.substr(0, line_size));
  if (words.size() == 1 && words[0] == "NO")
    return error{errc::not_found, "the process does not hold the blob"};
  auto size = words.size() == 3 && words[0] == "OK" ? to_number(words[2])
                                                    : std::nullopt;
  if (!size)
    return error{errc::corrupt, "a blob's answer is malformed"};
  return answer_head{*size, text.substr(line_size + 1)};
}

result<std::string> read_answer(tls_client& client,
                                const protocol::endpoint& from,
                                std::size_t bytes_max) {
  auto head = read_answer_head(client, from);
  if (!head)
    return head.error();
  if (head->size > bytes_max)
    return error{errc::limit, "a blob of " + std::to_string(head->size) +
                                  " bytes is too large"};
  auto have = head->begun.size();
  if (have > head->size)
    return error{errc::corrupt, "a blob's answer is too long"};
  auto content = std::move(head->begun);
  content.resize(head->size);
  while (have < content.size()) {
    auto n = client.read_some(content.data() + have, content.size() - have);
    if (!n)
      return unreachable(from, n.error().message);
    if (*n == 0)
      return unreachable(from, "it closed the connection");
    have += *n;
  }
  return content;
}

result<std::string> get(const protocol::endpoint& from,
                        const part_request& wanted, const credentials& files,
                        std::chrono::milliseconds timeout,
                        std::size_t bytes_max) {
  auto tls = mutual_tls(files, tls_side::client);
  if (!tls)
    return tls.error();
  boost::system::error_code failed;
  auto ip = boost::asio::ip::make_address(from.address, failed);
  if (failed)
    return error{errc::invalid_argument, "a blob's address is not numeric"};
  tls_client client{*tls, std::chrono::steady_clock::now() + timeout};
  auto done = client.connect(ip, from.blob_port);
  if (done)
    done = client.shake_hands();
  if (done)
    done = client.write(write_request(wanted));
  if (!done)
    return unreachable(from, done.error().message);
  return read_answer(client, from, bytes_max);
}

} // namespace

result<std::string> fetch_blob(const protocol::endpoint& from,
                               const std::string& hash,
                               const credentials& files,
                               std::chrono::milliseconds timeout,
                               std::size_t bytes_max) {
  if (!is_sha256_hex(hash))
    return error{errc::invalid_argument, "not a blob's hash"};
  auto content = get(from, {hash, 0, 0}, files, timeout, bytes_max);
  if (content && content_hash(*content) != hash)
    return error{errc::corrupt, "a blob is not what its hash says"};
  return content;
}

result<std::string> fetch_blob_part(const protocol::endpoint& from,
                                    const std::string& hash,
                                    std::uint64_t offset, std::uint64_t length,
                                    const credentials& files,
                                    std::chrono::milliseconds timeout) {
  if (!is_sha256_hex(hash) || length == 0)
    return error{errc::invalid_argument, "not a part of a blob"};
  return get(from, {hash, offset, length}, files, timeout, length);
}

} // namespace troupe::runtime
