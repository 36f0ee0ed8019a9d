#include "client/service_url.hpp"

#include <catch2/catch.hpp>

#include <string>

using namespace troupe::client;

TEST_CASE("a service's URL is read as people write it") {
  struct row {
    const char* text;
    bool tls;
    const char* host;
    int port;
    const char* path;
    const char* authority;
  };
  auto good = GENERATE(
      row{"http://127.0.0.1:8000", false, "127.0.0.1", 8000, "",
          "127.0.0.1:8000"},
      row{"localhost:9000/", false, "localhost", 9000, "", "localhost:9000"},
      row{"http://a.b/v1", false, "a.b", 80, "", "a.b"},
      row{"https://a.b/models/v1/", true, "a.b", 443, "/models", "a.b"},
      row{"https://a.b:80/x", true, "a.b", 80, "/x", "a.b:80"},
      row{"http://[::1]:8000/v1", false, "::1", 8000, "", "[::1]:8000"});
  auto url = parse_service_url(good.text);
  REQUIRE(url.has_value());
  CHECK(url->tls == good.tls);
  CHECK(url->host == good.host);
  CHECK(url->port == good.port);
  CHECK(url->path == good.path);
  CHECK(url->authority() == good.authority);
}

TEST_CASE("what is no URL of a service is refused with the URL") {
  for (std::string bad : {"", "http://", "ftp://a", "http://a:0",
                          "http://a:65536", "a:1x", "[::1", "http://me@a",
                          "http://a?x=1", "http://a b", "http://a\r\nX: y"}) {
    INFO(bad);
    auto url = parse_service_url(bad);
    REQUIRE_FALSE(url.has_value());
    CHECK(url.error().message.find(bad) != std::string::npos);
  }
}
