#include "tests/unit/http/loopback.hpp"

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <stdexcept>

using namespace troupe::http;
using namespace troupe::http::test;

namespace {

std::string get_1_0(std::string_view more_fields = {}) {
  return std::string("GET / HTTP/1.0\r\nHost: h\r\n")
      .append(more_fields)
      .append("\r\n");
}

/// A stream of more than any socket holds, whose reader has taken nothing.
struct unread_stream {
  reply_box box;
  test_server server{{}, box.as_handler()};
  raw_client client{server.port(), 4096};
  const std::string token = std::string(1000, 'x');
  std::size_t given = 0; ///< bytes
  std::shared_ptr<reply> r;

  unread_stream() {
    client.send(get("/"));
    r = box.next();
    r->start_stream(200, {});
    for (; given < 3'000'000; given += token.size())
      r->write(token);
  }
};

} // namespace

TEST_CASE("an answer may come later and from any thread") {
  reply_box box;
  test_server server({}, box.as_handler());
  raw_client client(server.port());
  client.send(get("/"));
  auto r = box.next();
  CHECK(server.get().requests_in_flight() == 1);
  std::thread([&] {
    r->respond(201, {{"Content-Type", "a/b"}, {"X", "y"}}, "body");
  }).join();
  auto got = client.read_answer();
  CHECK(got.status == 201);
  CHECK(got.headers["content-type"] == "a/b");
  CHECK(got.headers["x"] == "y");
  CHECK(got.headers["content-length"] == "4");
  CHECK(got.headers["date"].size() == 29);
  CHECK(got.headers.count("connection") == 0);
  CHECK(got.body == "body");
  CHECK(eventually([&] { return server.get().requests_in_flight() == 0; }));
}

TEST_CASE("calls behind the end of an answer are ignored") {
  reply_box box;
  test_server server({}, box.as_handler());
  raw_client client(server.port());
  client.send(get("/1"));
  auto first = box.next();
  first->respond(200, {}, "first");
  first->respond(200, {}, "again");
  CHECK(client.read_answer().body == "first");
  client.send(get("/2"));
  auto second = box.next();
  first->respond(200, {}, "again");
  first->start_stream(200, {});
  CHECK_FALSE(first->write("again"));
  first->finish();
  first->abort();
  first.reset();
  second->respond(200, {}, "second");
  CHECK(client.read_answer().body == "second");
}

TEST_CASE("a long answer arrives whole") {
  const std::string body(5'000'000, 'x');
  test_server server({}, [&](request, std::shared_ptr<reply> r) {
    r->respond(200, {}, body);
  });
  raw_client client(server.port());
  for (int i = 0; i < 3; ++i) {
    client.send(get("/"));
    auto got = client.read_answer();
    CHECK(got.whole);
    CHECK(got.body == body);
  }
}

TEST_CASE("a stream arrives piece by piece, in order and with an end") {
  reply_box box;
  test_server server({}, box.as_handler());
  raw_client client(server.port());
  client.send(get("/"));
  auto r = box.next();
  r->start_stream(200, {{"Content-Type", "text/event-stream"}});
  CHECK(r->write("data: 1\n\n"));
  auto seen = client.read_at_least(1);
  while (seen.find("data: 1\n\n\r\n") == seen.npos)
    seen += client.read_at_least(1);
  CHECK(seen.find("Transfer-Encoding: chunked\r\n") != seen.npos);
  CHECK(seen.find("\r\n\r\n9\r\ndata: 1\n\n\r\n") != seen.npos);
  CHECK(r->write("data: 2\n\n"));
  CHECK(r->write("")); // would be the end if it were sent
  CHECK(r->write("data: 3\n\n"));
  r->finish();
  CHECK_FALSE(r->write("late"));
  seen = client.read_at_least(33);
  while (seen.find("0\r\n\r\n") == seen.npos)
    seen += client.read_at_least(1);
  CHECK(seen == "9\r\ndata: 2\n\n\r\n9\r\ndata: 3\n\n\r\n0\r\n\r\n");
  client.send(get("/next"));
  box.next()->respond(200, {}, "kept");
  CHECK(client.read_answer().body == "kept");
}

