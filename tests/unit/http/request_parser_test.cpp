#include "router/http/request_parser.hpp"

#include <catch2/catch.hpp>
#include <random>

using namespace troupe::http;

namespace {

using stage = request_parser::stage;

struct outcome {
  std::vector<request> requests;
  stage last = stage::request_line;
  int status = 0;

  bool operator==(const outcome&) const = default;
};

void feed(request_parser& parser, std::string_view bytes, outcome& out) {
  while (!bytes.empty() && parser.where() != stage::failed) {
    bytes.remove_prefix(parser.feed(bytes));
    if (parser.where() == stage::done)
      out.requests.push_back(parser.take());
  }
}

/// Parses `bytes` in pieces whose sizes `next_size` tells.
template <class NextSize>
outcome parse(std::string_view bytes, const limits& bounds,
              NextSize next_size) {
  request_parser parser(bounds);
  outcome out;
  while (!bytes.empty()) {
    auto piece = bytes.substr(0, next_size());
    feed(parser, piece, out);
    bytes.remove_prefix(piece.size());
  }
  out.last = parser.where();
  out.status = parser.why().status;
  return out;
}

outcome parse_whole(std::string_view bytes, const limits& bounds = {}) {
  return parse(bytes, bounds, [] { return std::string::npos; });
}

outcome parse_bytewise(std::string_view bytes, const limits& bounds = {}) {
  return parse(bytes, bounds, [] { return 1; });
}

const std::vector<std::string>& valid_requests() {
  static const std::vector<std::string> requests{
      "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
      "\r\nGET /a?b=c HTTP/1.1\r\nhost:\th:80 \r\nX:\r\n\r\n",
      "GET http://H:80/a HTTP/1.1\r\nHost: h:80\r\n\r\n",
      "POST /v1/x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
      "POST /v1/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: CHUNKED\r\n\r\n"
      "5\r\nhello\r\n00A;ext=\"x\"\r\n0123456789\r\n0\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
      "1\r\nx\r\n0\r\nTrailer: dropped\r\nOther: too\r\n\r\n",
      "PUT /a%20b/c HTTP/1.0\r\nHost: [::1]:8000\r\nContent-Length: 0\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\n"
      "Content-Length: 3\r\nContent-Encoding: identity\r\n\r\nabc",
  };
  return requests;
}

} // namespace

TEST_CASE("a request is read with all its parts") {
  auto out = parse_whole("POST /v1/x%2Fy?q=%41 HTTP/1.1\r\nHost: h\r\n"
                         "X-Thing:  a b \r\nContent-Length: 2\r\n\r\nhi");
  REQUIRE(out.requests.size() == 1);
  auto& r = out.requests[0];
  CHECK(r.method == "POST");
  CHECK(r.target == "/v1/x%2Fy?q=%41");
  CHECK(r.path == "/v1/x/y");
  CHECK(r.query == "q=%41");
  CHECK(r.header("x-thing") == "a b");
  CHECK(r.header("absent").empty());
  CHECK(r.headers.size() == 3);
  CHECK(r.headers[1].first == "X-Thing");
  CHECK(r.body == "hi");
}

TEST_CASE("an absolute target is turned into origin form") {
  auto out = parse_whole("GET http://h?q HTTP/1.1\r\nHost: H\r\n\r\n");
  REQUIRE(out.requests.size() == 1);
  CHECK(out.requests[0].target == "/?q");
  CHECK(out.requests[0].path == "/");
}

TEST_CASE("chunks are joined and trailers dropped") {
  auto out = parse_whole(valid_requests()[5]);
  REQUIRE(out.requests.size() == 1);
  CHECK(out.requests[0].body == "x");
  CHECK(out.requests[0].header("trailer").empty());
}

TEST_CASE("a valid request is the same however it is cut") {
  for (auto& bytes : valid_requests()) {
    INFO(bytes);
    auto whole = parse_whole(bytes);
    CHECK(whole.requests.size() == 1);
    CHECK(whole.last == stage::request_line);
    CHECK(parse_bytewise(bytes) == whole);
  }
}

TEST_CASE("requests in a row are told apart") {
  std::string all;
  for (auto& bytes : valid_requests())
    all += bytes;
  auto whole = parse_whole(all);
  REQUIRE(whole.requests.size() == valid_requests().size());
  for (std::size_t i = 0; i < whole.requests.size(); ++i)
    CHECK(whole.requests[i] == parse_whole(valid_requests()[i]).requests[0]);
  CHECK(parse_bytewise(all) == whole);
}

TEST_CASE("a connection is kept unless one side of the protocol says no") {
  auto kept = [](std::string_view version, std::string_view fields) {
    static const limits bounds;
    request_parser parser(bounds);
    parser.feed(std::string("GET / ")
                    .append(version)
                    .append("\r\nHost: h\r\n")
                    .append(fields)
                    .append("\r\n"));
    REQUIRE(parser.where() == stage::done);
    return parser.keep_alive();
  };
  CHECK(kept("HTTP/1.1", ""));
  CHECK_FALSE(kept("HTTP/1.1", "Connection: x, Close\r\n"));
  CHECK_FALSE(kept("HTTP/1.1", "Connection: keep-alive\r\n"
                               "Connection: close\r\n"));
  CHECK_FALSE(kept("HTTP/1.0", ""));
  CHECK(kept("HTTP/1.0", "Connection: Keep-Alive\r\n"));
}

