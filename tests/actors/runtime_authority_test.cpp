#include "actors/runtime/authority.hpp"
#include "tests/actors/temporary_directory.hpp"

#include <catch2/catch.hpp>

#include <fstream>
#include <iterator>

using namespace troupe;
using troupe::runtime::authority;
namespace fs = std::filesystem;

namespace {

std::string content(const fs::path& path) {
  std::ifstream in{path};
  return {std::istreambuf_iterator<char>{in}, {}};
}

unsigned mode(const fs::path& path) {
  return static_cast<unsigned>(fs::status(path).permissions());
}

} // namespace

TEST_CASE("the authority is made at the first start and kept") {
  test::temporary_directory tmp;
  auto directory = tmp.path() / "state" / "tls";
  REQUIRE(authority::open(directory).has_value());
  auto first = content(directory / "authority.pem");
  CHECK(mode(directory) == 0700);
  CHECK(mode(directory / "authority.pem") == 0600);
  REQUIRE(authority::open(directory).has_value());
  CHECK(content(directory / "authority.pem") == first);
  // Nothing half written stays behind.
  CHECK(std::distance(fs::directory_iterator{directory}, {}) == 1);
}

TEST_CASE("issued keys are private and differ") {
  test::temporary_directory tmp;
  auto ca = authority::open(tmp.path() / "tls");
  REQUIRE(ca.has_value());
  auto one = ca->issue("replica m#1", tmp.path() / "one");
  auto two = ca->issue(std::string(500, 'x'), tmp.path() / "two");
  REQUIRE(one.has_value());
  REQUIRE(two.has_value());
  CHECK(mode(one->key) == 0600);
  CHECK(mode(tmp.path() / "one") == 0700);
  CHECK(content(one->key) != content(two->key));
  CHECK(content(one->authority) == content(two->authority));
  // The authority's key is not handed out.
  CHECK(content(one->authority).find("PRIVATE") == std::string::npos);
  CHECK(content(one->certificate).find("PRIVATE") == std::string::npos);
}

TEST_CASE("an authority that others may read is refused") {
  test::temporary_directory tmp;
  REQUIRE(authority::open(tmp.path()).has_value());
  auto file = tmp.path() / "authority.pem";
  fs::permissions(file, fs::perms::group_read, fs::perm_options::add);
  auto again = authority::open(tmp.path());
  REQUIRE_FALSE(again.has_value());
  CHECK(again.error().message.find("0600") != std::string::npos);
}

TEST_CASE("a damaged authority is an error that names the file") {
  test::temporary_directory tmp;
  REQUIRE(authority::open(tmp.path()).has_value());
  auto file = tmp.path() / "authority.pem";
  auto whole = content(file);
  for (auto kept : {std::size_t{0}, whole.size() / 3, whole.size() - 60}) {
    std::ofstream{file} << whole.substr(0, kept);
    auto again = authority::open(tmp.path());
    REQUIRE_FALSE(again.has_value());
    CHECK(again.error().code == errc::corrupt);
    CHECK(again.error().message.find(file.string()) != std::string::npos);
  }
}

TEST_CASE("a state directory that cannot be made is an error") {
  auto opened = authority::open("/proc/no-such-directory/tls");
  REQUIRE_FALSE(opened.has_value());
  CHECK(opened.error().code == errc::io);
}
