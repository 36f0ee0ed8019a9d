#include "actors/runtime/token.hpp"
#include "actors/runtime/token_format.hpp"
#include "tests/actors/temporary_directory.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::runtime;
using namespace std::chrono_literals;

namespace {

const std::string taken_back =
    "the token is damaged, or was taken back (revoking a node takes all of "
    "before back); get a new one with \"troupe token create\" on the head";

std::string why(const result<void>& x) {
  return x ? "good" : x.error().message;
}

struct cluster {
  test::temporary_directory tmp;
  authority ca = authority::open(tmp.path() / "ca").value();
  join_token token = create_token(ca, 1h).value();
};

} // namespace

TEST_CASE("a token names its authority and its end, and fits a command line") {
  cluster one;
  auto before = seconds_now();
  auto made = create_token(one.ca, 10min).value();
  CHECK(made.authority_hash == one.ca.fingerprint());
  CHECK(made.expires >= before + 600);
  CHECK(made.expires <= seconds_now() + 600);
  CHECK(made.text.find_first_not_of("abcdefghijklmnopqrstuvwxyz"
                                    "0123456789.") == std::string::npos);
  auto read = read_token(made.text);
  REQUIRE(read.has_value());
  CHECK(read->authority_hash == made.authority_hash);
  CHECK(read->expires == made.expires);
  CHECK(read->text == made.text);
  CHECK(why(check_token(one.ca, made.text, seconds_now())) == "good");
}

TEST_CASE("a token ends when it said so") {
  cluster one;
  auto at = [&](std::int64_t seconds_after_end) {
    return why(check_token(one.ca, one.token.text,
                           one.token.expires + seconds_after_end));
  };
  CHECK(at(-3600) == "good");
  CHECK(at(0) == "good");
  CHECK(at(1).find("has expired") != std::string::npos);
  CHECK(at(1'000'000).find("has expired") != std::string::npos);
  CHECK_FALSE(create_token(one.ca, 0s).has_value());
  CHECK_FALSE(create_token(one.ca, -1h).has_value());
  CHECK_FALSE(create_token(one.ca, 24h * 400).has_value());
}

TEST_CASE("a token of another cluster is called that") {
  cluster one;
  cluster two;
  CHECK(why(check_token(one.ca, two.token.text, seconds_now())) ==
        "the token is of another cluster");
}

TEST_CASE("no character of a token can be changed, left out or added") {
  cluster one;
  const auto& text = one.token.text;
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto changed = text;
    changed[i] = text[i] == '1' ? '2' : '1';
    auto shorter = text.substr(0, i) + text.substr(i + 1);
    auto longer = text.substr(0, i) + '0' + text.substr(i);
    for (const auto& bad : {changed, shorter, longer, text.substr(0, i)}) {
      INFO(bad);
      CHECK_FALSE(check_token(one.ca, bad, seconds_now()).has_value());
    }
  }
}

TEST_CASE("a later end cannot be written into a token") {
  cluster one;
  auto parts = read_token_parts(one.token.text).value();
  parts.expires += 1;
  CHECK(why(check_token(one.ca, write_token_parts(parts), seconds_now())) ==
        taken_back);
}

TEST_CASE("text that is no token is an error that says so") {
  for (const std::string& text :
       {std::string{}, std::string{"."}, std::string{"troupe1"},
        std::string{"troupe1..."}, std::string{"troupe2.a.1.b"},
        std::string(100'000, '.'), std::string("troupe1.\0.1.", 12),
        "troupe1." + std::string(64, 'a') + ".99999999999999999999." +
            std::string(64, 'b'),
        "troupe1." + std::string(64, 'a') + ".-1." + std::string(64, 'b'),
        "troupe1." + std::string(64, 'A') + ".1." + std::string(64, 'b')}) {
    auto read = read_token(text);
    REQUIRE_FALSE(read.has_value());
    CHECK(read.error().message.find("token") != std::string::npos);
  }
}

TEST_CASE("removing the authority's secret takes its tokens back") {
  cluster one;
  std::filesystem::remove(one.tmp.path() / "ca" / "secret");
  CHECK(why(check_token(one.ca, one.token.text, seconds_now())) == taken_back);
  auto fresh = create_token(one.ca, 1h).value();
  CHECK(why(check_token(one.ca, fresh.text, seconds_now())) == "good");
}
