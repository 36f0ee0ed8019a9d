#include "engine/weights/download/digest.hpp"
#include "engine/weights/download/sigv4.hpp"
#include "engine/weights/download/url.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::download;

namespace {

/// The key of the examples in Amazon's documentation of S3's signatures.
const access_key example{
    "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", {}, {}};

std::string signature(http_request request) {
  sign_request(example, "us-east-1", "20130524T000000Z", request);
  const auto& header = request.headers.back();
  REQUIRE(header.name == "Authorization");
  REQUIRE(header.secret);
  return header.value.substr(header.value.rfind('=') + 1);
}

} // namespace

TEST_CASE("requests are signed as Amazon's documentation has it") {
  http_request object;
  object.url = "https://examplebucket.s3.amazonaws.com/test.txt";
  object.headers = {{"Range", "bytes=0-9"}};
  CHECK(signature(object) ==
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
  http_request list;
  list.url = "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J";
  CHECK(signature(list) ==
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

TEST_CASE("a temporary key's token is sent and signed, as a secret") {
  auto key = example;
  key.token = "session";
  http_request request;
  request.url = "https://host/x";
  sign_request(key, "us-east-1", "20130524T000000Z", request);
  auto found = false;
  for (const auto& header : request.headers)
    if (header.name == "x-amz-security-token")
      found = header.value == "session" && header.secret;
  CHECK(found);
  CHECK(request.headers.back().value.find("x-amz-security-token") !=
        std::string::npos);
}

TEST_CASE("a URL is taken apart, joined and shown without secrets") {
  auto parts = parse_url("https://Host.example/a%20b?X-Amz-Signature=s");
  REQUIRE(parts.has_value());
  CHECK(parts->host == "host.example");
  CHECK(parts->port == "443");
  CHECK(parts->same_origin(*parse_url("https://host.example:443/other")));
  CHECK_FALSE(parts->same_origin(*parse_url("http://host.example/")));
  CHECK_FALSE(parts->same_origin(*parse_url("https://host.example:444/")));
  CHECK_FALSE(parts->same_origin(*parse_url("https://example/")));
  for (const auto* text : {"", "x", "file:///etc/passwd", "ftp://h/", "http:"})
    CHECK_FALSE(parse_url(text).has_value());
  CHECK(*resolve_url("https://h/a/b", "../c") == "https://h/c");
  CHECK(*resolve_url("https://h/a/b", "http://o/") == "http://o/");
  CHECK(shown_url("https://u:p@h:444/a?token=t#f") == "https://h:444/a");
  CHECK(percent_encode("a/b c~ä", true) == "a/b%20c~%C3%A4");
  CHECK(percent_encode("a/b", false) == "a%2Fb");
  CHECK(parse_url("http://127.0.0.1:1/")->is_loopback());
  CHECK_FALSE(parse_url("http://127.example/")->is_loopback());
}
