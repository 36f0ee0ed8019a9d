#include "actors/runtime/link.hpp"
#include "actors/runtime/stop_actor.hpp"
#include "actors/runtime/system_config.hpp"
#include "actors/runtime/tls_guard.hpp"
#include "tests/actors/temporary_directory.hpp"
#include "tests/actors/test_certificates.hpp"

#include <catch2/catch.hpp>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>

#include <caf/event_based_actor.hpp>
#include <caf/send.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <algorithm>
#include <fstream>
#include <future>
#include <malloc.h>
#include <sstream>
#include <sys/resource.h>
#include <thread>
#include <unistd.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/allocator_interface.h>
#endif

using namespace troupe;
using namespace std::chrono_literals;
using asio_tcp = boost::asio::ip::tcp;
namespace asio = boost::asio;

namespace {

using protocol::endpoint;
using protocol::table_sink_actor;

/// A process of the cluster, as far as one test program can be several.
struct node {
  explicit node(const runtime::authority& ca, const std::filesystem::path& dir)
      : node(ca.issue("node", dir).value()) {
    // nop
  }

  explicit node(const runtime::credentials& files)
      : tls(files), config({tls, 2, 200ms, 1s}), system(config) {
    // nop
  }

  runtime::credentials tls;
  runtime::system_config config;
  caf::actor_system system;
};

struct two_nodes {
  test::temporary_directory tmp;
  runtime::authority ca = runtime::authority::open(tmp.path() / "ca").value();
  node left{ca, tmp.path() / "left"};
  node right{ca, tmp.path() / "right"};
};

/// An actor that keeps the first routing table it gets; published.
class published_sink {
public:
  explicit published_sink(caf::actor_system& system) : system_(system) {
    actor = system.spawn([this]() -> table_sink_actor::behavior_type {
      return {[this](protocol::table_atom, const codec::bytes& bytes) {
        got.set_value(bytes);
      }};
    });
    where.address = "127.0.0.1";
    where.port = runtime::publish(actor, where.address).value();
  }

  ~published_sink() {
    runtime::stop_actor(system_, actor, 2s);
  }

