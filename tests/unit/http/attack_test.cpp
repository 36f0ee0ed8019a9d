#include "tests/unit/http/loopback.hpp"

#include <catch2/catch.hpp>

using namespace troupe::http;
using namespace troupe::http::test;

namespace {

struct attack {
  std::string name;
  std::string bytes;
  int status;
};

std::string with_fields(std::string_view fields, std::string_view body = {}) {
  return std::string("POST /x HTTP/1.1\r\nHost: h\r\n")
      .append(fields)
      .append("\r\n")
      .append(body);
}

std::string chunked(std::string_view body) {
  return with_fields("Transfer-Encoding: chunked\r\n", body);
}

/// What must never be taken for a request.
const std::string smuggled = get("/smuggled");

void check_refused(const attack& a, limits bounds = {}) {
  INFO(a.name);
  test_server server(bounds);
  raw_client client(server.port());
  client.send(a.bytes + smuggled);
  auto got = client.read_answer();
  CHECK(got.status == a.status);
  CHECK(got.whole);
  CHECK(got.headers["connection"] == "close");
  CHECK(client.at_end());
  CHECK(server.seen().empty());
}

void check_refused(const std::vector<attack>& attacks) {
  for (auto& a : attacks)
    check_refused(a);
}

} // namespace

TEST_CASE("H1: a length beside a coding is refused") {
  const std::string chunks = "0\r\n\r\n";
  check_refused(
      {{"length, then chunked",
        with_fields("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
                    chunks),
        400},
       {"chunked, then length",
        with_fields("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
                    chunks),
        400},
       {"gzip, then length",
        with_fields("Transfer-Encoding: gzip\r\nContent-Length: 5\r\n",
                    "hello"),
        400}});
}

TEST_CASE("H2: no coding but chunked alone is known") {
  for (std::string coding :
       {"xchunked", "chunked, gzip", "gzip, chunked", ",chunked", "chunked,",
        "identity", "gzip",
        "\x0b"
        "chunked",
        "chunked\x0b", "\"chunked\"", "chunked;q=1", "", "chunked chunked"})
    check_refused({coding,
                   with_fields("Transfer-Encoding: " + coding + "\r\n",
                               "5\r\nhello\r\n0\r\n\r\n"),
                   400});
  check_refused({"two coding fields",
                 with_fields("Transfer-Encoding: chunked\r\n"
                             "Transfer-Encoding: chunked\r\n",
                             "0\r\n\r\n"),
                 400});
  check_refused({"chunked and identity in two fields",
                 with_fields("Transfer-Encoding: chunked\r\n"
                             "transfer-encoding: identity\r\n",
                             "0\r\n\r\n"),
                 400});
}