TEST_CASE("a stream inside the handler is whole") {
  test_server server({}, [](request, std::shared_ptr<reply> r) {
    r->start_stream(200, {});
    for (int i = 0; i < 100; ++i)
      r->write(std::to_string(i) + ";");
    r->finish();
  });
  raw_client client(server.port());
  std::string expected;
  for (int i = 0; i < 100; ++i)
    expected += std::to_string(i) + ";";
  for (int i = 0; i < 3; ++i) {
    client.send(get("/"));
    auto got = client.read_answer();
    CHECK(got.whole);
    CHECK(got.body == expected);
  }
}

TEST_CASE("streams written by many threads stay apart") {
  reply_box box;
  test_server server({}, box.as_handler());
  constexpr int streams = 8;
  constexpr int writes = 300;
  std::vector<std::unique_ptr<raw_client>> clients;
  std::vector<std::thread> writers;
  for (int s = 0; s < streams; ++s) {
    clients.push_back(std::make_unique<raw_client>(server.port()));
    clients.back()->send(get("/"));
    writers.emplace_back([r = box.next(), s] {
      r->start_stream(200, {});
      for (int i = 0; i < writes; ++i)
        r->write(std::to_string(s) + "," + std::to_string(i) + ";");
      r->finish();
    });
  }
  for (int s = 0; s < streams; ++s) {
    std::string expected;
    for (int i = 0; i < writes; ++i)
      expected += std::to_string(s) + "," + std::to_string(i) + ";";
    auto got = clients[s]->read_answer();
    CHECK(got.whole);
    CHECK(got.body == expected);
  }
  for (auto& w : writers)
    w.join();
}

TEST_CASE("an aborted stream has no end") {
  reply_box box;
  test_server server({}, box.as_handler());
  for (bool dropped : {false, true}) {
    raw_client client(server.port());
    client.send(get("/"));
    auto r = box.next();
    r->start_stream(200, {});
    r->write("partial");
    if (dropped)
      r.reset();
    else
      r->abort();
    auto got = client.read_answer();
    CHECK(got.status == 200);
    CHECK(got.body == "partial");
    CHECK_FALSE(got.whole);
    CHECK(client.at_end());
  }
}

TEST_CASE("an answer aborted before its head closes the connection") {
  reply_box box;
  test_server server({}, box.as_handler());
  raw_client client(server.port());
  client.send(get("/"));
  box.next()->abort();
  CHECK(client.at_end());
}

TEST_CASE(
    "HTTP/1.0 gets a stream until close, or a reset in place of the end") {
  reply_box box;
  test_server server({}, box.as_handler());
  raw_client client(server.port());
  client.send(get_1_0("Connection: keep-alive\r\n"));
  auto r = box.next();
  r->start_stream(200, {});
  r->write("a");
  r->write("b");
  r->finish();
  auto got = client.read_answer();
  CHECK(got.headers.count("transfer-encoding") == 0);
  CHECK(got.headers["connection"] == "close");
  CHECK(got.body == "ab");

  raw_client cut(server.port());
  cut.send(get_1_0());
  r = box.next();
  r->start_stream(200, {});
  r->write("a");
  cut.read_at_least(1);
  r->abort();
  cut.read_to_end();
  CHECK_FALSE(cut.at_end());
}

TEST_CASE("HTTP/1.0 is closed unless it asks for more") {
  test_server server;
  raw_client client(server.port());
  client.send(get_1_0("Connection: keep-alive\r\n"));
  CHECK(client.read_answer().headers["connection"] == "keep-alive");
  client.send(get_1_0());
  CHECK(client.read_answer().headers["connection"] == "close");
  CHECK(client.at_end());
}

TEST_CASE("a client that says close is closed behind its answer") {
  test_server server;
  raw_client client(server.port());
  client.send(get("/1", "Connection: close\r\n") + get("/2"));
  CHECK(client.read_answer().headers["connection"] == "close");
  CHECK(client.at_end());
  CHECK(server.seen().size() == 1);
}