  table_sink_actor actor;
  endpoint where;
  std::promise<codec::bytes> got;

private:
  caf::actor_system& system_;
};

result<table_sink_actor> connect_sink(node& from, const endpoint& where) {
  return runtime::connect_now<table_sink_actor>(from.system, where, 2s);
}

/// Connects, trying again while the other side is busy with others.
bool gets_in(node& from, const endpoint& where) {
  for (int i = 0; i < 30; ++i)
    if (connect_sink(from, where).has_value())
      return true;
  return false;
}

/// Tries until it is refused: CAF may know of a connection that has just ended
/// for a moment still.
bool is_out(node& from, const endpoint& where) {
  for (int i = 0; i < 30; ++i) {
    if (!connect_sink(from, where).has_value())
      return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
}

/// Addresses on which this process listens, as /proc/net/tcp writes them.
std::vector<std::string> listening() {
  std::vector<std::string> inodes;
  for (const auto& entry :
       std::filesystem::directory_iterator{"/proc/self/fd"}) {
    std::error_code failed;
    auto target = std::filesystem::read_symlink(entry, failed).string();
    if (target.starts_with("socket:["))
      inodes.push_back(target.substr(8, target.size() - 9));
  }
  std::vector<std::string> out;
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream in{table};
    std::string line;
    while (std::getline(in, line)) {
      std::istringstream words{line};
      std::string slot, local, remote, state, skip, inode;
      words >> slot >> local >> remote >> state;
      for (int i = 0; i < 5; ++i)
        words >> skip;
      words >> inode;
      if (state == "0A" &&
          std::find(inodes.begin(), inodes.end(), inode) != inodes.end())
        out.push_back(local);
    }
  }
  return out;
}

/// Memory that was asked for and not given back.
std::int64_t allocated_bytes() {
#ifdef __SANITIZE_ADDRESS__
  return static_cast<std::int64_t>(__sanitizer_get_current_allocated_bytes());
#else
  auto heap = ::mallinfo2();
  return static_cast<std::int64_t>(heap.uordblks + heap.hblkhd);
#endif
}

/// How much more may be in use after three attacks of some 800 connections: 50
/// bytes for each.
constexpr std::int64_t growth_max = 120'000;

const asio::ip::address loopback = asio::ip::make_address("127.0.0.1");

/// A header of CAF's own protocol that claims a payload of 4 GiB.
std::string greedy_header() {
  std::string header(40, '\0');
  header[0] = 0x01;
  std::fill_n(header.begin() + 4, 4, '\xff');
  return header;
}

/// Sends `bytes` in the plain and reads until the other side closes; returns
/// what came back.
std::string send_plain(std::uint16_t port, const std::string& bytes) {
  asio::io_context io;
  asio_tcp::socket socket{io};
  socket.connect({loopback, port});
  boost::system::error_code ignored;
  asio::write(socket, asio::buffer(bytes), ignored);
  socket.shutdown(asio_tcp::socket::shutdown_send, ignored);
  std::string got;
  asio::read(socket, asio::dynamic_buffer(got), ignored);
  return got;
}

/// What a client saw of a server: whether the handshake ended well on its side,
/// and how many bytes came after it.
struct talk {
  bool shook_hands = false;
  std::size_t bytes = 0;
};

/// Speaks TLS with these credentials (none: without a certificate), sends the
/// greedy header, and reads a first piece or until the server ends it.
talk send_in_tls(
    std::uint16_t port, const runtime::credentials* mine,
    asio::ssl::context::method version = asio::ssl::context::tlsv13_client) {
  asio::ssl::context context{version};
  context.set_verify_mode(asio::ssl::verify_none);
  if (mine) {
    context.use_certificate_chain_file(mine->certificate.string());
    context.use_private_key_file(mine->key.string(), asio::ssl::context::pem);
  }
  asio::io_context io;
  asio::ssl::stream<asio_tcp::socket> stream{io, context};
  stream.next_layer().connect({loopback, port});
  boost::system::error_code failed;
  stream.handshake(asio::ssl::stream_base::client, failed);
  talk out;
  out.shook_hands = !failed;
  if (failed)
    return out;
  if (mine == nullptr || version != asio::ssl::context::tlsv13_client)
    asio::write(stream, asio::buffer(greedy_header()), failed);
  char bytes[64];
  out.bytes = stream.read_some(asio::buffer(bytes), failed);
  return out;
}

/// The first bytes of a handshake: a whole hello, or a part of it.
std::string hello(std::size_t size) {
  asio::ssl::context context{asio::ssl::context::tlsv13_client};
  std::unique_ptr<SSL, decltype(&SSL_free)> ssl{
      SSL_new(context.native_handle()), SSL_free};
  auto* out = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl.get(), BIO_new(BIO_s_mem()), out); // takes both
  SSL_connect(ssl.get());
  std::string bytes(size, '\0');
  auto n = BIO_read(out, bytes.data(), static_cast<int>(size));
  bytes.resize(static_cast<std::size_t>(std::max(n, 0)));
  return bytes;
}

/// Connections that have sent `bytes` and say no more.
class silent_ones {
public:
  silent_ones(std::uint16_t port, std::size_t count, const std::string& bytes) {
    for (std::size_t i = 0; i < count; ++i) {
      auto& socket = sockets_.emplace_back(io_);
      socket.connect({loopback, port});
      boost::system::error_code ignored;
      asio::write(socket, asio::buffer(bytes), ignored);
    }
  }

private:
  asio::io_context io_;
  std::vector<asio_tcp::socket> sockets_;
};

