#include "tests/unit/http/loopback.hpp"

#include <atomic>
#include <catch2/catch.hpp>
#include <filesystem>
#include <iterator>
#include <sys/resource.h>

using namespace troupe::http;
using namespace troupe::http::test;
using std::chrono::milliseconds;

namespace {

std::size_t thread_count() {
  std::filesystem::directory_iterator tasks("/proc/self/task");
  return std::distance(begin(tasks), end(tasks));
}

rlim_t open_files() {
  std::filesystem::directory_iterator files("/proc/self/fd");
  return std::distance(begin(files), end(files)) - 1; // less its own
}

/// Lowers the limit of open files while it lives.
class file_limit {
public:
  explicit file_limit(rlim_t files) {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    rlimit lowered{files, before_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &lowered);
  }
  ~file_limit() {
    ::setrlimit(RLIMIT_NOFILE, &before_);
  }
  file_limit(const file_limit&) = delete;
  file_limit& operator=(const file_limit&) = delete;

private:
  rlimit before_{};
};

} // namespace

TEST_CASE("requests sent byte by byte are answered as whole ones are") {
  test_server server;
  raw_client client(server.port());
  const std::vector<std::pair<std::string, std::string>> exchanges{
      {get("/a%20b?c=d"), "GET /a b "},
      {post("/x", "hello"), "POST /x hello"},
      {"POST /y HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
       "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: r\r\n\r\n",
       "POST /y abcde"},
      {"\r\nGET http://h/z HTTP/1.1\r\nHost: h\r\n\r\n", "GET /z "},
  };
  for (auto& [bytes, body] : exchanges) {
    client.send_byte_by_byte(bytes);
    CHECK(client.read_answer().body == body);
  }
}

TEST_CASE("pipelined requests are answered in order and then closed") {
  limits bounds;
  bounds.pipelined_requests = 100;
  reply_box box;
  auto keep = box.as_handler();
  test_server server(bounds, [&](request r, std::shared_ptr<reply> answer) {
    if (r.path == "/0")
      keep(std::move(r), std::move(answer));
    else
      answer->respond(200, {}, r.path);
  });
  raw_client client(server.port());
  std::string all;
  for (int i = 0; i < 1000; ++i)
    all += get("/" + std::to_string(i));
  client.send(all);
  box.next()->respond(200, {}, "/0");
  for (int i = 0; i < 99; ++i)
    REQUIRE(client.read_answer().body == "/" + std::to_string(i));
  auto last = client.read_answer();
  CHECK(last.body == "/99");
  CHECK(last.headers["connection"] == "close");
  CHECK(client.at_end());
  CHECK(server.seen().size() == 100);
}

TEST_CASE("a thousand pipelined requests pass where the bound allows them") {
  limits bounds;
  bounds.pipelined_requests = 1000;
  test_server server(bounds);
  raw_client client(server.port());
  std::string all;
  for (int i = 0; i < 1000; ++i)
    all += post("/" + std::to_string(i), "b");
  std::thread sender([&] { client.send(all); });
  for (int i = 0; i < 1000; ++i)
    REQUIRE(client.read_answer().body == "POST /" + std::to_string(i) + " b");
  sender.join();
}

TEST_CASE("a connection serves many requests one after the other") {
  limits bounds;
  bounds.pipelined_requests = 2;
  test_server server(bounds);
  raw_client client(server.port());
  for (int i = 0; i < 50; ++i) {
    client.send(get("/" + std::to_string(i)));
    REQUIRE(client.read_answer().body == "GET /" + std::to_string(i) + " ");
  }
  CHECK(server.get().connections() == 1);
}

TEST_CASE("a header that comes too slowly gets 408, however it drips") {
  limits bounds;
  bounds.header_time = milliseconds(150);
  test_server server(bounds);
  raw_client silent(server.port());
  silent.send("GET / HTTP/1.1\r\nHost:");
  CHECK(silent.read_answer().status == 408);
  CHECK(silent.at_end());

  raw_client dripping(server.port());
  std::thread drip([&] {
    dripping.send("GET / HTTP/1.1\r\nHost: h\r\n");
    for (int i = 0; i < 40; ++i) {
      std::this_thread::sleep_for(milliseconds(10));
      dripping.send("x");
    }
  });
  CHECK(dripping.read_answer().status == 408);
  drip.join();
  CHECK(server.seen().empty());
}