TEST_CASE("bounds hold to the byte") {
  limits bounds;
  bounds.target_bytes = 10;
  bounds.header_bytes = 30;
  bounds.header_fields = 2;
  bounds.body_bytes = 4;
  auto status = [&](std::string_view bytes) {
    auto whole = parse_whole(bytes, bounds);
    CHECK(parse_bytewise(bytes, bounds) == whole);
    return whole.last == stage::failed ? whole.status : 0;
  };
  const std::string host = "Host: h\r\n"; // 9 bytes, and 2 for the last line
  CHECK(status("GET /123456789 HTTP/1.1\r\n" + host + "\r\n") == 0);
  CHECK(status("GET /1234567890 HTTP/1.1\r\n" + host + "\r\n") == 414);
  CHECK(status("GET / HTTP/1.1\r\n" + host + "X: 45678901234567\r\n\r\n") == 0);
  CHECK(status("GET / HTTP/1.1\r\n" + host + "X: 456789012345678\r\n\r\n") ==
        431);
  CHECK(status("GET / HTTP/1.1\r\n" + host + "a:\r\n\r\n") == 0);
  CHECK(status("GET / HTTP/1.1\r\n" + host + "a:\r\nb:\r\n\r\n") == 431);
  auto chunked = "POST / HTTP/1.1\r\nHost: h\r\n";
  bounds.header_bytes = 100;
  CHECK(status(chunked + std::string("Content-Length: 4\r\n\r\n1234")) == 0);
  CHECK(status(chunked + std::string("Content-Length: 5\r\n\r\n")) == 413);
  std::string coding = "Transfer-Encoding: chunked\r\n\r\n";
  CHECK(status(chunked + coding + "2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n") == 0);
  CHECK(status(chunked + coding + "2\r\nab\r\n3\r\n") == 413);
  CHECK(status(chunked + coding + "ffffffffffffffff\r\n") == 413);
}

TEST_CASE("chunk extensions and trailers share one bound") {
  std::string head = "POST / HTTP/1.1\r\nHost: h\r\n"
                     "Transfer-Encoding: chunked\r\n\r\n";
  auto status = [&](const std::string& body) {
    auto whole = parse_whole(head + body);
    CHECK(parse_bytewise(head + body) == whole);
    return whole.last == stage::failed ? whole.status : 0;
  };
  auto extension = [](std::size_t n) { return ";" + std::string(n - 1, 'x'); };
  CHECK(status("0" + extension(8192) + "\r\n\r\n") == 0);
  CHECK(status("0" + extension(8193) + "\r\n\r\n") == 400);
  CHECK(status("1" + extension(8000) + "\r\na\r\n0" + extension(192) +
               "\r\n\r\n") == 0);
  CHECK(status("1" + extension(8000) + "\r\na\r\n0" + extension(193) +
               "\r\n\r\n") == 400);
  CHECK(status("0" + extension(8000) + "\r\nT: " + std::string(189, 'x') +
               "\r\n\r\n") == 0);
  CHECK(status("0" + extension(8000) + "\r\nT: " + std::string(190, 'x') +
               "\r\n\r\n") == 400);
}

TEST_CASE("nothing is used behind a bad request") {
  limits bounds;
  request_parser parser(bounds);
  std::string bad = "GET /\r\n";
  CHECK(parser.feed(bad + valid_requests()[0]) == bad.size());
  CHECK(parser.where() == stage::failed);
  CHECK(parser.feed(valid_requests()[0]) == 0);
}

TEST_CASE("mutated requests never disagree with themselves") {
  std::mt19937 random(20261122);
  auto below = [&](std::size_t n) { return random() % n; };
  const std::string interesting = "\r\n\t :;,%/?\0\x7f\x80\xff"
                                  "0159afFxX.+-*\"";
  const std::vector<std::string> pieces{"\r\n",
                                        "\n",
                                        "\r",
                                        "\r\n\r\n",
                                        "Host: a\r\n",
                                        "Content-Length: 3\r\n",
                                        "Transfer-Encoding: chunked\r\n",
                                        "0\r\n\r\n",
                                        " HTTP/1.1",
                                        "HTTP/1.0",
                                        "%2e%2e",
                                        "//",
                                        "Expect: 100-continue\r\n",
                                        "ffffffffffffffff"};
  limits bounds;
  bounds.header_bytes = 200;
  bounds.target_bytes = 60;
  bounds.body_bytes = 100;
  bounds.header_fields = 6;
  int refused = 0;
  for (int round = 0; round < 20000; ++round) {
    auto bytes = valid_requests()[below(valid_requests().size())] +
                 valid_requests()[below(valid_requests().size())];
    for (auto changes = 1 + below(4); changes > 0 && !bytes.empty();
         --changes) {
      auto at = below(bytes.size());
      switch (below(5)) {
      case 0:
        bytes[at] = interesting[below(interesting.size())];
        break;
      case 1:
        bytes[at] = static_cast<char>(below(256));
        break;
      case 2:
        bytes.erase(at, 1 + below(8));
        break;
      case 3:
        bytes.insert(at, pieces[below(pieces.size())]);
        break;
      default:
        bytes.insert(at, bytes.substr(below(bytes.size()), below(30)));
      }
    }
    auto whole = parse_whole(bytes, bounds);
    refused += whole.last == stage::failed;
    if (!(parse_bytewise(bytes, bounds) == whole))
      FAIL("bytewise differs: " << bytes);
    if (!(parse(bytes, bounds, [&] { return 1 + below(20); }) == whole))
      FAIL("cut at random differs: " << bytes);
    for (auto& r : whole.requests)
      if (r.body.size() > bounds.body_bytes || r.path.empty() ||
          r.path[0] != '/' || r.headers.size() > bounds.header_fields)
        FAIL("out of bounds: " << bytes);
  }
  CHECK(refused > 1000);
}
