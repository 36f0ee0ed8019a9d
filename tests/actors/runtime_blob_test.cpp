#include "actors/runtime/blob_listener.hpp"
#include "tests/actors/temporary_directory.hpp"

#include <catch2/catch.hpp>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>

#include <atomic>
#include <thread>
#include <vector>

using namespace troupe;
using namespace troupe::runtime;
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

struct served {
  explicit served(const blob_limits& limits = {})
      : listener(blob_listener::start(mine, "127.0.0.1", limits).value()) {
    // nop
  }

  protocol::endpoint where() const {
    return {"127.0.0.1", 0, listener->port(), 0};
  }

  /// Sends `line` over good TLS and returns all that comes back.
  std::string ask(const std::string& line) const {
    asio::ssl::context context{asio::ssl::context::tls_client};
    context.use_certificate_chain_file(mine.certificate.string());
    context.use_private_key_file(mine.key.string(), asio::ssl::context::pem);
    asio::io_context io;
    asio::ssl::stream<asio::ip::tcp::socket> stream{io, context};
    stream.next_layer().connect(
        {asio::ip::make_address("127.0.0.1"), listener->port()});
    stream.handshake(asio::ssl::stream_base::client);
    boost::system::error_code ignored;
    asio::write(stream, asio::buffer(line), ignored);
    std::string out;
    asio::read(stream, asio::dynamic_buffer(out), ignored);
    return out;
  }

  test::temporary_directory tmp;
  authority ca = authority::open(tmp.path() / "ca").value();
  credentials mine = ca.issue("node", tmp.path() / "node").value();
  std::unique_ptr<blob_listener> listener;
};

std::string large_content() {
  std::string out;
  for (std::uint32_t i = 0; i < 500'000; ++i)
    out += static_cast<char>(i * 2654435761u >> 24);
  return out;
}

} // namespace

TEST_CASE("a blob's name is the SHA-256 of its content") {
  CHECK(content_hash("abc") ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_CASE("a blob is fetched by its hash, whole or in parts") {
  served here;
  for (const auto& content :
       {std::string{}, std::string{"x"}, large_content()}) {
    auto hash = here.listener->add(content);
    REQUIRE(hash.has_value());
    auto got = fetch_blob(here.where(), *hash, here.mine, 5s);
    REQUIRE(got.has_value());
    CHECK(*got == content);
  }
  auto content = large_content();
  auto hash = here.listener->add(content).value();
  auto part = fetch_blob_part(here.where(), hash, 1000, 70'000, here.mine, 5s);
  REQUIRE(part.has_value());
  CHECK(*part == content.substr(1000, 70'000));
  part = fetch_blob_part(here.where(), hash, 499'990, 100, here.mine, 5s);
  REQUIRE(part.has_value());
  CHECK(*part == content.substr(499'990));
  part = fetch_blob_part(here.where(), hash, UINT64_MAX, 1, here.mine, 5s);
  REQUIRE(part.has_value());
  CHECK(part->empty());
}

TEST_CASE("a blob that is not there or too large is an error") {
  served here;
  auto missing = fetch_blob(here.where(), content_hash("no"), here.mine, 5s);
  REQUIRE_FALSE(missing.has_value());
  CHECK(missing.error().code == errc::not_found);
  auto hash = here.listener->add("0123456789").value();
  auto large = fetch_blob(here.where(), hash, here.mine, 5s, 9);
  REQUIRE_FALSE(large.has_value());
  CHECK(large.error().code == errc::limit);
  auto broken = fetch_blob(here.where(), "../../etc/passwd", here.mine, 5s);
  REQUIRE_FALSE(broken.has_value());
  CHECK(broken.error().code == errc::invalid_argument);
}

TEST_CASE("blobs are bounded together, and the same one counts once") {
  blob_limits limits;
  limits.blobs_bytes_max = 10;
  served here{limits};
  REQUIRE(here.listener->add("12345678").has_value());
  REQUIRE(here.listener->add("12345678").has_value());
  auto more = here.listener->add("abc");
  REQUIRE_FALSE(more.has_value());
  CHECK(more.error().code == errc::limit);
}

TEST_CASE("a malformed blob request is answered by closing") {
  served here;
  auto hash = here.listener->add("0123456789").value();
  CHECK(here.ask("GET " + hash + " 2 3\n") == "OK 10 3\n234");
  for (const auto& line :
       {std::string{"\n"}, "GET " + hash + "\n", "GET " + hash + " -1 0\n",
        "GET " + hash + " 0 99999999999999999999\n", "PUT " + hash + " 0 0\n",
        "GET " + hash + " 0 0 0\n", std::string(1000, 'x'),
        "GET " + hash.substr(1) + "\xff 0 0\n"})
    CHECK(here.ask(line).empty());
}

TEST_CASE("a stranger is given no blob") {
  served here;
  auto hash = here.listener->add("secret").value();
  auto other = authority::open(here.tmp.path() / "other").value();
  auto stranger = other.issue("x", here.tmp.path() / "stranger").value();
  CHECK_FALSE(fetch_blob(here.where(), hash, stranger, 5s).has_value());
  // Nor does a good process take one from a stranger.
  auto fake = blob_listener::start(stranger, "127.0.0.1").value();
  fake->add("secret");
  auto got = fetch_blob({"127.0.0.1", 0, fake->port(), 0}, hash, here.mine, 5s);
  REQUIRE_FALSE(got.has_value());
  CHECK(got.error().code == errc::unavailable);
}

TEST_CASE("a silent blob peer costs the time-out and no more") {
  served here;
  asio::io_context io;
  asio::ip::tcp::acceptor silent{io, {asio::ip::make_address("127.0.0.1"), 0}};
  auto got = fetch_blob({"127.0.0.1", 0, silent.local_endpoint().port(), 0},
                        content_hash("x"), here.mine, 200ms);
  REQUIRE_FALSE(got.has_value());
  CHECK(got.error().code == errc::unavailable);
}

TEST_CASE("idle connections end and do not keep good ones out for long") {
  blob_limits limits;
  limits.connections_max = 4;
  limits.request_max = 200ms;
  served here{limits};
  auto hash = here.listener->add("x").value();
  asio::io_context io;
  std::vector<asio::ip::tcp::socket> idle;
  for (int i = 0; i < 20; ++i)
    idle.emplace_back(io).connect(
        {asio::ip::make_address("127.0.0.1"), here.listener->port()});
  bool served_again = false;
  for (int i = 0; i < 50 && !served_again; ++i) {
    std::this_thread::sleep_for(50ms);
    served_again = fetch_blob(here.where(), hash, here.mine, 1s).has_value();
  }
  CHECK(served_again);
}

TEST_CASE("many fetches at once all get their blob") {
  served here;
  auto content = large_content();
  auto hash = here.listener->add(content).value();
  std::atomic<int> right = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&] {
      auto got = fetch_blob(here.where(), hash, here.mine, 10s);
      right += got.has_value() && *got == content;
    });
  for (auto& thread : threads)
    thread.join();
  CHECK(right == 8);
}
