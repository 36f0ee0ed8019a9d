#include "actors/runtime/join_messages.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::runtime;

namespace {

constexpr std::size_t bytes_max = 4096;

join_request some_request() {
  return {"troupe1.abc", "node-1.example", 2,
          "-----BEGIN X-----\n\"\\\t\x01\n-----END X-----\n"};
}

std::string error_of(const std::string& bytes) {
  auto message = read_http(bytes, bytes_max);
  if (!message)
    return "incomplete";
  if (!*message)
    return message->error().message;
  auto request = read_join_request(**message);
  return request ? "good" : request.error().message;
}

std::string posted(const std::string& body) {
  return "POST /join HTTP/1.1\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n\r\n" + body;
}

} // namespace

TEST_CASE("what one side writes the other reads") {
  auto asked = write_join_request(some_request(), "head:6380");
  auto request = read_http(asked, bytes_max);
  REQUIRE(request.has_value());
  CHECK(read_join_request(request->value()).value() == some_request());
  join_answer answer{"cert\n", "ca\n", 6381, 3};
  auto told = write_join_answer(answer);
  CHECK(read_join_answer(read_http(told, bytes_max)->value()).value() ==
        answer);
  auto refused =
      write_join_refusal({errc::invalid_argument, "the \"token\" is bad"});
  auto read = read_join_answer(read_http(refused, bytes_max)->value());
  REQUIRE_FALSE(read.has_value());
  CHECK(read.error().message == "the \"token\" is bad");
}

TEST_CASE("a message is taken when its last byte is there, not before") {
  auto whole = write_join_request(some_request(), "head");
  for (std::size_t size = 0; size < whole.size(); ++size)
    CHECK_FALSE(read_http(whole.substr(0, size), bytes_max).has_value());
  CHECK(error_of(whole) == "good");
  CHECK(error_of(whole + "x") == "something follows the message");
}

TEST_CASE("messages are bounded before they are there") {
  CHECK(error_of(std::string(bytes_max, 'x')) == "more than 4096 bytes");
  CHECK(error_of("POST /join HTTP/1.1\r\n" + std::string(bytes_max, 'x')) ==
        "more than 4096 bytes");
  CHECK(error_of("POST /join HTTP/1.1\r\nContent-Length: 5000\r\n\r\n") ==
        "more than 4096 bytes");
  CHECK(error_of("POST /join HTTP/1.1\r\nContent-Length: "
                 "18446744073709551615\r\n\r\n") == "more than 4096 bytes");
  // One that just fits.
  std::string head = "POST / HTTP/1.1\r\nContent-Length: 4055\r\n\r\n";
  auto fits = head + std::string(4055, ' ');
  REQUIRE(fits.size() == bytes_max);
  CHECK(read_http(fits, bytes_max)->has_value());
}

TEST_CASE("ambiguous lengths and coded bodies are refused") {
  for (const std::string lines :
       {"Content-Length: 1\r\nContent-Length: 1", "Content-Length: +1",
        "Content-Length: 1, 1", "Content-Length:", "Content-Length: 0x1",
        "Content-Length: 18446744073709551616", "content-length: -1",
        "Transfer-Encoding: chunked", "transfer-encoding : chunked",
        "Content-Encoding: gzip", ": x", "no colon"}) {
    INFO(lines);
    auto bytes = "POST /join HTTP/1.1\r\n" + lines + "\r\n\r\nx";
    auto read = read_http(bytes, bytes_max);
    REQUIRE(read.has_value());
    CHECK_FALSE(read->has_value());
  }
}

TEST_CASE("another target is not found") {
  for (const std::string line : {"GET /join HTTP/1.1", "POST / HTTP/1.1", "",
                                 "POST /join HTTP/1.0", "POST /join HTTP/2"}) {
    auto text = line + "\r\n\r\n";
    auto read = read_join_request(read_http(text, bytes_max)->value());
    REQUIRE_FALSE(read.has_value());
    CHECK(read.error().code == errc::not_found);
  }
}

TEST_CASE("an answer that is not HTTP is an error") {
  for (const std::string line :
       {"", "HTTP/1.", "HTTP/1.1", "HTTP/1.1 ", "HTTP/2 200 OK", "SSH-2.0-x"}) {
    auto text = line + "\r\n\r\n";
    auto read = read_join_answer(read_http(text, bytes_max)->value());
    CHECK_FALSE(read.has_value());
  }
}

TEST_CASE("a body that is not the object asked for is refused by its field") {
  CHECK(error_of(posted("")) == "the body is not a JSON object");
  CHECK(error_of(posted("[]")) == "the body is not a JSON object");
  CHECK(error_of(posted(std::string(3000, '['))) ==
        "the body is not a JSON object");
  CHECK(error_of(posted("{\"token\":\"\xff\"}")) ==
        "the body is not a JSON object");
  CHECK(error_of(posted("{}")) == "\"token\" is not a string");
  CHECK(error_of(posted(R"({"token":1})")) == "\"token\" is not a string");
  CHECK(error_of(posted(R"({"token":"t","node":"n","version":-1})")) ==
        "\"version\" is not a number in range");
  CHECK(error_of(posted(R"({"token":"t","node":"n","version":4294967296})")) ==
        "\"version\" is not a number in range");
  CHECK(error_of(posted(R"({"token":"t","node":"n","version":1})")) ==
        "\"request\" is not a string");
}

TEST_CASE("a worker's name is short, lower-case and not the head's") {
  for (const std::string name :
       {"a", "0", "node-1", "gpu-3.rack.example", "a-", "head2"})
    CHECK(check_worker_name(name).has_value());
  CHECK(check_worker_name(std::string(63, 'a')).has_value());
  for (const std::string name : {"", "-a", ".a", "A", "a_b", "a b", "a/b",
                                 "../a", "a\n", "\xc3\xa4", "head"}) {
    INFO(name);
    CHECK_FALSE(check_worker_name(name).has_value());
  }
  CHECK_FALSE(check_worker_name(std::string(64, 'a')).has_value());
  CHECK_FALSE(check_worker_name(std::string("a\0b", 3)).has_value());
}

TEST_CASE("versions fit while they are one apart") {
  CHECK(check_versions(2, 2).has_value());
  CHECK(check_versions(2, 3).has_value());
  CHECK(check_versions(3, 2).has_value());
  CHECK_FALSE(check_versions(0, UINT32_MAX).has_value());
  auto far = check_versions(2, 4);
  REQUIRE_FALSE(far.has_value());
  CHECK(far.error().message.find("version 2") != std::string::npos);
  CHECK(far.error().message.find("4") != std::string::npos);
}
