#include "actors/runtime/join.hpp"
#include "actors/runtime/join_messages.hpp"
#include "actors/runtime/link.hpp"
#include "actors/runtime/stop_actor.hpp"
#include "actors/runtime/system_config.hpp"
#include "actors/runtime/tls_client.hpp"
#include "actors/runtime/tls_listener.hpp"
#include "tests/actors/temporary_directory.hpp"
#include "tests/actors/test_certificates.hpp"

#include <boost/asio/write.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <catch2/catch.hpp>

#include <array>
#include <fstream>
#include <iterator>
#include <openssl/ssl.h>
#include <random>
#include <spdlog/spdlog.h>
#include <thread>

using namespace troupe;
using namespace troupe::runtime;
using namespace std::chrono_literals;
namespace asio = boost::asio;
namespace fs = std::filesystem;
using asio::ip::tcp;

namespace {

constexpr std::uint16_t cluster_port = 4242;

const asio::ip::address loopback = asio::ip::make_address("127.0.0.1");

/// A head as far as joining goes.
struct head {
  explicit head(const join_limits& limits = {}) {
    spdlog::set_level(spdlog::level::off);
    listener = join_listener::start(ca, options(), limits).value();
  }

  join_options options() const {
    return {"127.0.0.1", 0, tls, cluster_port};
  }

  result<membership> admit(const std::string& node,
                           const std::string& with = {}) const {
    return join_cluster("127.0.0.1", listener->port(),
                        with.empty() ? token.text : with, node, state(node),
                        10s);
  }

  fs::path state(const std::string& node) const {
    return tmp.path() / "nodes" / node;
  }

  /// Sends bytes over TLS without a certificate; what comes back, until the
  /// head hangs up.
  std::string tell(const std::string& bytes) const {
    tls_client client{unchecked_client_tls(),
                      std::chrono::steady_clock::now() + 10s};
    REQUIRE(client.connect(loopback, listener->port()).has_value());
    REQUIRE(client.shake_hands().has_value());
    (void)client.write(bytes); // it may hang up before it has read all
    std::string out;
    std::string buffer(4096, '\0');
    while (true) {
      auto n = client.read_some(buffer.data(), buffer.size());
      if (!n || *n == 0)
        return out;
      out.append(buffer, 0, *n);
    }
  }

  std::string tell_request(const std::string& certificate_request) const {
    return tell(write_join_request(
        {token.text, "node-1", protocol::protocol_version, certificate_request},
        "head"));
  }

  test::temporary_directory tmp;
  authority ca = authority::open(tmp.path() / "ca").value();
  credentials tls = ca.issue("head", tmp.path() / "head").value();
  join_token token = create_token(ca, 1h).value();
  std::unique_ptr<join_listener> listener;
};

std::string content(const fs::path& path) {
  std::ifstream in{path};
  return {std::istreambuf_iterator<char>{in}, {}};
}

unsigned mode(const fs::path& path) {
  return static_cast<unsigned>(fs::status(path).permissions());
}

std::string why(const result<membership>& x) {
  return x ? "joined" : x.error().message;
}

bool says(const std::string& text, std::string_view part) {
  return text.find(part) != text.npos;
}

/// Joins, trying again while the head is busy with others.
bool gets_in(const head& there) {
  for (int i = 0; i < 20; ++i)
    if (there.admit("good").has_value())
      return true;
  return false;
}

} // namespace

TEST_CASE("whoever has a token joins and can then speak CAF") {
  head there;
  auto joined = there.admit("node-1");
  INFO(why(joined));
  REQUIRE(joined.has_value());
  CHECK(joined->head.address == "127.0.0.1");
  CHECK(joined->head.port == cluster_port);
  CHECK(mode(there.state("node-1")) == 0700);
  for (const auto& file : {joined->tls.key, joined->tls.certificate})
    CHECK(mode(file) == 0600);
  CHECK(content(joined->tls.authority) == there.ca.certificate());

  system_config heads{{there.tls, 2, 200ms, 1s}};
  caf::actor_system head_system{heads};
  auto actor =
      head_system.spawn([]() -> protocol::table_sink_actor::behavior_type {
        return {[](protocol::table_atom, const codec::bytes&) {}};
      });
  auto port = publish(actor, "127.0.0.1").value();
  system_config nodes{{joined->tls, 2, 200ms, 1s}};
  caf::actor_system node_system{nodes};
  CHECK(connect_now<protocol::table_sink_actor>(node_system,
                                                {"127.0.0.1", port, 0, 0}, 5s)
            .has_value());
  stop_actor(head_system, actor, 2s);
}