/// All that a stranger may try; `bad` has certificates that are not good.
void attack(std::uint16_t port, const std::vector<runtime::credentials>& bad) {
  for (const auto& bytes :
       {greedy_header(), std::string(100'000, '\xff'), std::string{"\n"},
        std::string{"GET / HTTP/1.1\r\n\r\n"}, hello(100),
        std::string{"\x16\x03\x01\xff\xff"}, hello(1000) + greedy_header()}) {
    auto answer = send_plain(port, bytes);
    // A TLS alert or the server's part of a handshake, which holds nothing.
    CHECK((answer.empty() || answer[0] == 0x15 || answer[0] == 0x16));
  }
  CHECK(send_in_tls(port, nullptr).bytes == 0);
  for (const auto& files : bad)
    CHECK(send_in_tls(port, &files).bytes == 0);
  CHECK_FALSE(send_in_tls(port, nullptr, asio::ssl::context::tlsv12_client)
                  .shook_hands);
  { silent_ones idle{port, 300, ""}; }
  { silent_ones half{port, 250, hello(1000)}; }
  { silent_ones half{port, 250, hello(100)}; }
}

/// A server with TLS that is not the cluster's; says what came of the handshake
/// with the first one that connects.
class false_server {
public:
  explicit false_server(const runtime::credentials& files)
      : context_{asio::ssl::context::tlsv13_server}, acceptor_{io_,
                                                               {loopback, 0}} {
    context_.use_certificate_chain_file(files.certificate.string());
    context_.use_private_key_file(files.key.string(), asio::ssl::context::pem);
    thread_ = std::thread{[this] {
      asio::ssl::stream<asio_tcp::socket> stream{io_, context_};
      acceptor_.accept(stream.next_layer());
      boost::system::error_code failed;
      stream.handshake(asio::ssl::stream_base::server, failed);
      trusted_ = !failed;
    }};
  }

  std::uint16_t port() const {
    return acceptor_.local_endpoint().port();
  }

  bool was_trusted() {
    thread_.join();
    return trusted_;
  }

private:
  asio::io_context io_;
  asio::ssl::context context_;
  asio_tcp::acceptor acceptor_;
  bool trusted_ = false;
  std::thread thread_;
};

/// Leaves this process `left` file descriptors until it ends.
class few_descriptors {
public:
  explicit few_descriptors(std::size_t left) {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    auto less = before_;
    less.rlim_cur = std::min<rlim_t>(before_.rlim_cur, 512);
    ::setrlimit(RLIMIT_NOFILE, &less);
    for (int fd = ::dup(0); fd >= 0; fd = ::dup(0))
      taken_.push_back(fd);
    for (; left > 0 && !taken_.empty(); --left) {
      ::close(taken_.back());
      taken_.pop_back();
    }
  }

  ~few_descriptors() {
    ::setrlimit(RLIMIT_NOFILE, &before_);
    for (int fd : taken_)
      ::close(fd);
  }

private:
  rlimit before_{};
  std::vector<int> taken_;
};

} // namespace

TEST_CASE("a message crosses to another node and its death is told") {
  two_nodes nodes;
  published_sink sink{nodes.left.system};
  std::promise<std::string> down;
  nodes.right.system.spawn([&](caf::event_based_actor* self) {
    self->set_down_handler([&down, self](const caf::down_msg& x) {
      down.set_value(self->system().render(x.reason));
      self->quit();
    });
    runtime::connect<table_sink_actor>(
        self, sink.where, 2s, [self](result<table_sink_actor> peer) {
          REQUIRE(peer.has_value());
          runtime::watch(self, *peer);
          self->send(*peer, protocol::table_atom::value, codec::bytes{1, 2, 3});
        });
    return caf::behavior{[](caf::ok_atom) {}};
  });
  auto bytes = sink.got.get_future();
  REQUIRE(bytes.wait_for(3s) == std::future_status::ready);
  CHECK(bytes.get() == codec::bytes{1, 2, 3});
  caf::anon_send_exit(sink.actor, caf::exit_reason::kill);
  auto reason = down.get_future();
  REQUIRE(reason.wait_for(3s) == std::future_status::ready);
}

