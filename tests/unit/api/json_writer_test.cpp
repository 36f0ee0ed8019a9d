#include "router/api/json_writer.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <simdjson.h>

using namespace troupe::api;

namespace {

std::string text(std::string_view value) {
  return json_writer{}.text(value).take();
}

std::string real(float value) {
  return json_writer{}.real(value).take();
}

} // namespace

TEST_CASE("strings are escaped where JSON asks and nowhere else") {
  CHECK(text("") == R"("")");
  CHECK(text("a/b 'c' <d>") == R"("a/b 'c' <d>")");
  CHECK(text("\"\\") == R"("\"\\")");
  CHECK(text("\b\f\n\r\t") == R"("\b\f\n\r\t")");
  CHECK(text(std::string_view{"\0\x01\x1f\x7f", 4}) ==
        R"("\u0000\u0001\u001f\u007f")");
  CHECK(text("\xc3\x89 \xe2\x80\xa8 \xf0\x9f\x98\x80") ==
        "\"\xc3\x89 \xe2\x80\xa8 \xf0\x9f\x98\x80\"");
}

TEST_CASE("malformed UTF-8 becomes U+FFFD, one for each broken beginning") {
  const std::string mark = "\xef\xbf\xbd";
  CHECK(repaired_utf8("a\xff"
                      "b") == "a" + mark + "b");
  CHECK(repaired_utf8("\xe2\x80") == mark);
  CHECK(repaired_utf8("\xe2\x80"
                      "x") == mark + "x");
  CHECK(repaired_utf8("\xf0\x9f\x98") == mark);
  CHECK(repaired_utf8("\xc0\x80") == mark + mark);
  CHECK(repaired_utf8("\xed\xa0\x80") == mark + mark + mark);
  CHECK(repaired_utf8("\xf4\x90\x80\x80") == mark + mark + mark + mark);
  CHECK(repaired_utf8("\xe2\x80\xe2\x80\xa8") == mark + "\xe2\x80\xa8");
  CHECK(text("\x80") == "\"" + mark + "\"");
}

TEST_CASE("any bytes give a string that a strict parser reads back") {
  std::mt19937 random{11};
  simdjson::dom::parser parser;
  for (int round = 0; round < 2000; ++round) {
    std::string bytes(random() % 40, '\0');
    for (auto& byte : bytes)
      byte = static_cast<char>(random());
    auto json = "[" + text(bytes) + "]";
    std::string_view back;
    REQUIRE_FALSE(parser.parse(json).at(0).get(back));
    CHECK(back == repaired_utf8(bytes));
    CHECK(repaired_utf8(back) == back);
  }
}

TEST_CASE("numbers read back as the same float") {
  CHECK(real(0) == "0.0");
  CHECK(real(-1.5f) == "-1.5");
  CHECK(real(-0.44023022f) == "-0.44023022");
  CHECK(real(-100) == "-100.0");
  std::mt19937 random{13};
  for (int round = 0; round < 2000; ++round) {
    auto bits = static_cast<std::uint32_t>(random());
    float value;
    std::memcpy(&value, &bits, sizeof value);
    if (std::isfinite(value))
      CHECK(std::strtof(real(value).c_str(), nullptr) == value);
  }
}

TEST_CASE("a log-probability that is not finite is -9999.0") {
  auto infinity = std::numeric_limits<float>::infinity();
  CHECK(real(-infinity) == "-9999.0");
  CHECK(real(infinity) == "-9999.0");
  CHECK(real(std::nanf("")) == "-9999.0");
}

TEST_CASE("commas stand between items and nowhere else") {
  json_writer json{"data: "};
  json.begin_object().key("a").begin_array().end_array();
  json.key("b").begin_array().integer(-1).natural(2).null().end_array();
  json.key("c").begin_object().end_object().key("d").text_or_null("");
  CHECK(json.end_object().take("\n\n") ==
        "data: {\"a\":[],\"b\":[-1,2,null],\"c\":{},\"d\":null}\n\n");
  CHECK(json.take().empty());
}
