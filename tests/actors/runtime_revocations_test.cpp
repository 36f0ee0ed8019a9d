#include "actors/protocol/cluster_layout.hpp"
#include "actors/runtime/blob_listener.hpp"
#include "actors/runtime/join.hpp"
#include "actors/runtime/revocations.hpp"
#include "tests/actors/temporary_directory.hpp"
#include "tests/actors/test_certificates.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>
#include <spdlog/spdlog.h>

using namespace troupe;
using namespace troupe::runtime;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

std::string content(const fs::path& path) {
  std::ifstream in{path, std::ios::binary};
  return {std::istreambuf_iterator<char>{in}, {}};
}

certificate_ptr certificate_of(const credentials& files) {
  return certificate_from_pem(content(files.certificate));
}

revocation_list full_list() {
  revocation_list out;
  for (std::uint32_t i = 0; i < revocations_max; ++i)
    out.push_back({std::string(58, 'w') + std::to_string(i), i + 1});
  return out;
}

/// An authority, and what a process with credentials in `node` knows.
struct ca_and_node {
  bool voids(const credentials& files) {
    return known.voids(certificate_of(files).get()).value();
  }

  test::temporary_directory tmp;
  authority ca = authority::open(tmp.path() / "ca").value();
  credentials head = ca.issue("head", tmp.path() / "head").value();
  revocations& known = revocations::of(head);
};

} // namespace

TEST_CASE("a list of the revoked reads back as it was written") {
  for (const auto& list :
       {revocation_list{}, revocation_list{{"w1", 1}}, full_list(),
        revocation_list{{"a", head_era - 1}, {"b.c-d", 2}}}) {
    auto back = read_revocations(write_revocations(list));
    REQUIRE(back.has_value());
    CHECK(*back == list);
  }
}

TEST_CASE("a bad list of the revoked is refused by what is wrong with it") {
  auto too_many = full_list();
  too_many.push_back({"w", 1});
  for (const auto& list :
       {revocation_list{{"", 1}}, revocation_list{{"head", 1}},
        revocation_list{{"a/b", 1}}, revocation_list{{"w1", 0}},
        revocation_list{{"w1", head_era}},
        revocation_list{{"w1", 1}, {"w1", 2}}, too_many}) {
    auto back = read_revocations(write_revocations(list));
    REQUIRE_FALSE(back.has_value());
    CHECK(back.error().message.find("list of revoked nodes") == 4);
  }
  CHECK_FALSE(read_revocations("x").has_value());
  auto whole = write_revocations({{"w1", 1}, {"w2", 2}});
  for (std::size_t size = 1; size < whole.size(); ++size)
    if (auto back = read_revocations(whole.substr(0, size)))
      CHECK(back->size() == 1); // cut between the two
}

TEST_CASE(
    "random damage to a list of the revoked is an error or another list") {
  std::mt19937_64 random{1};
  const auto whole = write_revocations({{"w1", 1}, {"w2", 2}});
  for (int i = 0; i < 2'000; ++i) {
    auto bytes = whole;
    for (auto flips = 1 + random() % 4; flips > 0; --flips)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    if (auto back = read_revocations(bytes))
      CHECK(read_revocations(write_revocations(*back)).value() == *back);
  }
}

TEST_CASE("the file of a full list is small enough to be read again") {
  test::temporary_directory tmp;
  auto file = tmp.path() / "revoked";
  REQUIRE(save_revocations(file, full_list()).has_value());
  CHECK(load_revocations(file).value() == full_list());
}

TEST_CASE("a list that is not there is empty, a bad one an error by its name") {
  test::temporary_directory tmp;
  auto file = tmp.path() / "revoked";
  CHECK(load_revocations(file).value().empty());
  REQUIRE(write_private(file, "x", if_there::replace).has_value());
  auto bad = load_revocations(file);
  REQUIRE_FALSE(bad.has_value());
  CHECK(bad.error().message.find(file.string()) == 0);
  REQUIRE(save_revocations(file, {{"w1", 1}}).has_value());
  CHECK(fs::status(file).permissions() == fs::perms{0600});
  fs::permissions(file, fs::perms::group_write, fs::perm_options::add);
  CHECK_FALSE(load_revocations(file).has_value());
}

TEST_CASE("a certificate says its name and its era") {
  test::temporary_directory tmp;
  auto ca = authority::open(tmp.path() / "ca").value();
  auto key = make_key();
  for (era of : {era{0}, era{1}, era{0x12345678}, head_era - 1}) {
    auto pem = ca.sign(make_request(key.get()), "w1", "", of).value();
    auto made = certificate_from_pem(pem);
    CHECK(certificate_era(made.get()) == of);
    CHECK(certificate_name(made.get()) == "w1");
  }
  auto head = ca.issue("head", tmp.path() / "head").value();
  CHECK(certificate_era(certificate_of(head).get()) == head_era);
  // Of before there were eras, and without a name.
  auto old = test::issue_for_time(tmp.path() / "ca", tmp.path() / "old", -9, 9);
  CHECK(certificate_era(certificate_of(old).get()) == 0);
  CHECK(certificate_name(certificate_of(old).get()).empty());
}