TEST_CASE("a head is found by name too") {
  head there;
  auto joined =
      join_cluster("localhost", there.listener->port(), there.token.text,
                   "node-1", there.state("node-1"), 10s);
  INFO(why(joined));
  REQUIRE(joined.has_value());
  CHECK(joined->head.address == "127.0.0.1");
  CHECK(says(why(join_cluster("no-such-host.invalid", 1, there.token.text,
                              "node-1", there.state("node-1"), 5s)),
             "cannot join at no-such-host.invalid:1"));
}

TEST_CASE("a token that is not good is refused with its reason") {
  head there;
  SECTION("damaged") {
    auto text = there.token.text;
    text.back() = text.back() == '0' ? '1' : '0';
    CHECK(says(why(there.admit("node-1", text)), "the token is damaged"));
  }
  SECTION("taken back") {
    fs::remove(there.tmp.path() / "ca" / "secret");
    CHECK(says(why(there.admit("node-1")), "was taken back"));
  }
  SECTION("no token at all") {
    CHECK(says(why(there.admit("node-1", "sesame")), "not a token"));
  }
  SECTION("of another cluster: nothing is said to the head") {
    head other;
    CHECK(says(why(there.admit("node-1", other.token.text)),
               "not of the cluster that the token is for"));
  }
  CHECK_FALSE(fs::exists(credentials_in(there.state("node-1")).certificate));
}

TEST_CASE("a name that is not a worker's is refused on both sides") {
  head there;
  for (const std::string name : {"head", "UPPER", "a/b", ""}) {
    auto refused =
        join_cluster("127.0.0.1", there.listener->port(), there.token.text,
                     name, there.tmp.path() / "x", 5s);
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().code == errc::invalid_argument);
  }
  auto key = make_key();
  auto answer = there.tell(
      write_join_request({there.token.text, "head", protocol::protocol_version,
                          make_request(key.get())},
                         "head"));
  CHECK(says(answer, "HTTP/1.1 400"));
  CHECK(says(answer, "the head's own name"));
}

TEST_CASE("a version too far apart is refused by both numbers") {
  head there;
  auto key = make_key();
  auto answer = there.tell(write_join_request({there.token.text, "node-1",
                                               protocol::protocol_version + 2,
                                               make_request(key.get())},
                                              "head"));
  CHECK(says(answer, "HTTP/1.1 409"));
  CHECK(says(answer, std::to_string(protocol::protocol_version + 2)));
}

TEST_CASE("a server that only claims to be of the cluster learns no token") {
  head there;
  // It has the authority's certificate, as everybody may, but no key of it.
  auto other = authority::open(there.tmp.path() / "other").value();
  auto stranger = other.issue("head", there.tmp.path() / "stranger").value();
  fs::copy_file(there.tls.authority, stranger.authority,
                fs::copy_options::overwrite_existing);
  std::string learned;
  auto listener = tls_listener::start(
      server_only_tls(stranger).value(), {"127.0.0.1", 0, 8, 4096, 5s},
      [&learned](std::string_view bytes, const std::string&) {
        learned = bytes;
        return std::optional<tls_reply>{tls_reply{}};
      });
  auto refused =
      join_cluster("127.0.0.1", (*listener)->port(), there.token.text, "node-1",
                   there.state("node-1"), 5s);
  CHECK(says(why(refused), "not of the cluster that the token is for"));
  listener->reset();
  CHECK(learned.empty());
}

TEST_CASE("a certificate that is not for our key is not taken") {
  head there;
  auto other_key = make_key();
  auto foreign =
      there.ca.sign(make_request(other_key.get()), "node-1", "").value();
  std::string answer;
  auto listener = tls_listener::start(
      server_only_tls(there.tls).value(), {"127.0.0.1", 0, 8, 8192, 5s},
      [&answer](std::string_view, const std::string&) {
        return std::optional<tls_reply>{tls_reply{answer, {}, nullptr}};
      });
  auto ask = [&] {
    return why(join_cluster("127.0.0.1", (*listener)->port(), there.token.text,
                            "node-1", there.state("node-1"), 1s));
  };
  answer = write_join_answer({foreign, there.ca.certificate(), 1, 2});
  CHECK(says(ask(), "is not good"));
  auto other = authority::open(there.tmp.path() / "other").value();
  answer = write_join_answer({foreign, other.certificate(), 1, 2});
  CHECK(says(ask(), "another authority"));
  answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}}";
  CHECK(says(ask(), "not a JSON object"));
  answer = std::string(100'000, 'x');
  CHECK(says(ask(), "65536"));
  answer = "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{}";
  CHECK(says(ask(), "hung up"));
  CHECK_FALSE(fs::exists(credentials_in(there.state("node-1")).certificate));
}

