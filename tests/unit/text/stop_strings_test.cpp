#include "engine/text/stop_strings.hpp"

#include <catch2/catch.hpp>
#include <random>

using namespace troupe::text;

namespace {

struct outcome {
  std::string shown;
  std::optional<std::size_t> stop;

  bool operator==(const outcome&) const = default;
};

// The first stop to be complete, of those the longest, by looking everywhere.
outcome search(const std::vector<std::string>& stops, std::string_view text,
               bool include) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::optional<std::size_t> best;
    for (std::size_t i = 0; i < stops.size(); ++i)
      if (text.substr(0, end).ends_with(stops[i]) &&
          (!best || stops[i].size() > stops[*best].size()))
        best = i;
    if (best)
      return {std::string{
                  text.substr(0, include ? end : end - stops[*best].size())},
              best};
  }
  return {std::string{text}, std::nullopt};
}

std::string random_text(std::mt19937& random, std::size_t size_max) {
  std::string out(random() % (size_max + 1), 'a');
  for (auto& c : out)
    c = "aab"[random() % 3];
  return out;
}

} // namespace

TEST_CASE("a stop string ends the text wherever it is cut") {
  std::mt19937 random{1};
  int wrong = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::vector<std::string> stops(random() % 4);
    for (auto& stop : stops)
      stop = "a" + random_text(random, 5);
    for (auto& stop : stops)
      if (random() % 2 == 0)
        stop[0] = 'b';
    auto text = random_text(random, 30);
    auto include = random() % 2 == 0;
    stop_strings watch{stops, include};
    outcome got;
    std::size_t at = 0;
    while (at < text.size() && !got.stop) {
      auto size = std::min<std::size_t>(1 + random() % 6, text.size() - at);
      got.stop = watch.push(text.substr(at, size), got.shown);
      at += size;
    }
    if (!got.stop)
      watch.finish(got.shown);
    wrong += got == search(stops, text, include) ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("only what may begin a stop string is held back") {
  stop_strings watch{{"\n\nUser:", "END"}, false};
  std::string out;
  CHECK_FALSE(watch.push("Hello\n", out));
  CHECK(out == "Hello");
  CHECK_FALSE(watch.push("world E", out));
  CHECK(out == "Hello\nworld ");
  CHECK_FALSE(watch.push("ND", out).value_or(0) == 0);
  CHECK(out == "Hello\nworld ");
}

TEST_CASE("without stop strings nothing is held back") {
  stop_strings watch{{}, false};
  std::string out;
  CHECK_FALSE(watch.push("abc", out));
  CHECK(out == "abc");
}

TEST_CASE("the end of a choice shows what was held back") {
  stop_strings watch{{"END"}, false};
  std::string out;
  CHECK_FALSE(watch.push("the EN", out));
  watch.finish(out);
  CHECK(out == "the EN");
}

TEST_CASE("many long stop strings are looked for at once") {
  std::vector<std::string> stops;
  for (int i = 0; i < 1000; ++i)
    stops.push_back(std::string(1000, 'a') + std::to_string(i));
  stop_strings watch{stops, true};
  std::string out;
  CHECK_FALSE(watch.push(std::string(100'000, 'a'), out));
  CHECK(out.size() == 99'000);
  CHECK(watch.push("999", out) == 9u);
}
