#include "client/event_parser.hpp"

#include <catch2/catch.hpp>

#include <string>
#include <vector>

using namespace troupe;
using namespace troupe::client;

namespace {

/// The events of a text that comes in pieces of that size.
std::vector<std::string> events_of(std::string_view text, std::size_t piece) {
  std::vector<std::string> out;
  event_parser parser{[&](std::string_view data) { out.emplace_back(data); }};
  for (std::size_t i = 0; i < text.size(); i += piece)
    REQUIRE(parser.feed(text.substr(i, piece)).has_value());
  return out;
}

} // namespace

TEST_CASE("events are read whatever pieces they come in") {
  constexpr std::string_view text = "data: a\n\n"
                                    ": a comment\n\n"
                                    "event: x\ndata:b\r\ndata: c\r\n\r\n"
                                    "id: 1\n\n"
                                    "data\n\n"
                                    "data:  d\r\r"
                                    "data: not complete\n";
  auto piece = GENERATE(1, 2, 3, 7, 1000);
  CHECK(events_of(text, static_cast<std::size_t>(piece)) ==
        std::vector<std::string>{"a", "b\nc", "", " d"});
}

TEST_CASE("an event without end is an error and takes no more memory") {
  event_parser parser{[](std::string_view) {}};
  std::string piece(1u << 20, 'x');
  result<void> fed;
  std::size_t pieces = 0;
  while (fed && pieces < 100) {
    fed = parser.feed(piece);
    ++pieces;
  }
  REQUIRE_FALSE(fed.has_value());
  CHECK(fed.error().code == errc::limit);
  CHECK(pieces == event_parser::event_bytes_max / piece.size() + 1);
}