TEST_CASE("H3: a length is one decimal number, and 1.0 knows no coding") {
  check_refused({"chunks in HTTP/1.0",
                 "POST /x HTTP/1.0\r\nHost: h\r\n"
                 "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                 400});
  for (std::string length :
       {"5, 5", "+5", "0x5", "", "-1", "18446744073709551616", "5 5", "5;",
        "99999999999999999999999999", "1e1", "\xd9\xa5"})
    check_refused({"length " + length,
                   with_fields("Content-Length: " + length + "\r\n", "hello"),
                   400});
  check_refused(
      {{"two lengths that differ",
        with_fields("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!"),
        400},
       {"two equal lengths",
        with_fields("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
        400}});
}

TEST_CASE("H4: chunks are well-formed") {
  check_refused(
      {{"size 0x1", chunked("0x1\r\na\r\n0\r\n\r\n"), 400},
       {"size +1", chunked("+1\r\na\r\n0\r\n\r\n"), 400},
       {"size 1_0", chunked("1_0\r\n0123456789abcdef\r\n0\r\n\r\n"), 400},
       {"17 digits", chunked("00000000000000001\r\na\r\n0\r\n\r\n"), 400},
       {"no size", chunked("\r\na\r\n0\r\n\r\n"), 400},
       {"space behind the size", chunked("1 \r\na\r\n0\r\n\r\n"), 400},
       {"bare LF behind the size", chunked("1\na\r\n0\r\n\r\n"), 400},
       {"bare LF behind the data", chunked("1\r\na\n0\r\n\r\n"), 400},
       {"bare LF at the end", chunked("0\r\n\n"), 400},
       {"bare LF in an extension", chunked("1;a\nb\r\na\r\n0\r\n\r\n"), 400},
       {"bare CR in an extension", chunked("1;a\rb\r\na\r\n0\r\n\r\n"), 400},
       {"data longer than said", chunked("1\r\nab\r\n0\r\n\r\n"), 400},
       {"two bytes for the end", chunked("1\r\naXX0\r\n\r\n"), 400},
       {"100 KB extension",
        chunked("1;" + std::string(100'000, 'x') + "\r\na\r\n0\r\n\r\n"), 400},
       {"100 KB of extensions in small chunks", chunked([] {
          std::string all;
          for (int i = 0; i < 1000; ++i)
            all += "1;" + std::string(100, 'x') + "\r\na\r\n";
          return all;
        }()),
        400}});
}

TEST_CASE("H5: trailers are dropped and bounded") {
  test_server server;
  raw_client client(server.port());
  client.send(chunked("2\r\nhi\r\n0\r\nAuthorization: Bearer x\r\n"
                      "Content-Length: 99\r\n\r\n"));
  CHECK(client.read_answer().body == "POST /x hi");
  auto seen = server.seen();
  REQUIRE(seen.size() == 1);
  CHECK(seen[0].header("authorization").empty());
  CHECK(seen[0].header("content-length").empty());

  raw_client flood(server.port());
  flood.send(chunked("0\r\n"));
  const std::string megabyte = [] {
    std::string lines;
    while (lines.size() < 1'000'000)
      lines += "Trailer: " + std::string(80, 'x') + "\r\n";
    return lines;
  }();
  for (int i = 0; i < 50 && flood.send(megabyte); ++i) {
  }
  CHECK(flood.read_answer().status == 400);
  CHECK(flood.at_end());
  check_refused({"malformed trailer", chunked("0\r\na b\r\n\r\n"), 400});
  CHECK(server.seen().size() == 1);
}

TEST_CASE("H6: there is one valid Host, and the target agrees with it") {
  auto request = [](std::string_view target, std::string_view fields) {
    return std::string("GET ")
        .append(target)
        .append(" HTTP/1.1\r\n")
        .append(fields)
        .append("\r\n");
  };
  check_refused(
      {{"none", request("/", "X: y\r\n"), 400},
       {"none in 1.0", "GET / HTTP/1.0\r\n\r\n", 400},
       {"empty", request("/", "Host:\r\n"), 400},
       {"two", request("/", "Host: a\r\nHost: b\r\n"), 400},
       {"two equal ones", request("/", "Host: a\r\nhost: a\r\n"), 400},
       {"list", request("/", "Host: a, b\r\n"), 400},
       {"path inside", request("/", "Host: a/v1/x?\r\n"), 400},
       {"user inside", request("/", "Host: a\\@b\r\n"), 400},
       {"port too large", request("/", "Host: a:65536\r\n"), 400},
       {"target elsewhere", request("http://b/", "Host: a\r\n"), 400},
       {"target's port elsewhere", request("http://a:1/", "Host: a:2\r\n"),
        400},
       {"target with a user", request("http://u@a/", "Host: a\r\n"), 400},
       {"other scheme", request("ftp://a/", "Host: a\r\n"), 400},
       {"authority form", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 400},
       {"asterisk form", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400}});
}

TEST_CASE("H7: lines and fields are well-formed") {
  auto nul = [](std::string text) {
    text.replace(text.find('@'), 1, 1, '\0');
    return text;
  };
  check_refused(
      {{"folded field", with_fields("A: b\r\n c\r\n"), 400},
       {"folded with tab", with_fields("A: b\r\n\tc\r\n"), 400},
       {"folded first field", "GET / HTTP/1.1\r\n Host: h\r\nHost: h\r\n\r\n",
        400},
       {"NUL in a value", nul(with_fields("A: b@c\r\n")), 400},
       {"NUL in a name", nul(with_fields("A@: b\r\n")), 400},
       {"NUL in the target", nul("GET /@ HTTP/1.1\r\nHost: h\r\n\r\n"), 400},
       {"CR in a value", with_fields("A: b\rc\r\n"), 400},
       {"LF in a value", with_fields("A: b\nc: d\r\n"), 400},
       {"space before the colon", with_fields("Content-Length : 5\r\n"), 400},
       {"empty name", with_fields(": b\r\n"), 400},
       {"no colon", with_fields("abc\r\n"), 400},
       {"raw UTF-8 target", "GET /\xc3\xa4 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
       {"HTTP/0.9", "GET /\n", 400},
       {"HTTP/0.9 with CR", "GET /\r\n", 400},
       {"bare LF everywhere", "GET / HTTP/1.1\nHost: h\n\n", 400},
       {"two spaces", "GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
       {"tab for a space", "GET\t/\tHTTP/1.1\r\nHost: h\r\n\r\n", 400},
       {"space in the target", "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400},
       {"space behind the version", "GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400},
       {"two empty lines first", "\r\n\r\nGET / HTTP/1.1\r\n", 400},
       {"bad method", "G(T / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
       {"lower-case version", "GET / http/1.1\r\nHost: h\r\n\r\n", 400},
       {"TLS hello", std::string("\x16\x03\x01\x02\x00\x01\n", 7), 400}});
}

TEST_CASE("H8: what is too large has its own status") {
  std::string many;
  for (int i = 0; i < 10'000; ++i)
    many += "A: b\r\n";
  std::string short_ones;
  for (int i = 0; i < 101; ++i)
    short_ones += "A: b\r\n";
  check_refused(
      {{"9 KB header", with_fields("A: " + std::string(9'000, 'x') + "\r\n"),
        431},
       {"1 MB header",
        with_fields("A: " + std::string(1'000'000, 'x') + "\r\n"), 431},
       {"10,000 fields", with_fields(many), 431},
       {"101 fields in 1 KB", with_fields(short_ones), 431},
       {"70 KB target",
        "GET /" + std::string(70'000, 'x') + " HTTP/1.1\r\nHost: h\r\n\r\n",
        414},
       {"65 MB announced", with_fields("Content-Length: 68157440\r\n"), 413},
       {"2^64 - 1 announced",
        with_fields("Content-Length: 18446744073709551615\r\n"), 413},
       {"HTTP/2.0", "GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505},
       {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
       {"HTTP/1.2", "GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505},
       {"HTTP/0.9 in line", "GET / HTTP/0.9\r\nHost: h\r\n\r\n", 505}});
}

TEST_CASE("H8: a body that is sent but too large gets its 413") {
  limits bounds;
  bounds.body_bytes = 1u << 20;
  test_server server(bounds);
  for (bool in_chunks : {false, true}) {
    raw_client client(server.port());
    const std::string piece(65536, 'x');
    client.send(in_chunks
                    ? chunked("")
                    : with_fields("Content-Length: " +
                                  std::to_string(65 * piece.size()) + "\r\n"));
    for (int i = 0; i < 65; ++i)
      client.send(in_chunks ? "10000\r\n" + piece + "\r\n" : piece);
    CHECK(client.read_answer().status == 413);
    CHECK(client.at_end());
  }
  CHECK(server.seen().empty());
}

TEST_CASE("H9: the server says 100 and then waits for the body only so long") {
  limits bounds;
  bounds.body_grace = std::chrono::milliseconds(100);
  test_server server(bounds);
  raw_client client(server.port());
  client.send(with_fields("Expect: 100-continue\r\nContent-Length: 5\r\n"));
  CHECK(client.read_answer().status == 100);
  CHECK(client.read_answer().status == 408);
  CHECK(client.at_end());
  CHECK(server.seen().empty());
}

TEST_CASE("H9: 100 comes before a body and other expectations are refused") {
  test_server server;
  raw_client client(server.port());
  client.send(with_fields("Expect: 100-continue\r\nContent-Length: 5\r\n"));
  CHECK(client.read_answer().status == 100);
  client.send("hello");
  CHECK(client.read_answer().body == "POST /x hello");
  client.send(with_fields("Expect: 100-continue\r\n"
                          "Transfer-Encoding: chunked\r\n"));
  CHECK(client.read_answer().status == 100);
  client.send("2\r\nhi\r\n0\r\n\r\n");
  CHECK(client.read_answer().body == "POST /x hi");
  // A body that is already there needs no permission.
  client.send(
      with_fields("Expect: 100-continue\r\nContent-Length: 2\r\n", "hi"));
  CHECK(client.read_answer().body == "POST /x hi");
  check_refused({{"other expectation", with_fields("Expect: 200-ok\r\n"), 417},
                 {"too large a body is not invited",
                  with_fields("Expect: 100-continue\r\n"
                              "Content-Length: 99999999999\r\n"),
                  413}});
}

TEST_CASE("H9: a client that leaves after its first request harms nobody") {
  test_server server;
  for (int i = 0; i < 50; ++i) {
    raw_client client(server.port());
    client.send(get("/1") + "GET /2 HTT");
    if (i % 2 == 0)
      client.reset();
  }
  raw_client client(server.port());
  client.send(get("/fine"));
  CHECK(client.read_answer().status == 200);
  CHECK(eventually([&] { return server.get().connections() == 1; }));
  CHECK(eventually([&] { return server.get().requests_in_flight() == 0; }));
}

TEST_CASE("H10: coded content is refused undecoded") {
  for (std::string coding : {"gzip", "br", "identity, gzip", "deflate", ""})
    check_refused({coding,
                   with_fields("Content-Encoding: " + coding +
                                   "\r\nContent-Length: 4\r\n",
                               "\x1f\x8b\x08\x01"),
                   415});
  test_server server;
  raw_client client(server.port());
  client.send(post("/x", "hi", "Content-Encoding: Identity\r\n"));
  CHECK(client.read_answer().body == "POST /x hi");
}

TEST_CASE("A1: a path has one spelling") {
  for (std::string path :
       {"//v1/models", "/v1/../admin", "/v1/./x", "/v1/..", "/%2e%2e/x",
        "/v1//", "/v1%2f..%2fadmin", "/%00", "/a%0d%0ab", "/%zz", "/%4"})
    check_refused({path, get(path), 400});
  test_server server;
  raw_client client(server.port());
  client.send(get("/%761/models"));
  CHECK(client.read_answer().body == "GET /v1/models ");
  client.send(get("/v1/models/org%2Fname"));
  CHECK(client.read_answer().body == "GET /v1/models/org/name ");
}

TEST_CASE("A1: every well-formed method reaches the handler") {
  test_server server;
  raw_client client(server.port());
  for (std::string method : {"OPTIONS", "TRACE", "PATCH", "DELETE", "BREW"}) {
    client.send(method + " /x HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK(client.read_answer().body == method + " /x ");
  }
  client.send("HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n");
  auto head = client.read_answer(false);
  CHECK(head.status == 200);
  CHECK(head.headers["content-length"] == "8");
  client.send(get("/next"));
  CHECK(client.read_answer().body == "GET /next ");
}
