#include "actors/runtime/join.hpp"

#include "actors/runtime/certificate.hpp"
#include "actors/runtime/join_messages.hpp"
#include "actors/runtime/log.hpp"
#include "actors/runtime/private_file.hpp"
#include "actors/runtime/resolve.hpp"
#include "actors/runtime/revocations.hpp"
#include "actors/runtime/tls_client.hpp"
#include "actors/runtime/tls_listener.hpp"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <array>
#include <sstream>
#include <thread>
#include <vector>

namespace fs = std::filesystem;

namespace troupe::runtime {

namespace {

using addresses = std::vector<boost::asio::ip::address>;
using time_point = tls_client::time_point;

constexpr std::size_t answer_bytes_max = 64 * 1024;
constexpr std::chrono::milliseconds pause_between_attempts{100};

error cannot_join(const std::string& where, const error& why) {
  return {why.code, "cannot join at " + where + ": " + why.message};
}

// -- the head ----------------------------------------------------------------

class listener : public join_listener {
public:
  listener(const authority& issuer, std::uint16_t cluster_port,
           const join_limits& limits)
      : issuer_(issuer), cluster_port_(cluster_port),
        bytes_max_(limits.request_bytes_max) {
    // nop
  }

  result<void> open(const join_options& options, const join_limits& limits) {
    auto tls = server_only_tls(options.tls);
    if (!tls)
      return tls.error();
    tls_listener_options how;
    how.address = options.address;
    how.port = options.port;
    how.connections_max = limits.connections_max;
    how.request_bytes_max = limits.request_bytes_max + 1;
    how.request_max = limits.request_max;
    auto opened = tls_listener::start(
        *tls, how, [this](std::string_view bytes, const std::string& from) {
          return answer(bytes, from);
        });
    if (!opened)
      return opened.error();
    port_ = *std::move(opened);
    return {};
  }

  std::uint16_t port() const override {
    return port_->port();
  }

private:
  std::optional<tls_reply> answer(std::string_view bytes,
                                  const std::string& from) const {
    auto message = read_http(bytes, bytes_max_);
    if (!message)
      return std::nullopt;
    auto admitted = *message ? admit(**message, from)
                             : result<join_answer>{message->error()};
    tls_reply out;
    if (admitted) {
      out.head = write_join_answer(*admitted);
    } else {
      spdlog::debug("refused one who wants to join from {}: {}", from,
                    admitted.error().message);
      out.head = write_join_refusal(admitted.error());
    }
    return out;
  }

  result<join_answer> admit(const http_message& message,
                            const std::string& from) const {
    auto asked = read_join_request(message);
    if (!asked)
      return asked.error();
    auto revoked = issuer_.revoked(); // before the token was looked at
    if (!revoked)
      return revoked.error();
    if (auto good = check_token(issuer_, asked->token, seconds_now()); !good)
      return good.error();
    if (auto fit = check_versions(protocol::protocol_version, asked->version);
        !fit)
      return fit.error();
    auto signed_for =
        issuer_.sign(asked->request, asked->node, from, newest_era(*revoked));
    if (!signed_for)
      return signed_for.error();
    spdlog::info("node {} may join from {}", asked->node, from);
    return join_answer{*signed_for, issuer_.certificate(), cluster_port_,
                       protocol::protocol_version};
  }