TEST_CASE("a body that comes too slowly gets 408, however it drips") {
  limits bounds;
  bounds.body_grace = milliseconds(150);
  test_server server(bounds);
  for (std::string framing : {"Content-Length: 100000\r\n\r\n",
                              "Transfer-Encoding: chunked\r\n\r\n186a0\r\n"}) {
    raw_client client(server.port());
    client.send("POST / HTTP/1.1\r\nHost: h\r\n" + framing);
    std::thread drip([&] {
      for (int i = 0; i < 40; ++i) {
        std::this_thread::sleep_for(milliseconds(10));
        client.send("x");
      }
    });
    CHECK(client.read_answer().status == 408);
    drip.join();
  }
  CHECK(server.seen().empty());
}

TEST_CASE("a body that keeps its pace may take longer than the grace") {
  limits bounds;
  bounds.body_grace = milliseconds(50);
  test_server server(bounds);
  raw_client client(server.port());
  const std::string piece(10'240, 'x'); // ten seconds' worth each
  client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 30720\r\n\r\n" +
              piece);
  std::this_thread::sleep_for(milliseconds(120));
  client.send(piece);
  std::this_thread::sleep_for(milliseconds(120));
  client.send(piece);
  CHECK(client.read_answer().status == 200);
}

TEST_CASE("idle connections are closed without a word") {
  SECTION("used ones") {
    limits bounds;
    bounds.keep_alive = milliseconds(100);
    test_server server(bounds);
    raw_client client(server.port());
    client.send(get("/"));
    CHECK(client.read_answer().status == 200);
    CHECK(client.at_end());
  }
  SECTION("unused ones") {
    limits bounds;
    bounds.header_time = milliseconds(100);
    test_server server(bounds);
    raw_client client(server.port());
    CHECK(client.at_end());
  }
}

TEST_CASE("a reader that takes nothing is closed") {
  limits bounds;
  bounds.write_stall = milliseconds(150);
  test_server server(bounds, [](request, std::shared_ptr<reply> r) {
    r->respond(200, {}, std::string(30'000'000, 'x'));
  });
  raw_client client(server.port(), 4096);
  client.send(get("/"));
  REQUIRE(eventually([&] { return server.seen().size() == 1; }));
  CHECK(eventually([&] { return server.get().connections() == 0; }));
  CHECK(server.get().requests_in_flight() == 0);
}

TEST_CASE("a stream whose reader takes nothing is closed, others go on") {
  limits bounds;
  bounds.write_stall = milliseconds(150);
  reply_box box;
  auto keep = box.as_handler();
  test_server server(bounds, [&](request r, std::shared_ptr<reply> answer) {
    if (r.path == "/slow")
      keep(std::move(r), std::move(answer));
    else
      answer->respond(200, {}, "fine");
  });
  raw_client client(server.port(), 4096);
  client.send(get("/slow"));
  auto slow = box.next();
  std::atomic<bool> gone{false};
  slow->on_client_gone([&] { gone = true; });
  slow->start_stream(200, {});
  CHECK(slow->write(std::string(3'000'000, 'x')));
  CHECK(eventually([&] { return gone.load(); }));
  CHECK_FALSE(slow->write("more"));
  raw_client other(server.port());
  other.send(get("/"));
  CHECK(other.read_answer().body == "fine");
}

TEST_CASE("connections beyond the limit wait until there is room") {
  limits bounds;
  bounds.connections = 2;
  test_server server(bounds);
  raw_client a(server.port());
  raw_client b(server.port());
  for (auto* c : {&a, &b}) {
    c->send(get("/"));
    CHECK(c->read_answer().status == 200);
  }
  raw_client third(server.port());
  third.send(get("/third"));
  std::this_thread::sleep_for(milliseconds(50));
  CHECK(server.get().connections() == 2);
  CHECK(server.seen().size() == 2);
  a.close();
  CHECK(third.read_answer().body == "GET /third ");
}