TEST_CASE("a connection to nothing, to silence or to the wrong actor fails") {
  two_nodes nodes;
  SECTION("nothing") {
    auto peer = connect_sink(nodes.left, {"127.0.0.1", 1, 0, 0});
    REQUIRE_FALSE(peer.has_value());
    CHECK(peer.error().code == errc::unavailable);
  }
  SECTION("silence") {
    asio::io_context io;
    asio_tcp::acceptor silent{io, {asio::ip::make_address("127.0.0.1"), 0}};
    endpoint where{"127.0.0.1", silent.local_endpoint().port(), 0, 0};
    auto peer =
        runtime::connect_now<table_sink_actor>(nodes.left.system, where, 300ms);
    CHECK_FALSE(peer.has_value());
  }
  SECTION("the wrong actor") {
    published_sink sink{nodes.left.system};
    auto peer = runtime::connect_now<protocol::replica_actor>(
        nodes.right.system, sink.where, 2s);
    REQUIRE_FALSE(peer.has_value());
    CHECK(peer.error().message.find("not offer") != std::string::npos);
  }
}

TEST_CASE("connecting works at any moment of the heartbeat") {
  two_nodes nodes;
  int connected = 0;
  for (int i = 0; i < 40; ++i) {
    published_sink sink{nodes.left.system};
    node fresh{nodes.ca, nodes.tmp.path() / "fresh"};
    connected += connect_sink(fresh, sink.where).has_value();
  }
  CHECK(connected == 40);
}

TEST_CASE("only what was published listens, and only on loopback") {
  auto before = listening();
  two_nodes nodes;
  CHECK(listening() == before);
  published_sink sink{nodes.left.system};
  auto peer = runtime::connect_now<table_sink_actor>(nodes.right.system,
                                                     sink.where, 2s);
  REQUIRE(peer.has_value());
  caf::anon_send(*peer, protocol::table_atom::value, codec::bytes{1});
  REQUIRE(sink.got.get_future().wait_for(2s) == std::future_status::ready);
  auto now = listening();
  REQUIRE(now.size() == before.size() + 1);
  for (const auto& address : now)
    CHECK(address.starts_with("0100007F:"));
}

TEST_CASE("whoever has no certificate of the cluster gets nothing") {
  two_nodes nodes;
  published_sink sink{nodes.left.system};
  auto other = runtime::authority::open(nodes.tmp.path() / "other-ca").value();
  auto stranger = other.issue("node", nodes.tmp.path() / "stranger").value();
  auto expired = test::issue_for_time(nodes.tmp.path() / "ca",
                                      nodes.tmp.path() / "old", -1000, -10);
  auto early = test::issue_for_time(nodes.tmp.path() / "ca",
                                    nodes.tmp.path() / "new", 1000, 2000);
  auto in_time = test::issue_for_time(nodes.tmp.path() / "ca",
                                      nodes.tmp.path() / "now", -1000, 1000);
  // The probe itself is right: a node of the cluster is greeted.
  REQUIRE(send_in_tls(sink.where.port, &nodes.right.tls).bytes > 0);
  REQUIRE(send_in_tls(sink.where.port, &in_time).bytes > 0);
  CHECK(send_in_tls(sink.where.port, nullptr).bytes == 0);
  CHECK(send_in_tls(sink.where.port, &stranger).bytes == 0);
  CHECK(send_in_tls(sink.where.port, &expired).bytes == 0);
  CHECK(send_in_tls(sink.where.port, &early).bytes == 0);
  node outsider{other, nodes.tmp.path() / "outsider"};
  CHECK_FALSE(connect_sink(outsider, sink.where).has_value());
  // Afterwards a good peer is served as before.
  CHECK(connect_sink(nodes.right, sink.where).has_value());
}

namespace {

/// A head that revokes, and a worker.
struct revoking {
  explicit revoking(const std::string& name) : name(name) {
    // nop
  }

  /// The head tells its own processes, and with `others` the worker's too.
  void revoke(const std::string& whom, bool others = false) {
    auto all = ca.revoke(whom).value();
    REQUIRE(runtime::revocations::of(head.tls).replace(all).has_value());
    if (others)
      REQUIRE(runtime::revocations::of(worker.tls).replace(all).has_value());
  }

