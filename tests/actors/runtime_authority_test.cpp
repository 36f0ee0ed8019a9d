#include "actors/runtime/authority.hpp"
#include "tests/actors/temporary_directory.hpp"
#include "tests/actors/test_certificates.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <thread>
#include <vector>

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

TEST_CASE("a request is signed for the name it is given, and for no more") {
  test::temporary_directory tmp;
  auto ca = authority::open(tmp.path()).value();
  auto key = runtime::make_key();
  auto pem = ca.sign(test::greedy_request(key.get(), key.get()), "node-7",
                     "192.0.2.7");
  REQUIRE(pem.has_value());
  auto made = runtime::certificate_from_pem(*pem);
  auto issuer = runtime::certificate_from_pem(ca.certificate());
  REQUIRE(made);
  CHECK(runtime::is_good(made.get(), issuer.get()));
  CHECK(X509_check_private_key(made.get(), key.get()) == 1);
  char name[80] = "";
  X509_NAME_get_text_by_NID(X509_get_subject_name(made.get()), NID_commonName,
                            name, sizeof name);
  CHECK(std::string{name} == "node-7");
  CHECK(X509_check_ca(made.get()) == 0);
  CHECK(X509_check_ip_asc(made.get(), "192.0.2.7", 0) == 1);
  CHECK(X509_check_ip_asc(made.get(), "192.0.2.8", 0) == 0);
}

TEST_CASE("a bad request is refused by what is wrong with it") {
  test::temporary_directory tmp;
  auto ca = authority::open(tmp.path()).value();
  auto key = runtime::make_key();
  auto other = runtime::make_key();
  auto why = [&](const std::string& request) {
    auto made = ca.sign(request, "node-7", "");
    return made ? std::string{"signed"} : made.error().message;
  };
  auto good = runtime::make_request(key.get());
  REQUIRE(why(good) == "signed");
  CHECK(why("") == "the certificate request is not one (PEM)");
  CHECK(why(good.substr(0, good.size() / 2)) ==
        "the certificate request is not one (PEM)");
  CHECK(why(ca.certificate()) == "the certificate request is not one (PEM)");
  CHECK(why(test::greedy_request(key.get(), other.get())) ==
        "the certificate request is not signed by its key");
  runtime::key_ptr rsa{EVP_RSA_gen(2048)};
  runtime::key_ptr larger{EVP_EC_gen("P-384")};
  runtime::key_ptr edwards{EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519")};
  for (auto* wrong : {rsa.get(), larger.get(), edwards.get()})
    CHECK(why(runtime::make_request(wrong)) != "signed");
  CHECK(why(test::greedy_request(rsa.get(), rsa.get())) ==
        "the certificate request's key is not of EC P-256");
}

TEST_CASE("the fingerprint is the SHA-256 of the certificate") {
  test::temporary_directory tmp;
  auto ca = authority::open(tmp.path() / "one").value();
  auto issuer = runtime::certificate_from_pem(ca.certificate());
  unsigned char digest[32];
  unsigned size = 0;
  REQUIRE(X509_digest(issuer.get(), EVP_sha256(), digest, &size) == 1);
  std::string hex;
  for (auto byte : digest) {
    hex += "0123456789abcdef"[byte >> 4];
    hex += "0123456789abcdef"[byte & 15];
  }
  CHECK(ca.fingerprint() == hex);
  CHECK(authority::open(tmp.path() / "one").value().fingerprint() == hex);
  CHECK(authority::open(tmp.path() / "two").value().fingerprint() != hex);
}

TEST_CASE("only the holder of the secret makes the same MAC") {
  test::temporary_directory tmp;
  auto ca = authority::open(tmp.path() / "one").value();
  auto first = ca.mac("text");
  REQUIRE(first.has_value());
  CHECK(mode(tmp.path() / "one" / "secret") == 0600);
  CHECK(authority::open(tmp.path() / "one").value().mac("text").value() ==
        *first);
  CHECK(ca.mac("texu").value() != *first);
  CHECK(authority::open(tmp.path() / "two").value().mac("text").value() !=
        *first);
  // A damaged or readable secret is an error, not a weak one.
  std::ofstream{tmp.path() / "one" / "secret"} << "abc";
  CHECK_FALSE(ca.mac("text").has_value());
  fs::remove(tmp.path() / "one" / "secret");
  CHECK(ca.mac("text").value() != *first);
  fs::permissions(tmp.path() / "one" / "secret", fs::perms::group_read,
                  fs::perm_options::add);
  CHECK_FALSE(ca.mac("text").has_value());
}

TEST_CASE("a secret that many ask for at once is made once") {
  test::temporary_directory tmp;
  auto ca = authority::open(tmp.path()).value();
  std::vector<std::string> seen(8);
  std::vector<std::thread> threads;
  for (auto& mac : seen)
    threads.emplace_back([&] { mac = ca.mac("text").value(); });
  for (auto& thread : threads)
    thread.join();
  CHECK(std::count(seen.begin(), seen.end(), seen[0]) == 8);
}
