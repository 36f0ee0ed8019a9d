#include "router/http/syntax.hpp"

#include <catch2/catch.hpp>

using namespace troupe::http;

TEST_CASE("a token has token characters only and at least one") {
  CHECK(is_token("GET"));
  CHECK(is_token("x-a_b.c!#$%&'*+^`|~"));
  for (auto bad : {"", "a b", "a:", "a(", "a\x7f", "\xc3\xa4", "a\t"})
    CHECK_FALSE(is_token(bad));
}

TEST_CASE("a field value has no control character but tab") {
  CHECK(is_field_value(""));
  CHECK(is_field_value("a\tb \xc3\xa4"));
  for (auto bad :
       {std::string("a\rb"), std::string("a\nb"), std::string("a\0b", 3),
        std::string("\x0b"), std::string("\x7f")})
    CHECK_FALSE(is_field_value(bad));
}

TEST_CASE("a host is a name or an address with perhaps a port") {
  for (auto good : {"a", "a.example", "a_b-c:80", "127.0.0.1:65535", "[::1]",
                    "[fe80::1]:443", "[::ffff:1.2.3.4]"})
    CHECK(is_host(good));
  for (auto bad :
       {"",        ":80",   "a:",     "a:65536", "a:+1", "a:000080", "a:80:80",
        "a/v1/x?", "a\\@b", "u@a",    "::1",     "[::1", "::1]",     "[]",
        "[x]",     "a]:1",  "[::1]x", "a b",     "a,b",  "%61"})
    CHECK_FALSE(is_host(bad));
}

TEST_CASE("a field line is cut at the colon and trimmed") {
  auto f = parse_field("Name: \t some value\t ");
  REQUIRE(f);
  CHECK(f->name == "Name");
  CHECK(f->value == "some value");
  CHECK(parse_field("a:")->value.empty());
  for (auto bad :
       {"", "name", " a: b", "a : b", ": b", "a\t: b", "\ta: b", "a: b\rc"})
    CHECK_FALSE(parse_field(bad));
}

TEST_CASE("a content length is a decimal number of 64 bits") {
  CHECK(parse_content_length("0") == 0u);
  CHECK(parse_content_length("18446744073709551615") == UINT64_MAX);
  for (auto bad : {"", "+5", "-1", "0x5", "5, 5", "5 ", "1e3", "5.0",
                   "18446744073709551616"})
    CHECK_FALSE(parse_content_length(bad));
}

TEST_CASE("a chunk size has 1 to 16 hexadecimal digits") {
  CHECK(parse_chunk_head("0")->size == 0);
  CHECK(parse_chunk_head("aF")->size == 0xaf);
  CHECK(parse_chunk_head("ffffffffffffffff")->size == UINT64_MAX);
  CHECK(parse_chunk_head("5;name=value")->size == 5);
  CHECK(parse_chunk_head("5;name=value")->extension_bytes == 11);
  for (auto bad : {"", ";a", "0x1", "+1", "-1", "1_0", "1 ", " 1", "1 ;a", "g",
                   "00000000000000001", "1;a\rb", "1;\x01"})
    CHECK_FALSE(parse_chunk_head(bad));
}

TEST_CASE("a target is in origin form or in absolute form") {
  auto t = parse_target("/a/b?c=d?e");
  REQUIRE(t);
  CHECK(t->path == "/a/b");
  CHECK(t->query == "c=d?e");
  CHECK(t->authority.empty());
  t = parse_target("HTTP://h:80/a");
  REQUIRE(t);
  CHECK(t->authority == "h:80");
  CHECK(t->path == "/a");
  CHECK(parse_target("http://h?q")->query == "q");
  CHECK(parse_target("http://h")->path.empty());
  for (auto bad : {"", "*", "a", "h:443", "ftp://h/", "http:///a",
                   "http://u@h/", "/a#b", "/a b", "/\xc3\xa4", "/a\\b", "/<",
                   "/%", "/%4", "/%4g", "/?%zz", "/\"", "/{a}"})
    CHECK_FALSE(parse_target(bad));
}

TEST_CASE("a path is decoded once") {
  CHECK(decode_path("") == "/");
  CHECK(decode_path("/%761/models") == "/v1/models");
  CHECK(decode_path("/%2561") == "/%61");
  CHECK(decode_path("/models/org%2Fname") == "/models/org/name");
  CHECK(decode_path("/a/") == "/a/");
  CHECK(decode_path("/...") == "/...");
  CHECK(decode_path("/%C3%A4") == "/\xc3\xa4");
  for (auto bad : {"a", "//", "//a", "/a//b", "/.", "/..", "/./a", "/a/../b",
                   "/a/..", "/%2e%2e/a", "/.%2E", "/a%2f%2fb", "/a%2f..%2fb",
                   "/%00", "/%0d%0a", "/%7f", "/%1f", "/%", "/%4"})
    CHECK_FALSE(decode_path(bad));
}

TEST_CASE("a list names a token whatever its case and spaces") {
  CHECK(lists_token("close", "close"));
  CHECK(lists_token("a, CLOSE ,b", "close"));
  CHECK(lists_token(",,close", "close"));
  CHECK_FALSE(lists_token("", "close"));
  CHECK_FALSE(lists_token("closed, not-close", "close"));
}