TEST_CASE("what was issued before a revocation is void, and nothing else") {
  ca_and_node x;
  auto before = test::join_as(x.ca, "w1", x.tmp.path() / "before");
  auto other = test::join_as(x.ca, "w2", x.tmp.path() / "other");
  CHECK_FALSE(x.voids(before));
  auto all = x.ca.revoke("w1");
  REQUIRE(all.has_value());
  CHECK(*all == revocation_list{{"w1", 1}});
  REQUIRE(x.known.replace(*all).has_value());
  auto after = test::join_as(x.ca, "w1", x.tmp.path() / "after");
  CHECK(x.voids(before));
  CHECK_FALSE(x.voids(after));
  CHECK_FALSE(x.voids(other));
  CHECK_FALSE(x.voids(x.head));
  // Again, and another one between.
  REQUIRE(x.ca.revoke("w2").has_value());
  REQUIRE(x.known.replace(x.ca.revoke("w1").value()).has_value());
  CHECK(x.ca.revoked().value() == revocation_list{{"w1", 3}, {"w2", 2}});
  CHECK(x.voids(after));
  CHECK(x.voids(other));
  // It outlives the head: the next one issues with it.
  auto again = authority::open(x.tmp.path() / "ca").value();
  CHECK(again.revoked().value() == x.ca.revoked().value());
  auto head = again.issue("head", x.tmp.path() / "next").value();
  CHECK(revocations::of(head).voids(certificate_of(after).get()).value());
}

TEST_CASE("revoking takes all tokens back, and the next ones are good") {
  test::temporary_directory tmp;
  auto ca = authority::open(tmp.path()).value();
  auto good = [&](const join_token& token) {
    return check_token(ca, token.text, seconds_now()).has_value();
  };
  auto before = create_token(ca, 1h).value();
  REQUIRE(good(before));
  REQUIRE(ca.revoke("w1").has_value());
  CHECK_FALSE(good(before));
  CHECK(good(create_token(ca, 1h).value()));
}

TEST_CASE("what cannot be revoked is refused and changes nothing") {
  test::temporary_directory tmp;
  auto ca = authority::open(tmp.path()).value();
  auto token = create_token(ca, 1h).value();
  for (const std::string name : {"", "head", "a/b", "../x"})
    CHECK(ca.revoke(name).error().code == errc::invalid_argument);
  auto file = tmp.path() / "revoked";
  CHECK_FALSE(fs::exists(file));
  CHECK(check_token(ca, token.text, seconds_now()).has_value());
  REQUIRE(save_revocations(file, full_list()).has_value());
  auto full = ca.revoke("one-more");
  REQUIRE_FALSE(full.has_value());
  CHECK(full.error().code == errc::limit);
  CHECK(ca.revoked().value() == full_list());
  CHECK(check_token(ca, token.text, seconds_now()).has_value());
  REQUIRE(write_private(file, "x", if_there::replace).has_value());
  CHECK(ca.revoke("w1").error().code == errc::corrupt);
  CHECK_FALSE(ca.issue("head", tmp.path() / "head").has_value());
}

TEST_CASE("who joins after a revocation gets what is good") {
  spdlog::set_level(spdlog::level::off);
  ca_and_node x;
  auto entrance =
      join_listener::start(x.ca, {"127.0.0.1", 0, x.head, 4242}).value();
  auto join = [&] {
    return join_cluster("127.0.0.1", entrance->port(),
                        create_token(x.ca, 1h).value().text, "w1",
                        x.tmp.path() / "w1", 10s);
  };
  REQUIRE(join().has_value());
  auto files = credentials_in(x.tmp.path() / "w1");
  REQUIRE(x.known.replace(x.ca.revoke("w1").value()).has_value());
  CHECK(x.voids(files));
  REQUIRE(join().has_value());
  CHECK_FALSE(x.voids(files));
}

TEST_CASE("a process sees the list that another one writes") {
  ca_and_node x;
  auto w1 = test::join_as(x.ca, "w1", x.tmp.path() / "w1");
  auto file = x.tmp.path() / "head" / "revoked";
  CHECK_FALSE(x.voids(w1));
  auto before = x.known.generation();
  REQUIRE(save_revocations(file, {{"w1", 1}}).has_value());
  CHECK(x.voids(w1));
  CHECK(x.known.generation() != before);
  // A bad list trusts nobody but the head; a good one mends it.
  spdlog::set_level(spdlog::level::off);
  REQUIRE(write_private(file, "x", if_there::replace).has_value());
  CHECK_FALSE(x.known.voids(certificate_of(w1).get()).has_value());
  CHECK_FALSE(x.voids(x.head));
  REQUIRE(x.known.replace({}).has_value());
  CHECK_FALSE(x.voids(w1));
}

TEST_CASE("no blob goes to a revoked node, and none is taken from it") {
  ca_and_node x;
  auto w1 = test::join_as(x.ca, "w1", x.tmp.path() / "w1");
  auto here = blob_listener::start(x.head, "127.0.0.1").value();
  auto there = blob_listener::start(w1, "127.0.0.1").value();
  auto hash = here->add("secret").value();
  REQUIRE(there->add("secret").value() == hash);
  auto fetch = [&](const blob_listener& from, const credentials& mine) {
    return fetch_blob({"127.0.0.1", 0, from.port(), 0}, hash, mine, 5s)
        .has_value();
  };
  REQUIRE(fetch(*here, w1));
  REQUIRE(fetch(*there, x.head));
  REQUIRE(x.known.replace(x.ca.revoke("w1").value()).has_value());
  CHECK_FALSE(fetch(*here, w1));
  CHECK_FALSE(fetch(*there, x.head));
  CHECK(fetch(*here, x.head));
}