TEST_CASE("nobody there is an error, and silence ends with the time") {
  head there;
  auto ask = [&](std::uint16_t port) {
    return join_cluster("127.0.0.1", port, there.token.text, "node-1",
                        there.state("node-1"), 300ms);
  };
  auto nobody = ask(1);
  REQUIRE_FALSE(nobody.has_value());
  CHECK(nobody.error().code == errc::unavailable);
  CHECK(says(why(nobody), "127.0.0.1:1"));
  asio::io_context io;
  tcp::acceptor silent{io, {loopback, 0}};
  CHECK(says(why(ask(silent.local_endpoint().port())), "no answer in time"));
}

TEST_CASE("a port that is not where workers join is told at once") {
  head there;
  auto ask = [&](std::uint16_t port) {
    return join_cluster("127.0.0.1", port, there.token.text, "node-1",
                        there.state("node-1"), 30s);
  };
  auto is_refused = [](const result<membership>& x) {
    INFO(why(x));
    REQUIRE_FALSE(x.has_value());
    CHECK(x.error().code == errc::invalid_argument);
    CHECK(says(why(x), "not the join port"));
  };
  SECTION("a cluster port") {
    system_config heads{{there.tls, 2, 200ms, 1s}};
    caf::actor_system head_system{heads};
    auto actor =
        head_system.spawn([]() -> protocol::table_sink_actor::behavior_type {
          return {[](protocol::table_atom, const codec::bytes&) {}};
        });
    is_refused(ask(publish(actor, "127.0.0.1").value()));
    stop_actor(head_system, actor, 2s);
  }
  SECTION("one without TLS, which is asked once") {
    asio::io_context io;
    tcp::acceptor plain{io, {loopback, 0}};
    std::thread server{[&] {
      tcp::socket socket{io};
      plain.accept(socket);
      std::array<char, 4096> hello{};
      socket.read_some(asio::buffer(hello));
      asio::write(socket, asio::buffer(
                              std::string{"HTTP/1.1 400 Bad Request\r\n\r\n"}));
      plain.close(); // nobody answers a second time
    }};
    is_refused(ask(plain.local_endpoint().port()));
    server.join();
  }
}

TEST_CASE("a request for a certificate that is not good is refused") {
  head there;
  auto key = make_key();
  auto other = make_key();
  key_ptr rsa{EVP_RSA_gen(2048)};
  CHECK(says(there.tell_request(make_request(key.get())), "HTTP/1.1 200 OK"));
  CHECK(says(there.tell_request(make_request(rsa.get())), "not of EC P-256"));
  CHECK(says(there.tell_request(test::greedy_request(key.get(), other.get())),
             "not signed by its key"));
  CHECK(says(there.tell_request(""), "is not one (PEM)"));
  CHECK(says(there.tell_request("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"
                                "-----END CERTIFICATE REQUEST-----\n"),
             "is not one (PEM)"));
  // One of 1 MB: refused by its claim, or cut off while it is sent.
  auto answer = there.tell_request(std::string(1 << 20, 'A'));
  CHECK((answer.empty() || says(answer, "HTTP/1.1 413")));
}