TEST_CASE("HEAD and 204 have no body, streamed or not") {
  reply_box box;
  test_server server({}, box.as_handler());
  raw_client client(server.port());
  const std::string head = "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n";
  client.send(head);
  box.next()->respond(200, {}, "12345");
  CHECK(client.read_answer(false).headers["content-length"] == "5");
  client.send(head);
  auto r = box.next();
  r->start_stream(200, {});
  CHECK(r->write("abc"));
  r->finish();
  CHECK(client.read_answer(false).status == 200);
  client.send(get("/"));
  box.next()->respond(204, {}, "abc");
  auto got = client.read_answer();
  CHECK(got.status == 204);
  CHECK(got.headers.count("content-length") == 0);
  client.send(get("/"));
  box.next()->respond(200, {}, "in step");
  CHECK(client.read_answer().body == "in step");
}

TEST_CASE("a handler's fields can neither split an answer nor frame it") {
  test_server server({}, [](request, std::shared_ptr<reply> r) {
    r->respond(200,
               {{"X-Bad", "a\r\nX-Evil: 1"},
                {"X Bad", "a"},
                {"content-length", "999"},
                {"Transfer-Encoding", "chunked"},
                {"Connection", "close"},
                {"X-Good", "b"}},
               "ok");
  });
  raw_client client(server.port());
  client.send(get("/"));
  auto got = client.read_answer();
  CHECK(got.body == "ok");
  CHECK(got.headers["x-good"] == "b");
  CHECK(got.headers.size() == 3); // with Date and Content-Length
}

TEST_CASE("a reply that is dropped or whose handler throws becomes 500") {
  test_server server({}, [](request r, std::shared_ptr<reply>) {
    if (r.path == "/throw")
      throw std::runtime_error("secret");
  });
  raw_client client(server.port());
  for (auto path : {"/drop", "/throw"}) {
    client.send(get(path));
    auto got = client.read_answer();
    CHECK(got.status == 500);
    CHECK(got.body.find("secret") == got.body.npos);
  }
  CHECK(eventually([&] { return server.get().requests_in_flight() == 0; }));
}

TEST_CASE("a reply that a throwing handler has kept is answered with 500 too") {
  std::shared_ptr<reply> kept;
  test_server server({}, [&](request, std::shared_ptr<reply> r) {
    kept = r;
    throw 1;
  });
  raw_client client(server.port());
  client.send(get("/"));
  CHECK(client.read_answer().status == 500);
  kept->respond(200, {}, "too late");
  kept.reset();
}

TEST_CASE("the layer's own errors have the body that was asked for") {
  server_options options;
  options.error_body = [](int status, std::string_view sentence) {
    return std::pair<std::string, std::string>{"application/json",
                                               std::to_string(status) + "|" +
                                                   std::string(sentence)};
  };
  test_server server({}, {}, options);
  raw_client client(server.port());
  client.send("GET / HTTP/3.0\r\n");
  auto got = client.read_answer();
  CHECK(got.status == 505);
  CHECK(got.headers["content-type"] == "application/json");
  CHECK(got.body == "505|Only HTTP/1.1 and HTTP/1.0 are spoken here.");
}

TEST_CASE("a client that closes or resets while it is owed an answer is gone") {
  reply_box box;
  test_server server({}, box.as_handler());
  for (bool reset : {false, true}) {
    for (bool streaming : {false, true}) {
      raw_client client(server.port());
      client.send(get("/"));
      auto r = box.next();
      std::atomic<int> calls{0};
      r->on_client_gone([&] { ++calls; });
      if (streaming) {
        r->start_stream(200, {});
        CHECK(r->write("a"));
        client.read_at_least(1);
      }
      if (reset)
        client.reset();
      else
        client.close();
      // Of a close a stream hears by what it sends, as others by a probe.
      if (streaming)
        CHECK(eventually([&] { return !r->write("b"); }));
      CHECK(eventually([&] { return calls == 1; }));
      CHECK(eventually([&] { return !r->write("b"); }));
      std::atomic<int> late{0};
      r->on_client_gone([&] { ++late; });
      CHECK(eventually([&] { return late == 1; }));
      r.reset();
      CHECK(eventually([&] { return server.get().connections() == 0; }));
      CHECK(server.get().requests_in_flight() == 0);
      CHECK(calls == 1);
    }
  }
}