  bool worker_heard_it() const {
    return runtime::revocations::of(worker.tls).is_own_void();
  }

  std::string name;
  test::temporary_directory tmp;
  runtime::authority ca = runtime::authority::open(tmp.path() / "ca").value();
  node head{ca.issue("head", tmp.path() / "head").value()};
  node worker{test::join_as(ca, name, tmp.path() / "worker")};
};

/// Connects `from` to `where` and says when that connection is lost.
class watcher {
public:
  watcher(node& from, const endpoint& where) {
    from.system.spawn([this, where](caf::event_based_actor* self) {
      self->set_down_handler([this, self](const caf::down_msg&) {
        lost_.set_value();
        self->quit();
      });
      runtime::connect<table_sink_actor>(
          self, where, 5s, [this, self](result<table_sink_actor> peer) {
            if (peer)
              runtime::watch(self, *peer);
            connected_.set_value(peer.has_value());
          });
      return caf::behavior{[](caf::ok_atom) {}};
    });
    REQUIRE(connected_.get_future().get());
  }

  bool is_lost(std::chrono::milliseconds within) {
    return until_lost_.wait_for(within) == std::future_status::ready;
  }

private:
  std::promise<bool> connected_;
  std::promise<void> lost_;
  std::future<void> until_lost_ = lost_.get_future();
};

} // namespace

TEST_CASE("a revoked node gets in nowhere, until it has joined anew") {
  revoking both{"w1"};
  published_sink sink{both.head.system};
  auto other = test::join_as(both.ca, "w2", both.tmp.path() / "w2");
  REQUIRE(send_in_tls(sink.where.port, &both.worker.tls).bytes > 0);
  both.revoke("w1");
  CHECK(send_in_tls(sink.where.port, &both.worker.tls).bytes == 0);
  CHECK_FALSE(connect_sink(both.worker, sink.where).has_value());
  CHECK(send_in_tls(sink.where.port, &other).bytes > 0);
  auto again = test::join_as(both.ca, "w1", both.tmp.path() / "again");
  CHECK(send_in_tls(sink.where.port, &again).bytes > 0);
  // Who had that name before is still out, and out it is once more.
  CHECK(send_in_tls(sink.where.port, &both.worker.tls).bytes == 0);
  both.revoke("w1");
  CHECK(send_in_tls(sink.where.port, &again).bytes == 0);
}

TEST_CASE("connections of a node end when it is revoked, and it hears why") {
  revoking both{"w1"};
  published_sink sink{both.head.system};
  watcher link{both.worker, sink.where};
  both.revoke("w2");
  CHECK_FALSE(link.is_lost(500ms));
  CHECK_FALSE(both.worker_heard_it());
  both.revoke("w1");
  CHECK(link.is_lost(30s));
  REQUIRE(is_out(both.worker, sink.where));
  CHECK(both.worker_heard_it());
  auto refused = connect_sink(both.worker, sink.where);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().message == runtime::own_certificate_revoked().message);
}

TEST_CASE("a process hears of a revocation by the file of its node") {
  revoking both{"w1"};
  published_sink sink{both.worker.system};
  watcher link{both.head, sink.where};
  // As another process does it.
  auto all = both.ca.revoke("w1").value();
  REQUIRE(runtime::save_revocations(both.tmp.path() / "head" / "revoked", all)
              .has_value());
  CHECK(link.is_lost(30s));
  CHECK(is_out(both.head, sink.where));
  CHECK_FALSE(connect_sink(both.head, sink.where).has_value());
}

TEST_CASE("only the head is believed that a certificate is revoked") {
  revoking both{"w1"};
  auto files = test::join_as(both.ca, "w2", both.tmp.path() / "w2");
  node other{files};
  published_sink sink{other.system};
  auto all = both.ca.revoke("w1").value();
  REQUIRE(runtime::revocations::of(files).replace(all).has_value());
  CHECK_FALSE(connect_sink(both.worker, sink.where).has_value());
  CHECK_FALSE(both.worker_heard_it());
}