  authority issuer_;
  std::uint16_t cluster_port_;
  std::size_t bytes_max_;
  std::unique_ptr<tls_listener> port_; ///< calls this object: dies first
};

// -- the worker --------------------------------------------------------------

/// The authority's certificate (PEM), if the server has shown it, has shown one
/// that it issued, and it is the one with the hash.
result<std::string> check_server(SSL* ssl, const std::string& authority_hash) {
  certificate_ptr own{SSL_get1_peer_certificate(ssl)};
  auto* chain = SSL_get_peer_cert_chain(ssl);
  for (int i = 0; own && chain && i < sk_X509_num(chain); ++i) {
    auto* issuer = sk_X509_value(chain, i);
    if (certificate_hash(issuer) == authority_hash &&
        is_good(own.get(), issuer))
      return to_pem(issuer);
  }
  return error{errc::invalid_argument,
               "the head there is not of the cluster that the token is for"};
}

error no_join_port(const std::string& why) {
  return {
      errc::invalid_argument,
      "that is not the join port of a head (its --port, which `troupe start "
      "--head` prints; 6380 unless given): " +
          why};
}

/// Sets `asked` if the server asks for a certificate, which a head does not of
/// those that want to join.
void note_request_for_certificate(SSL* ssl, bool& asked) {
  auto note = [](SSL*, void* to) {
    *static_cast<bool*>(to) = true;
    return 1; // go on, without one
  };
  SSL_set_cert_cb(ssl, note, &asked);
}

/// What one attempt came to. `again`: the head was there but hung up without a
/// word, as it does when too many talk to it.
struct attempt {
  result<join_answer> answer;
  bool again = false;
};

class asker {
public:
  asker(std::string where, const join_token& token, join_request asked,
        time_point deadline)
      : where_(std::move(where)), token_(token), asked_(std::move(asked)),
        deadline_(deadline) {
    // nop
  }

  attempt ask(const boost::asio::ip::address& ip, std::uint16_t port) const {
    bool asked_for_certificate = false;
    tls_client client{unchecked_client_tls(), deadline_};
    note_request_for_certificate(client.native(), asked_for_certificate);
    if (auto done = client.connect(ip, port); !done)
      return {done.error(), false};
    auto done = client.shake_hands();
    if (asked_for_certificate)
      return {no_join_port("it asks for a certificate, as a cluster port does"),
              false};
    if (!done && done.error().code == errc::corrupt)
      return {no_join_port(done.error().message), false};
    if (!done)
      return {done.error(), true};
    auto issuer = check_server(client.native(), token_.authority_hash);
    if (!issuer)
      return {issuer.error(), false};
    done = client.write(write_join_request(asked_, where_));
    if (!done)
      return {done.error(), true};
    auto out = read_answer(client);
    if (out.answer && out.answer->authority != *issuer)
      return {error{errc::corrupt, "the answer names another authority"},
              false};
    return out;
  }

private:
  static attempt read_answer(tls_client& client) {
    std::array<char, 4096> buffer{};
    std::string text;
    while (true) {
      auto n = client.read_some(buffer.data(), buffer.size());
      if (!n)
        return {n.error(), true};
      if (*n == 0)
        return {error{errc::unavailable, "the head hung up"}, text.empty()};
      text.append(buffer.data(), *n);
      auto message = read_http(text, answer_bytes_max);
      if (message && !*message)
        return {message->error(), false};
      if (message)
        return {read_join_answer(**message), false};
    }
  }