TEST_CASE("on_client_gone is dropped when the answer ends") {
  reply_box box;
  test_server server({}, box.as_handler());
  raw_client client(server.port());
  client.send(get("/"));
  auto r = box.next();
  auto token = std::make_shared<int>(0);
  std::weak_ptr<int> weak = token;
  std::atomic<bool> called{false};
  r->on_client_gone([token = std::move(token), &called] { called = true; });
  r->respond(200, {}, "done");
  CHECK(weak.expired());
  CHECK(client.read_answer().body == "done");
  client.close();
  CHECK(eventually([&] { return server.get().connections() == 0; }));
  CHECK_FALSE(called);
}

TEST_CASE("a callback that holds its own reply does not keep it for ever") {
  reply_box box;
  test_server server({}, box.as_handler());
  raw_client client(server.port());
  client.send(get("/"));
  auto r = box.next();
  std::weak_ptr<reply> weak = r;
  r->on_client_gone([r] { r->abort(); });
  r.reset();
  client.close();
  CHECK(eventually([&] { return weak.expired(); }));
  CHECK(eventually([&] { return server.get().connections() == 0; }));
}

TEST_CASE("a client that only ends its sending gets its whole answers") {
  reply_box box;
  test_server server({}, box.as_handler());
  for (auto version : {"1.1", "1.0"}) {
    raw_client client(server.port());
    client.send("GET / HTTP/" + std::string(version) +
                "\r\nHost: h\r\nConnection: keep-alive\r\n\r\n" + get("/2") +
                get("/3"));
    client.end_sending();
    auto first = box.next();
    std::atomic<bool> gone{false};
    first->on_client_gone([&] { gone = true; });
    // The server looks whether it is still there, by what all answers begin
    // with.
    auto seen = client.read_at_least(2);
    CHECK(std::string("HTTP/1.1 ").find(seen) == 0);
    first->respond(200, {}, "first");
    auto second = box.next();
    second->on_client_gone([&] { gone = true; });
    second->start_stream(200, {});
    for (int i = 0; i < 100; ++i)
      CHECK(second->write("piece " + std::to_string(i)));
    second->finish();
    box.next()->respond(200, {}, "third");
    seen += client.read_to_end();
    CHECK(seen.find("HTTP/1.1 200 OK\r\n") == 0);
    CHECK(seen.find("\r\n\r\nfirstHTTP/1.1 200 OK\r\n") != seen.npos);
    CHECK(seen.find("piece 99\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n") != seen.npos);
    CHECK(seen.substr(seen.size() - 9) == "\r\n\r\nthird");
    CHECK_FALSE(gone);
  }
}

TEST_CASE("a client that ends its sending and then leaves is gone soon") {
  reply_box box;
  test_server server({}, box.as_handler());
  raw_client client(server.port());
  client.send(get("/"));
  client.end_sending();
  auto r = box.next();
  std::atomic<bool> gone{false};
  r->on_client_gone([&] { gone = true; });
  client.read_at_least(1); // it is still there
  client.close();
  CHECK(eventually([&] { return gone.load(); }));
  CHECK(eventually([&] { return server.get().connections() == 0; }));
}