TEST_CASE("garbage at the join port gets an error or a close") {
  head there;
  CHECK(says(there.tell("GET / HTTP/1.1\r\n\r\n"), "HTTP/1.1 404"));
  CHECK(says(there.tell("POST /join HTTP/1.1\r\nContent-Length: 1\r\n\r\n{"),
             "HTTP/1.1 400"));
  CHECK(says(there.tell("POST /join HTTP/1.1\r\nContent-Length: "
                        "99999999999\r\n\r\n"),
             "HTTP/1.1 413"));
  auto huge =
      there.tell("POST /join HTTP/1.1\r\nX: " + std::string(100'000, 'x'));
  CHECK((huge.empty() || says(huge, "HTTP/1.1 413")));
  std::mt19937 random{7};
  for (int i = 0; i < 20; ++i) {
    std::string bytes(1 + random() % 2000, '\0');
    for (auto& byte : bytes)
      byte = static_cast<char>(random());
    bytes += "\r\n\r\n";
    auto answer = there.tell(bytes);
    CHECK((answer.empty() || says(answer, "HTTP/1.1 4")));
    // The same without TLS, and after the beginning of a good hello.
    for (const auto& plain : {bytes, "\x16\x03\x01\x02\x00\x01" + bytes}) {
      asio::io_context io;
      tcp::socket socket{io};
      socket.connect({loopback, there.listener->port()});
      boost::system::error_code ignored;
      asio::write(socket, asio::buffer(plain), ignored);
    }
  }
  CHECK(gets_in(there));
}

TEST_CASE("slow and silent ones at the join port do not keep others out") {
  join_limits limits;
  limits.connections_max = 8;
  limits.request_max = 500ms;
  head there{limits};
  asio::io_context io;
  std::vector<tcp::socket> idle;
  for (int i = 0; i < 100; ++i)
    idle.emplace_back(io).connect({loopback, there.listener->port()});
  // One that sends a byte now and then is ended by the same limit.
  tls_client slow{unchecked_client_tls(),
                  std::chrono::steady_clock::now() + 30s};
  bool ended =
      !slow.connect(loopback, there.listener->port()) || !slow.shake_hands();
  for (int i = 0; i < 200 && !ended; ++i) {
    ended = !slow.write("P").has_value();
    std::this_thread::sleep_for(50ms);
  }
  CHECK(ended);
  CHECK(gets_in(there));
}

TEST_CASE("many join at once") {
  head there;
  std::vector<std::string> outcomes(16);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < outcomes.size(); ++i)
    threads.emplace_back([&there, &outcomes, i] {
      outcomes[i] = why(there.admit("node-" + std::to_string(i)));
    });
  for (auto& thread : threads)
    thread.join();
  for (const auto& outcome : outcomes)
    CHECK(outcome == "joined");
}

TEST_CASE("who has joined need not join again") {
  head there;
  auto directory = there.state("node-1");
  CHECK_FALSE(existing_membership(directory).has_value());
  REQUIRE(there.admit("node-1").has_value());
  auto hash = there.token.authority_hash;
  auto kept = existing_membership(directory, hash);
  REQUIRE(kept.has_value());
  CHECK(kept->head.address == "127.0.0.1");
  CHECK(kept->head.port == cluster_port);
  CHECK(kept->tls.key == directory / "key.pem");
  CHECK(existing_membership(directory).has_value());
  CHECK_FALSE(existing_membership(directory, std::string(64, '0')).has_value());

  SECTION("joining again keeps the key and tells the new port") {
    auto key = content(kept->tls.key);
    auto certificate = content(kept->tls.certificate);
    auto options = there.options();
    options.cluster_port = 4343;
    there.listener = join_listener::start(there.ca, options).value();
    REQUIRE(there.admit("node-1").has_value());
    CHECK(content(kept->tls.key) == key);
    CHECK(content(kept->tls.certificate) != certificate);
    CHECK(existing_membership(directory, hash)->head.port == 4343);
  }
  SECTION("unless a file is missing, damaged, or can be read by others") {
    auto files = {kept->tls.key, kept->tls.certificate, kept->tls.authority,
                  directory / "head"};
    for (const auto& file : files) {
      INFO(file);
      auto good = content(file);
      std::ofstream{file} << good.substr(0, good.size() / 2 - 5);
      CHECK_FALSE(existing_membership(directory).has_value());
      std::ofstream{file} << good;
      CHECK(existing_membership(directory).has_value());
      fs::permissions(file, fs::perms::others_read, fs::perm_options::add);
      CHECK_FALSE(existing_membership(directory).has_value());
      fs::remove(file);
      CHECK_FALSE(existing_membership(directory).has_value());
      REQUIRE(there.admit("node-1").has_value());
    }
  }
  SECTION("unless the certificate is out of time") {
    test::issue_for_time(there.tmp.path() / "ca", directory, -1000, -10);
    CHECK_FALSE(existing_membership(directory, hash).has_value());
  }
}

TEST_CASE("the join port listens at the address that was named") {
  head there;
  for (const std::string address :
       {"0.0.0.0", "::", "::ffff:0.0.0.0", "localhost", ""}) {
    auto options = there.options();
    options.address = address;
    auto refused = join_listener::start(there.ca, options);
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().code == errc::invalid_argument);
  }
}