  std::string where_;
  const join_token& token_;
  join_request asked_;
  time_point deadline_;
};

/// The key in `directory`, if there is a good one; else a new one.
key_ptr key_for(const fs::path& directory) {
  auto pem = read_private(credentials_in(directory).key);
  auto kept = pem ? key_from_pem(*pem) : nullptr;
  if (kept && requested_key(make_request(kept.get())).has_value())
    return kept;
  return make_key();
}

result<void> check_answer(const join_answer& answer, EVP_PKEY* key) {
  auto own = certificate_from_pem(answer.certificate);
  auto issuer = certificate_from_pem(answer.authority);
  bool good = own && issuer && X509_check_private_key(own.get(), key) == 1 &&
              is_good(own.get(), issuer.get());
  ERR_clear_error();
  if (!good || answer.port == 0)
    return error{errc::corrupt,
                 "the certificate that came is not good; is the clock right?"};
  return check_versions(answer.version, protocol::protocol_version);
}

fs::path head_file(const fs::path& directory) {
  return directory / "head";
}

/// The certificate comes after what it needs, and last where the head is.
result<void> write_membership(const fs::path& directory, EVP_PKEY* key,
                              const join_answer& answer,
                              const protocol::endpoint& head) {
  auto files = credentials_in(directory);
  auto write = [](const fs::path& path, const std::string& text) {
    return write_private(path, text, if_there::replace);
  };
  auto done = write(files.key, to_pem(key));
  if (done)
    done = write(files.authority, answer.authority);
  if (done)
    done = write(files.certificate, answer.certificate);
  if (done)
    done = write(head_file(directory),
                 head.address + " " + std::to_string(head.port) + "\n");
  return done;
}

/// Asks at all addresses, and again while the head has no time for us.
attempt ask_until(const asker& from, const addresses& hosts, std::uint16_t port,
                  time_point deadline, protocol::endpoint& head) {
  while (true) {
    attempt last{error{errc::unavailable, "no address"}, false};
    bool again = false;
    for (const auto& ip : hosts) {
      last = from.ask(ip, port);
      head.address = ip.to_string();
      if (last.answer)
        return last;
      again = again || last.again;
    }
    auto next = std::chrono::steady_clock::now() + pause_between_attempts;
    if (!again || next >= deadline)
      return last;
    std::this_thread::sleep_until(next);
  }
}

} // namespace

result<std::unique_ptr<join_listener>>
join_listener::start(const authority& issuer, const join_options& options,
                     const join_limits& limits) {
  auto made = std::make_unique<listener>(issuer, options.cluster_port, limits);
  if (auto opened = made->open(options, limits); !opened)
    return opened.error();
  return std::unique_ptr<join_listener>{std::move(made)};
}

result<membership> join_cluster(const std::string& host, std::uint16_t port,
                                const std::string& token,
                                const std::string& node,
                                const fs::path& directory,
                                std::chrono::milliseconds time_max) {
  auto deadline = std::chrono::steady_clock::now() + time_max;
  auto where = host + ":" + std::to_string(port);
  auto read = read_token(token);
  if (!read)
    return read.error();
  if (auto fit = check_worker_name(node); !fit)
    return fit.error();
  if (auto made = make_private_directory(directory); !made)
    return made.error();
  auto key = key_for(directory);
  auto request = key ? make_request(key.get()) : std::string{};
  if (request.empty())
    return error{errc::internal, "cannot make a key"};
  auto hosts = resolve(host, deadline);
  if (!hosts)
    return cannot_join(where, hosts.error());
  asker from{where, *read,
             join_request{token, node, protocol::protocol_version, request},
             deadline};
  membership out{credentials_in(directory), {}};
  auto last = ask_until(from, *hosts, port, deadline, out.head);
  if (!last.answer)
    return cannot_join(where, last.answer.error());
  if (auto good = check_answer(*last.answer, key.get()); !good)
    return cannot_join(where, good.error());
  out.head.port = last.answer->port;
  if (auto kept =
          write_membership(directory, key.get(), *last.answer, out.head);
      !kept)
    return kept.error();
  return out;
}

std::optional<membership>
existing_membership(const fs::path& directory,
                    const std::string& authority_hash) {
  membership out{credentials_in(directory), {}};
  if (!check_credentials(out.tls))
    return std::nullopt;
  auto pem = read_private(out.tls.authority);
  auto issuer = pem ? certificate_from_pem(*pem) : nullptr;
  if (!issuer || (!authority_hash.empty() &&
                  certificate_hash(issuer.get()) != authority_hash))
    return std::nullopt;
  auto head = read_private(head_file(directory));
  if (!head)
    return std::nullopt;
  std::istringstream words{*head};
  boost::system::error_code bad_address;
  if (!(words >> out.head.address >> out.head.port) || out.head.port == 0)
    return std::nullopt;
  boost::asio::ip::make_address(out.head.address, bad_address);
  if (bad_address)
    return std::nullopt;
  return out;
}

} // namespace troupe::runtime
