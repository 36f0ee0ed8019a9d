#include "actors/runtime/tls_guard.hpp"

#include "actors/runtime/certificate.hpp"
#include "actors/runtime/revocations.hpp"

#include <boost/asio/ip/tcp.hpp>

#include <dlfcn.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <list>
#include <map>
#include <mutex>
#include <utility>

namespace {

using namespace troupe::runtime;
using steady = std::chrono::steady_clock;

template <class Function>
Function* openssls_own(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

/// Handshakes over sockets, oldest first. Any thread.
class handshake_list {
public:
  explicit handshake_list(std::size_t count_max) : count_max_(count_max) {
    // nop
  }

  /// To be called before every step of `ssl`.
  void step(SSL* ssl) {
    std::lock_guard guard{mutex_};
    auto now = steady::now();
    while (!list_.empty() && now - list_.front().began > handshake_max)
      cut_oldest();
    if (SSL_in_before(ssl) && find(ssl) == list_.end()) {
      if (list_.size() >= count_max_)
        cut_oldest();
      list_.push_back({ssl, now});
      moved_ = true;
    }
  }

  void ended(SSL* ssl) {
    std::lock_guard guard{mutex_};
    if (auto i = find(ssl); i != list_.end())
      list_.erase(i);
  }

  /// True once per turn through the list in which none began.
  bool turns_in_circles(SSL* ssl) {
    std::lock_guard guard{mutex_};
    if (list_.empty() || list_.front().ssl != ssl)
      return false;
    return !std::exchange(moved_, false);
  }

  std::size_t size() {
    std::lock_guard guard{mutex_};
    return list_.size();
  }

private:
  struct entry {
    SSL* ssl;
    steady::time_point began;
  };

  std::list<entry>::iterator find(SSL* ssl) {
    return std::find_if(list_.begin(), list_.end(),
                        [ssl](const entry& x) { return x.ssl == ssl; });
  }

  /// Its socket is at its end, so its owner closes it. It exists: SSL_free
  /// takes it off the list before, and the socket is closed after.
  void cut_oldest() {
    ::shutdown(SSL_get_fd(list_.front().ssl), SHUT_RDWR);
    list_.pop_front();
  }

  std::mutex mutex_;
  std::list<entry> list_;
  std::size_t count_max_;
  bool moved_ = false;
};

handshake_list& accepted() {
  static handshake_list list{handshakes_max};
  return list;
}

/// As many as this process asked for.
handshake_list& connecting() {
  static handshake_list list{static_cast<std::size_t>(-1)};
  return list;
}

/// Connections over sockets whose handshake is done. Any thread.
class connection_list {
public:
  void add(SSL* ssl) {
    auto* certificate = SSL_get0_peer_certificate(ssl);
    auto end = far_end(SSL_get_fd(ssl));
    if (!certificate || !end)
      return;
    std::lock_guard guard{mutex_};
    names_[ssl] = {*end, certificate_name(certificate)};
  }

  void ended(SSL* ssl) {
    std::lock_guard guard{mutex_};
    names_.erase(ssl);
  }

  std::optional<std::string> name_at(const std::string& address,
                                     std::uint16_t port) {
    std::lock_guard guard{mutex_};
    for (const auto& [ssl, peer] : names_)
      if (peer.where == std::pair{address, port})
        return peer.name;
    return std::nullopt;
  }

private:
  using place = std::pair<std::string, std::uint16_t>;

  struct peer {
    place where;
    std::string name;
  };

  static std::optional<place> far_end(int fd) {
    boost::asio::ip::tcp::endpoint out;
    auto size = static_cast<socklen_t>(out.capacity());
    if (::getpeername(fd, out.data(), &size) != 0)
      return std::nullopt;
    auto ip = out.address();
    if (ip.is_v6()) // without the interface, as CAF writes it
      ip = boost::asio::ip::address_v6{ip.to_v6().to_bytes()};
    return place{ip.to_string(), out.port()};
  }

  std::mutex mutex_;
  std::map<SSL*, peer> names_;
};

connection_list& connections() {
  static connection_list list;
  return list;
}

/// CAF calls again and again until the peer has answered. The thread serves
/// all its connections, so once per turn, and not for long.
void wait_a_moment(SSL* ssl, handshake_list& list) {
  if (SSL_in_before(ssl) || !list.turns_in_circles(ssl))
    return;
  pollfd wanted{SSL_get_fd(ssl), POLLIN, 0};
  ::poll(&wanted, 1, 1);
}

int shake_hands(SSL* ssl, int (*next)(SSL*), handshake_list& list) {
  ERR_clear_error();
  if (SSL_get_fd(ssl) < 0)
    return next(ssl); // not over a socket, so not CAF's
  list.step(ssl);
  wait_a_moment(ssl, list);
  ERR_clear_error();
  int done = next(ssl);
  if (done == 1) {
    list.ended(ssl);
    connections().add(ssl);
  }
  return done;
}

// -- revocation ---------------------------------------------------------------

/// Where a connection keeps the generation of the list that let it pass.
int index_of_generation() {
  static const int index =
      SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return index;
}

/// True if the peer's certificate has become void since the handshake.
bool is_void_now(SSL* ssl, revocations& list) {
  auto* certificate = SSL_get0_peer_certificate(ssl);
  auto now = reinterpret_cast<void*>(list.generation());
  if (!certificate || SSL_get_ex_data(ssl, index_of_generation()) == now)
    return false;
  auto revoked = list.voids(certificate);
  if (revoked && *revoked)
    return true;
  if (revoked)
    SSL_set_ex_data(ssl, index_of_generation(), now);
  return false;
}

/// The head's word that our own certificate is void comes as the alert that
/// ends a connection; nobody else's word counts.
void hear_refusal(SSL* ssl, revocations& list) {
  auto* certificate = SSL_get0_peer_certificate(ssl);
  if (ERR_GET_REASON(ERR_peek_last_error()) ==
          SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED &&
      certificate && certificate_era(certificate) == head_era)
    list.own_is_void();
}

int read_guarded(SSL* ssl, void* buffer, int size,
                 int (*next)(SSL*, void*, int)) {
  auto* list =
      SSL_get_fd(ssl) < 0 ? nullptr : revocations_of(SSL_get_SSL_CTX(ssl));
  if (!list)
    return next(ssl, buffer, size);
  if (is_void_now(ssl, *list)) {
    ERR_raise(ERR_LIB_SSL, SSL_R_CERTIFICATE_VERIFY_FAILED);
    return -1;
  }
  auto done = next(ssl, buffer, size);
  if (done <= 0)
    hear_refusal(ssl, *list);
  return done;
}

/// CAF makes its contexts for both sides at once; nothing else here does.
bool is_for_caf(const SSL_CTX* context) {
  return SSL_CTX_get_ssl_method(context) == TLS_method();
}

/// CAF throws where nobody catches unless a file was loaded. Without it, the
/// handshake fails: the other side asks for our certificate, and one of theirs
/// that cannot be checked is refused.
int loaded(const SSL_CTX* context, int done) {
  return is_for_caf(context) ? 1 : done;
}

} // namespace

extern "C" {

SSL_CTX* SSL_CTX_new(const SSL_METHOD* method) {
  static const auto next = openssls_own<decltype(SSL_CTX_new)>("SSL_CTX_new");
  auto* context = next(method);
  if (context && is_for_caf(context)) {
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_num_tickets(context, 0);
  }
  return context;
}

int SSL_CTX_use_certificate_chain_file(SSL_CTX* context, const char* file) {
  static const auto next =
      openssls_own<decltype(SSL_CTX_use_certificate_chain_file)>(
          "SSL_CTX_use_certificate_chain_file");
  return loaded(context, next(context, file));
}

int SSL_CTX_use_PrivateKey_file(SSL_CTX* context, const char* file, int type) {
  static const auto next = openssls_own<decltype(SSL_CTX_use_PrivateKey_file)>(
      "SSL_CTX_use_PrivateKey_file");
  return loaded(context, next(context, file, type));
}

int SSL_CTX_load_verify_locations(SSL_CTX* context, const char* file,
                                  const char* directory) {
  static const auto next =
      openssls_own<decltype(SSL_CTX_load_verify_locations)>(
          "SSL_CTX_load_verify_locations");
  if (is_for_caf(context) && file)
    refuse_revoked(context, revocations::of({{}, {}, file}));
  return loaded(context, next(context, file, directory));
}

int SSL_read(SSL* ssl, void* buffer, int size) {
  static const auto next = openssls_own<decltype(SSL_read)>("SSL_read");
  ERR_clear_error();
  return read_guarded(ssl, buffer, size, next);
}

int SSL_write(SSL* ssl, const void* buffer, int size) {
  static const auto next = openssls_own<decltype(SSL_write)>("SSL_write");
  ERR_clear_error();
  return next(ssl, buffer, size);
}

int SSL_accept(SSL* ssl) {
  static const auto next = openssls_own<decltype(SSL_accept)>("SSL_accept");
  return shake_hands(ssl, next, accepted());
}

int SSL_connect(SSL* ssl) {
  static const auto next = openssls_own<decltype(SSL_connect)>("SSL_connect");
  return shake_hands(ssl, next, connecting());
}

void SSL_free(SSL* ssl) {
  static const auto next = openssls_own<decltype(SSL_free)>("SSL_free");
  if (ssl && SSL_get_fd(ssl) >= 0) {
    accepted().ended(ssl);
    connecting().ended(ssl);
    connections().ended(ssl);
  }
  next(ssl);
}

} // extern "C"

namespace troupe::runtime {

std::size_t handshakes_under_way() {
  return accepted().size();
}

std::optional<std::string> peer_name(const std::string& address,
                                     std::uint16_t port) {
  return connections().name_at(address, port);
}

void guard_tls() {
  // nop
}

} // namespace troupe::runtime