TEST_CASE_METHOD(unread_stream, "a stream has no room while its reader has "
                                "much to take, and room again then") {
  REQUIRE_FALSE(r->has_room());
  std::atomic<int> earlier{0};
  std::atomic<int> calls{0};
  r->on_room([&] { ++earlier; });
  r->on_room([&] { ++calls; });
  // What is given nevertheless is not lost.
  CHECK(r->write(token));
  CHECK(calls == 0);

  auto received = client.read_at_least(given / 2);
  std::thread reader([&] { received += client.read_to_end(); });
  CHECK(eventually([&] { return calls == 1; }));
  CHECK(eventually([&] { return r->has_room(); }));
  r->on_room([&] { ++calls; }); // at once
  CHECK(calls == 2);
  CHECK(earlier == 0);
  r->finish();
  r->on_room([&] { ++calls; });
  server.get().stop_accepting();
  reader.join();
  CHECK(calls == 2);
  CHECK(std::count(received.begin(), received.end(), 'x') ==
        static_cast<std::ptrdiff_t>(given + token.size()));
}

TEST_CASE_METHOD(unread_stream, "who waits for room hears that the client has "
                                "left, and is let go") {
  auto waiting = std::make_shared<int>(0);
  std::weak_ptr<int> weak = waiting;
  std::atomic<bool> alive_when_told{false};
  r->on_room([kept = std::move(waiting)] {});
  r->on_client_gone([&] { alive_when_told = !weak.expired(); });
  client.reset();
  CHECK(eventually([&] { return weak.expired(); }));
  CHECK(alive_when_told);
  CHECK(r->has_room()); // and write says why
  CHECK_FALSE(r->write(token));
}

TEST_CASE("a request pipelined behind a pending answer is kept") {
  reply_box box;
  test_server server({}, box.as_handler());
  raw_client client(server.port());
  client.send(get("/1"));
  auto first = box.next();
  client.send(post("/2", "hello") + get("/3"));
  CHECK(box.size() == 0);
  first->respond(200, {}, "1");
  box.next()->respond(200, {}, "2");
  box.next()->respond(200, {}, "3");
  for (auto body : {"1", "2", "3"})
    CHECK(client.read_answer().body == body);
  CHECK(server.seen()[1].body == "hello");
}

TEST_CASE("replies outlive their server") {
  reply_box box;
  test_server server({}, box.as_handler());
  raw_client waiting(server.port());
  waiting.send(get("/"));
  auto answer = box.next();
  raw_client reading(server.port());
  reading.send(get("/"));
  auto stream = box.next();
  stream->start_stream(200, {});
  std::atomic<int> gone{0};
  answer->on_client_gone([&] { ++gone; });
  stream->on_client_gone([&] { ++gone; });
  server.destroy_server();
  CHECK_FALSE(stream->write("a"));
  answer->respond(200, {}, "a");
  stream->finish();
  waiting.read_to_end();
  reading.read_to_end();
  CHECK(eventually([&] { return gone == 2; }));
}

TEST_CASE("replies outlive their io_context") {
  reply_box box;
  std::shared_ptr<reply> awaited;
  std::shared_ptr<reply> streamed;
  bool told = false;
  {
    test_server server({}, box.as_handler());
    raw_client a(server.port());
    a.send(get("/"));
    awaited = box.next();
    raw_client b(server.port());
    b.send(get("/"));
    streamed = box.next();
    streamed->start_stream(200, {});
    CHECK(streamed->write("a"));
  }
  awaited->on_client_gone([&] { told = true; });
  CHECK(told);
  awaited->respond(200, {}, "late");
  CHECK_FALSE(streamed->write("late"));
  streamed.reset();
}

TEST_CASE("a server may be destroyed while clients come and go") {
  for (int round = 0; round < 20; ++round) {
    auto server = std::make_unique<test_server>(
        limits{}, [](request, std::shared_ptr<reply> r) {
          std::thread([r] { r->respond(200, {}, "a"); }).detach();
        });
    std::vector<std::unique_ptr<raw_client>> clients;
    for (int i = 0; i < 10; ++i) {
      clients.push_back(std::make_unique<raw_client>(server->port()));
      clients.back()->send(get("/"));
    }
    clients[0]->read_answer();
    server->destroy_server();
    for (auto& c : clients)
      c->read_to_end();
  }
}
