#include "actors/node_agent/rank_meetings.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::node_agent;

namespace {

codec::bytes word(std::size_t size) {
  return codec::bytes(size, 7);
}

/// What was answered, in order.
struct answers {
  rank_meetings::answer next() {
    return [this](result<codec::bytes> x) { all.push_back(std::move(x)); };
  }

  std::vector<result<codec::bytes>> all;
};

} // namespace

TEST_CASE("ranks get each other's words, whoever is first") {
  rank_meetings meetings;
  answers got;
  meetings.open(1);
  meetings.open(2);
  meetings.get(1, "a", got.next());
  meetings.get(1, "a", got.next());
  meetings.get(2, "a", got.next());
  CHECK(got.all.empty());
  REQUIRE(meetings.put(1, "a", word(3)).has_value());
  REQUIRE(got.all.size() == 2);
  meetings.get(1, "a", got.next());
  REQUIRE(got.all.size() == 3);
  for (const auto& one : got.all)
    CHECK(*one == word(3));
}

TEST_CASE("a meeting that has ended, or never was, says so") {
  rank_meetings meetings;
  answers got;
  meetings.open(1);
  meetings.get(1, "a", got.next());
  meetings.close(1);
  meetings.get(1, "a", got.next());
  REQUIRE(got.all.size() == 2);
  CHECK(got.all[0].error().message == "the replica has ended");
  CHECK(got.all[1].error().code == errc::not_found);
  CHECK(meetings.put(1, "a", word(1)).error().code == errc::not_found);
  meetings.close(1);
  CHECK(got.all.size() == 2);
}

TEST_CASE("what ranks say is bounded, and said once") {
  rank_meetings meetings;
  meetings.open(1);
  REQUIRE(meetings.put(1, "a", word(1)).has_value());
  CHECK(meetings.put(1, "a", word(1)).error().code == errc::invalid_argument);
  CHECK(meetings.put(1, "b", word(rank_meetings::bytes_max + 1)).error().code ==
        errc::limit);
  for (std::size_t i = 1; i < rank_meetings::keys_max; ++i)
    REQUIRE(meetings.put(1, "k" + std::to_string(i), word(1)).has_value());
  CHECK(meetings.put(1, "b", word(1)).error().code == errc::limit);
  answers got;
  for (std::size_t i = 0; i < rank_meetings::waiting_max; ++i)
    meetings.get(1, "none", got.next());
  CHECK(got.all.empty());
  meetings.get(1, "none", got.next());
  REQUIRE(got.all.size() == 1);
  CHECK(got.all[0].error().code == errc::limit);
}