TEST_CASE("out of descriptors, accepting rests and recovers") {
  test_server server;
  constexpr int clients = 6;
  std::vector<std::unique_ptr<raw_client>> waiting;
  for (int i = 0; i < clients; ++i)
    waiting.push_back(std::make_unique<raw_client>(0));
  {
    file_limit room_for_few(open_files() + 2);
    for (auto& c : waiting) {
      c->connect(server.port());
      c->send(get("/"));
    }
    CHECK(waiting[0]->read_answer().status == 200);
    std::this_thread::sleep_for(milliseconds(150));
    CHECK(server.seen().size() < clients);
  }
  for (int i = 1; i < clients; ++i)
    CHECK(waiting[i]->read_answer().status == 200);
}

TEST_CASE("all bodies together are bounded") {
  limits bounds;
  bounds.body_bytes_total = 1000;
  reply_box box;
  test_server server(bounds, box.as_handler());
  raw_client a(server.port());
  a.send(post("/", std::string(600, 'x')));
  auto first = box.next();
  raw_client b(server.port());
  b.send(post("/", std::string(600, 'x')));
  auto refused = b.read_answer();
  CHECK(refused.status == 503);
  CHECK(refused.headers["retry-after"] == "1");
  CHECK(b.at_end());
  first->respond(200, {}, "");
  CHECK(a.read_answer().status == 200);
  raw_client c(server.port());
  c.send(post("/", std::string(600, 'x')));
  box.next()->respond(200, {}, "");
  CHECK(c.read_answer().status == 200);
}

TEST_CASE("streams cost no threads") {
  reply_box box;
  test_server server({}, box.as_handler());
  // This one and the server's; one that has ended may be listed for a moment.
  constexpr std::size_t threads = 3;
  REQUIRE(eventually([] { return thread_count() == threads; }));
  std::vector<std::unique_ptr<raw_client>> clients;
  for (int i = 0; i < 200; ++i) {
    clients.push_back(std::make_unique<raw_client>(server.port()));
    clients.back()->send(get("/"));
  }
  std::vector<std::shared_ptr<reply>> streams;
  for (std::size_t i = 0; i < clients.size(); ++i) {
    streams.push_back(box.next());
    streams.back()->start_stream(200, {});
    streams.back()->write("a");
  }
  CHECK(server.get().requests_in_flight() == 200);
  CHECK(server.get().connections() == 200);
  CHECK(thread_count() == threads);
  for (std::size_t i = 0; i < clients.size(); ++i)
    streams[i]->finish();
  for (auto& c : clients)
    CHECK(c->read_answer().body == "a");
}

TEST_CASE("a server that stops accepting finishes what it has") {
  reply_box box;
  test_server server({}, box.as_handler());
  raw_client idle(server.port());
  raw_client waiting(server.port());
  waiting.send(get("/1"));
  auto answer_due = box.next();
  raw_client reading(server.port());
  reading.send(get("/2"));
  auto stream = box.next();
  raw_client half(server.port());
  half.send(get("/3").substr(0, 10));
  stream->start_stream(200, {});
  reading.read_at_least(1);
  REQUIRE(eventually([&] { return server.get().connections() == 4; }));

  server.get().stop_accepting();
  CHECK(idle.at_end());
  CHECK(server.get().requests_in_flight() == 2);
  answer_due->respond(200, {}, "answered");
  auto got = waiting.read_answer();
  CHECK(got.body == "answered");
  CHECK(got.headers["connection"] == "close");
  CHECK(waiting.at_end());
  CHECK(stream->write("streamed"));
  stream->finish();
  CHECK(reading.read_to_end() == "8\r\nstreamed\r\n0\r\n\r\n");
  waiting.close();
  reading.close();
  half.close();
  idle.close();
  CHECK(eventually([&] { return server.get().connections() == 0; }));
  CHECK(eventually([&] {
    try {
      raw_client(0).connect(server.port());
      return false;
    } catch (const std::runtime_error&) {
      return true;
    }
  }));
}

TEST_CASE("a port in use and a host that is none are errors, not crashes") {
  test_server server;
  boost::asio::io_context io;
  server_options options;
  options.port = server.port();
  auto on_request = [](request, std::shared_ptr<reply>) {};
  auto second = server::start(io, options, on_request);
  REQUIRE(second.has_error());
  CHECK(second.error().code == troupe::errc::io);
  options.host = "256.0.0.1.";
  CHECK(server::start(io, options, on_request).has_error());
}
