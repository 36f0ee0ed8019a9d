#include "engine/text/normal_forms.hpp"

#include <catch2/catch.hpp>

using namespace troupe::text;

TEST_CASE("text in form C stays as it is") {
  for (std::string text : {"", "plain", "\u00E9\u1EC7", "\uAC01", "\u706F"})
    CHECK(to_nfc(text) == text);
}

TEST_CASE("letters and marks compose") {
  CHECK(to_nfc("e\u0301") == "\u00E9");
  CHECK(to_nfc("e\u0323\u0302") == "\u1EC7");
  CHECK(to_nfc("e\u0302\u0323") == "\u1EC7");
  CHECK(to_nfc("\u1100\u1161\u11A8") == "\uAC01");
  CHECK(to_nfc("\uAC00\u11A8") == "\uAC01");
}

TEST_CASE("a mark does not pass another of its class") {
  CHECK(to_nfc("q\u0308\u0301") == "q\u0308\u0301");
  CHECK(to_nfc("a\u0315\u0301") == "\u00E1\u0315");
  CHECK(to_nfc("a\u0334\u0334\u0301") == "\u00E1\u0334\u0334");
  CHECK(to_nfc("\u0301a") == "\u0301a");
}

TEST_CASE("characters with a better form become it") {
  CHECK(to_nfc("\u212B") == "\u00C5");
  CHECK(to_nfc("\uF900") == "\u8C48");
  CHECK(to_nfc("\u0958") == "\u0915\u093C");
  CHECK(to_nfc("\u0344") == "\u0308\u0301");
}

TEST_CASE("the other forms decompose or take compatible characters") {
  CHECK(to_nfd("\u1EC7\uAC01") == "e\u0323\u0302\u1100\u1161\u11A8");
  CHECK(to_nfkd("\uFB01\u1EC7\u00BD") == "fie\u0323\u03021\u20442");
  CHECK(to_nfkc("\uFB01e\u0301\uFF21\uFDFA").starts_with("fi\u00E9A"));
  CHECK(to_nfkc("plain") == "plain");
}