TEST_CASE("with a damaged list of the revoked nobody new is let in") {
  revoking both{"w1"};
  published_sink sink{both.head.system};
  auto file = both.tmp.path() / "head" / "revoked";
  REQUIRE(runtime::write_private(file, "x", runtime::if_there::replace)
              .has_value());
  CHECK(send_in_tls(sink.where.port, &both.worker.tls).bytes == 0);
  both.revoke("w2");
  CHECK(send_in_tls(sink.where.port, &both.worker.tls).bytes > 0);
}

TEST_CASE("a node is known by the name in its certificate") {
  revoking both{"w1"};
  published_sink sink{both.worker.system};
  auto found = [&](const table_sink_actor& who) {
    std::promise<result<std::string>> name;
    both.head.system.spawn([&](caf::event_based_actor* self) {
      runtime::find_name(
          self, who, [&](const result<std::string>& x) { name.set_value(x); });
    });
    return name.get_future().get();
  };
  auto peer = connect_sink(both.head, sink.where).value();
  CHECK(found(peer).value() == "w1");
  published_sink own{both.head.system};
  CHECK_FALSE(found(own.actor).has_value());
}

TEST_CASE("nothing older than TLS 1.3 is spoken") {
  two_nodes nodes;
  published_sink sink{nodes.left.system};
  auto speaks = [&](asio::ssl::context::method version) {
    return send_in_tls(sink.where.port, &nodes.right.tls, version).shook_hands;
  };
  CHECK(speaks(asio::ssl::context::tlsv13_client));
  CHECK_FALSE(speaks(asio::ssl::context::tlsv12_client));
  CHECK_FALSE(speaks(asio::ssl::context::tlsv11_client));
}

TEST_CASE("a node does not speak to a server that is not of its cluster") {
  two_nodes nodes;
  auto other = runtime::authority::open(nodes.tmp.path() / "other-ca").value();
  auto stranger = other.issue("node", nodes.tmp.path() / "stranger").value();
  auto expired = test::issue_for_time(nodes.tmp.path() / "ca",
                                      nodes.tmp.path() / "old", -1000, -10);
  auto is_trusted = [&](const runtime::credentials& files) {
    false_server server{files};
    (void)runtime::connect_now<table_sink_actor>(
        nodes.left.system, {"127.0.0.1", server.port(), 0, 0}, 2s);
    return server.was_trusted();
  };
  REQUIRE(is_trusted(nodes.right.tls)); // the probe itself is right
  CHECK_FALSE(is_trusted(stranger));
  CHECK_FALSE(is_trusted(expired));
}

TEST_CASE("without good credentials no port is opened and nobody called") {
  two_nodes nodes;
  published_sink sink{nodes.left.system};
  auto why = [&](const runtime::credentials& files) {
    runtime::system_config config{{files, 1, 200ms, 1s}};
    caf::actor_system system{config};
    auto actor = system.spawn([]() -> table_sink_actor::behavior_type {
      return {[](protocol::table_atom, const codec::bytes&) {}};
    });
    auto before = listening();
    auto port = runtime::publish(actor, "127.0.0.1");
    CHECK(listening() == before);
    auto peer = runtime::connect_now<table_sink_actor>(system, sink.where, 1s);
    runtime::stop_actor(system, actor, 2s);
    REQUIRE_FALSE(port.has_value());
    REQUIRE_FALSE(peer.has_value());
    CHECK(port.error().message == peer.error().message);
    return port.error().message;
  };
  auto& good = nodes.right.tls;
  CHECK(why({}).find("cannot read") == 0);
  auto mixed = good;
  mixed.key = nodes.left.tls.key;
  CHECK(why(mixed).find("is not of the key beside it") != std::string::npos);
  auto expired = test::issue_for_time(nodes.tmp.path() / "ca",
                                      nodes.tmp.path() / "old", -1000, -10);
  CHECK(why(expired).find("out of time") != std::string::npos);
  auto other = runtime::authority::open(nodes.tmp.path() / "other-ca").value();
  auto foreign = other.issue("node", nodes.tmp.path() / "foreign").value();
  foreign.authority = good.authority;
  CHECK(why(foreign).find("not of the authority") != std::string::npos);
}

