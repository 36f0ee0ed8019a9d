#include "actors/runtime/revocations.hpp"

#include "actors/protocol/cluster_layout.hpp"
#include "actors/runtime/certificate.hpp"
#include "actors/runtime/join_messages.hpp"
#include "actors/runtime/log.hpp"
#include "actors/runtime/private_file.hpp"

#include <openssl/ssl.h>

#include <algorithm>
#include <memory>
#include <sys/stat.h>

namespace fs = std::filesystem;

namespace troupe::runtime {

namespace {

/// The content of a file.
struct kept_list {
  revocation_list nodes;
};

constexpr std::size_t file_bytes_max = 1024 * 1024;

constexpr auto file_name = "revoked";

error bad_list(std::string why) {
  return {errc::corrupt, "the list of revoked nodes: " + std::move(why)};
}

error in_file(const fs::path& file, const error& why) {
  return {why.code, file.string() + ": " + why.message};
}

result<void> check(const revocation_list& list) {
  if (list.size() > revocations_max)
    return error{errc::limit, "the list of revoked nodes: more than " +
                                  std::to_string(revocations_max)};
  std::map<std::string_view, int> named;
  for (const auto& one : list) {
    if (!check_worker_name(one.node))
      return bad_list("a name that no node can have");
    if (one.since == 0 || one.since >= head_era)
      return bad_list(one.node + " has no valid era");
    if (named[one.node]++ != 0)
      return bad_list(one.node + " stands there twice");
  }
  return {};
}

} // namespace

} // namespace troupe::runtime

namespace troupe::protocol {

template <>
struct layout<runtime::kept_list> {
  using r = runtime::kept_list;
  static constexpr std::string_view name = "list of revoked nodes";
  static constexpr auto fields = std::tuple{number(1, &r::nodes)};
};

} // namespace troupe::protocol

namespace troupe::runtime {

std::string write_revocations(const revocation_list& list) {
  auto bytes = protocol::encode_record(kept_list{list});
  return {bytes.begin(), bytes.end()};
}

result<revocation_list> read_revocations(std::string_view text) {
  codec::bytes bytes{text.begin(), text.end()};
  auto read = protocol::decode_record<kept_list>(bytes);
  if (!read)
    return read.error();
  if (auto good = check(read->nodes); !good)
    return good.error();
  return std::move(read->nodes);
}

result<revocation_list> load_revocations(const fs::path& file) {
  std::error_code failed;
  if (auto kind = fs::status(file, failed).type();
      kind == fs::file_type::not_found)
    return revocation_list{};
  auto text = read_private(file, file_bytes_max);
  if (!text)
    return text.error();
  auto list = read_revocations(*text);
  if (!list)
    return in_file(file, list.error());
  return list;
}

result<void> save_revocations(const fs::path& file,
                              const revocation_list& list) {
  if (auto good = check(list); !good)
    return good;
  return write_private(file, write_revocations(list), if_there::replace);
}

std::uint32_t newest_era(const revocation_list& list) {
  std::uint32_t out = 0;
  for (const auto& one : list)
    out = std::max(out, one.since);
  return out;
}

// -- what a process knows ---------------------------------------------------

revocations& revocations::of(const credentials& files) {
  static std::mutex mutex;
  static std::map<fs::path, std::unique_ptr<revocations>> all;
  auto file = files.authority.parent_path() / file_name;
  std::lock_guard guard{mutex};
  auto& out = all[file];
  if (!out)
    out = std::make_unique<revocations>(file);
  return *out;
}

revocations::revocations(fs::path file) : file_(std::move(file)) {
  // nop
}

result<void> revocations::replace(const revocation_list& list) {
  if (auto good = check(list); !good)
    return good;
  std::lock_guard guard{mutex_};
  take(list);
  auto known = load_revocations(file_);
  result<void> done;
  if (!known || *known != list)
    done = save_revocations(file_, list);
  seen_ = state_of_file();
  return done;
}

result<bool> revocations::voids(X509* certificate) {
  auto issued = certificate_era(certificate);
  if (issued == head_era)
    return false;
  std::lock_guard guard{mutex_};
  look();
  if (fault_)
    return *fault_;
  auto revoked = since_.find(certificate_name(certificate));
  return revoked != since_.end() && issued < revoked->second;
}

std::uint64_t revocations::generation() {
  std::lock_guard guard{mutex_};
  if (std::chrono::steady_clock::now() >= look_at_)
    look();
  return generation_;
}

/// Reads the file if it is not the one that was read last.
void revocations::look() {
  look_at_ = std::chrono::steady_clock::now() + look_interval;
  auto now = state_of_file();
  if (now == seen_)
    return;
  auto list = load_revocations(file_);
  if (list) {
    take(*list);
    seen_ = now;
    return;
  }
  if (!fault_ || fault_->message != list.error().message)
    spdlog::error("nobody new is let in: {}", list.error().message);
  fault_ = list.error();
}

void revocations::take(const revocation_list& list) {
  since_.clear();
  for (const auto& one : list)
    since_[one.node] = one.since;
  fault_.reset();
  ++generation_;
}

revocations::file_state revocations::state_of_file() const {
  struct stat info {};
  if (::stat(file_.c_str(), &info) != 0)
    return {};
  return {info.st_ino,
          info.st_mtim.tv_sec * std::int64_t{1'000'000'000} +
              info.st_mtim.tv_nsec,
          info.st_size};
}

// -- OpenSSL ----------------------------------------------------------------

namespace {

int index_of_list() {
  static const int index =
      SSL_CTX_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return index;
}

int verify_peer(X509_STORE_CTX* context, void* list) {
  if (X509_verify_cert(context) != 1)
    return 0;
  auto revoked =
      static_cast<revocations*>(list)->voids(X509_STORE_CTX_get0_cert(context));
  if (revoked && !*revoked)
    return 1;
  X509_STORE_CTX_set_error(context, revoked ? X509_V_ERR_CERT_REVOKED
                                            : X509_V_ERR_UNABLE_TO_GET_CRL);
  return 0;
}

} // namespace

void refuse_revoked(SSL_CTX* context, revocations& list) {
  SSL_CTX_set_cert_verify_callback(context, verify_peer, &list);
  SSL_CTX_set_ex_data(context, index_of_list(), &list);
}

revocations* revocations_of(const SSL_CTX* context) {
  return static_cast<revocations*>(
      SSL_CTX_get_ex_data(context, index_of_list()));
}

} // namespace troupe::runtime
