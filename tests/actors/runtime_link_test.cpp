#include "actors/runtime/link.hpp"
#include "actors/runtime/stop_actor.hpp"
#include "actors/runtime/system_config.hpp"
#include "tests/actors/temporary_directory.hpp"

#include <catch2/catch.hpp>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>

#include <caf/event_based_actor.hpp>
#include <caf/send.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <fstream>
#include <future>
#include <sstream>
#include <thread>
#include <unistd.h>

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
      : tls(ca.issue("node", dir).value()), config({tls, 2, 200ms, 1s}),
        system(config) {
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

std::size_t resident_bytes() {
  std::ifstream in{"/proc/self/statm"};
  std::size_t total = 0;
  std::size_t resident = 0;
  in >> total >> resident;
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

/// Sends `bytes` in the plain and reads until the other side closes or the time
/// is over; returns what came back.
std::string send_plain(std::uint16_t port, const std::string& bytes) {
  asio::io_context io;
  asio_tcp::socket socket{io};
  socket.connect({asio::ip::make_address("127.0.0.1"), port});
  boost::system::error_code ignored;
  asio::write(socket, asio::buffer(bytes), ignored);
  std::string got(4096, '\0');
  std::size_t size = 0;
  socket.async_read_some(asio::buffer(got),
                         [&](auto, std::size_t n) { size = n; });
  io.run_for(300ms);
  got.resize(size);
  return got;
}

/// True if the peer goes on talking TLS after the handshake; a server that
/// refuses a certificate says so only then.
bool tls_works(std::uint16_t port, const runtime::credentials* mine) {
  asio::ssl::context context{asio::ssl::context::tls_client};
  context.set_verify_mode(asio::ssl::verify_none);
  if (mine) {
    context.use_certificate_chain_file(mine->certificate.string());
    context.use_private_key_file(mine->key.string(), asio::ssl::context::pem);
  }
  asio::io_context io;
  asio::ssl::stream<asio_tcp::socket> stream{io, context};
  stream.next_layer().connect({asio::ip::make_address("127.0.0.1"), port});
  boost::system::error_code failed;
  stream.handshake(asio::ssl::stream_base::client, failed);
  if (failed)
    return false;
  char byte = 0; // a node of the cluster greets
  bool greeted = false;
  stream.async_read_some(asio::buffer(&byte, 1),
                         [&](auto error, std::size_t) { greeted = !error; });
  io.run_for(500ms);
  return greeted;
}

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
  REQUIRE(tls_works(sink.where.port,
                    &nodes.right.tls)); // the probe itself is right
  CHECK_FALSE(tls_works(sink.where.port, nullptr));
  CHECK_FALSE(tls_works(sink.where.port, &stranger));
  node outsider{other, nodes.tmp.path() / "outsider"};
  CHECK_FALSE(connect_sink(outsider, sink.where).has_value());
  // Afterwards a good peer is served as before.
  CHECK(runtime::connect_now<table_sink_actor>(
            nodes.right.system, {"127.0.0.1", sink.where.port, 0, 0}, 2s)
            .has_value());
}

TEST_CASE("garbage at a port of the cluster costs nothing") {
  two_nodes nodes;
  published_sink sink{nodes.left.system};
  send_plain(sink.where.port, "warm up");
  auto before = resident_bytes();
  // A header of CAF's own protocol that claims a payload of 4 GiB.
  std::string header(40, '\0');
  header[0] = 0x01;
  std::fill_n(header.begin() + 4, 4, '\xff');
  for (const auto& bytes :
       {header, std::string(100'000, '\xff'), std::string{"GET / HTTP/1.1\n\n"},
        std::string{"\x16\x03\x01\xff\xff"}}) {
    auto answer = send_plain(sink.where.port, bytes);
    // At most a TLS alert.
    CHECK(answer.size() <= 16);
  }
  SECTION("after garbage that is there before the handshake") {
    for (int i = 0; i < 100; ++i) {
      asio::io_context io;
      asio_tcp::socket socket{io};
      socket.connect({asio::ip::make_address("127.0.0.1"), sink.where.port});
      boost::system::error_code ignored;
      asio::write(socket, asio::buffer(header), ignored);
    }
  }
  asio::io_context io;
  std::vector<asio_tcp::socket> idle;
  SECTION("beside connections that say nothing") {
    for (int i = 0; i < 50; ++i)
      idle.emplace_back(io).connect(
          {asio::ip::make_address("127.0.0.1"), sink.where.port});
  }
  CHECK(resident_bytes() < before + 32 * 1024 * 1024);
  auto peer = connect_sink(nodes.right, sink.where);
  INFO((peer ? "" : peer.error().message));
  CHECK(peer.has_value());
}