TEST_CASE("a port listens at an address that was named") {
  two_nodes nodes;
  published_sink sink{nodes.left.system};
  for (const std::string address :
       {"0.0.0.0", "::", "::ffff:0.0.0.0", "localhost", "", "127.0.0.1:80"}) {
    INFO(address);
    auto port = runtime::publish(sink.actor, address);
    REQUIRE_FALSE(port.has_value());
    CHECK(port.error().code == errc::invalid_argument);
  }
  auto taken = runtime::publish(sink.actor, "127.0.0.1", sink.where.port);
  REQUIRE_FALSE(taken.has_value());
  CHECK(taken.error().code == errc::io);
}

TEST_CASE("whatever strangers send costs no memory") {
  two_nodes nodes;
  published_sink sink{nodes.left.system};
  auto other = runtime::authority::open(nodes.tmp.path() / "other-ca").value();
  std::vector<runtime::credentials> bad{
      other.issue("node", nodes.tmp.path() / "stranger").value(),
      test::issue_for_time(nodes.tmp.path() / "ca", nodes.tmp.path() / "old",
                           -1000, -10)};
  // The first attacks take what is kept for the next ones; how much of it
  // depends on how many came at once. What is lost is lost by each of them.
  std::int64_t growth = growth_max;
  for (int i = 0; i < 5 && growth >= growth_max; ++i) {
    auto before = allocated_bytes();
    for (int attacks = 0; attacks < 3; ++attacks)
      attack(sink.where.port, bad);
    growth = allocated_bytes() - before;
  }
  CHECK(growth < growth_max);
  CHECK(gets_in(nodes.right, sink.where));
}

TEST_CASE("a good peer gets in beside many that say nothing or half a word") {
  two_nodes nodes;
  published_sink sink{nodes.left.system};
  for (const auto& bytes : {std::string{}, hello(1000), hello(100)}) {
    silent_ones many{sink.where.port, 300, bytes};
    CHECK(gets_in(nodes.right, sink.where));
    CHECK(runtime::handshakes_under_way() <= runtime::handshakes_max);
    // Another process, which has no connection yet.
    node fresh{nodes.ca, nodes.tmp.path() / "fresh"};
    CHECK(gets_in(fresh, sink.where));
  }
}

TEST_CASE("handshakes that nobody goes on with end") {
  two_nodes nodes;
  published_sink sink{nodes.left.system};
  silent_ones many{sink.where.port, 20, hello(1000)};
  auto wait_until = [](auto condition) {
    for (int i = 0; i < 600 && !condition(); ++i)
      std::this_thread::sleep_for(50ms);
    return condition();
  };
  REQUIRE(wait_until([] { return runtime::handshakes_under_way() >= 20; }));
  CHECK(wait_until([] { return runtime::handshakes_under_way() == 0; }));
}

TEST_CASE("a process that has no file descriptors left lives on") {
  two_nodes nodes;
  published_sink sink{nodes.left.system};
  for (std::size_t left = 0; left < 6; ++left) {
    few_descriptors until_end{left};
    auto peer = runtime::connect_now<table_sink_actor>(nodes.right.system,
                                                       sink.where, 300ms);
    if (left == 0)
      CHECK_FALSE(peer.has_value());
  }
  CHECK(runtime::connect_now<table_sink_actor>(nodes.right.system, sink.where,
                                               20s)
            .has_value());
}

TEST_CASE("a certificate that is gone when it is needed ends no process") {
  two_nodes nodes;
  published_sink sink{nodes.left.system};
  std::filesystem::remove(nodes.left.tls.certificate);
  CHECK_FALSE(connect_sink(nodes.right, sink.where).has_value());
  CHECK(send_in_tls(sink.where.port, &nodes.right.tls).bytes == 0);
}
