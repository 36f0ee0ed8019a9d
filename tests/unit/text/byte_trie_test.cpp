#include "engine/text/byte_trie.hpp"

#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <string>

using namespace troupe::text;

TEST_CASE("a trie knows its entries and nothing else") {
  std::mt19937 random{2};
  std::map<std::string, token_id> known;
  for (token_id id = 0; id < 3000; ++id) {
    std::string word;
    for (auto size = 1 + random() % 5; size > 0; --size)
      word += static_cast<char>(random() % (id % 2 == 0 ? 256 : 4));
    known[word] = id;
  }
  std::vector<byte_trie::entry> entries;
  for (const auto& [word, id] : known)
    entries.push_back({word, id});
  auto trie = byte_trie::make(entries);
  for (const auto& [word, id] : known) {
    auto node = trie.walk(byte_trie::root, word);
    REQUIRE(node != byte_trie::none);
    CHECK(trie.id_at(node) == id);
  }
  for (int round = 0; round < 20'000; ++round) {
    std::string word;
    for (auto size = 1 + random() % 4; size > 0; --size)
      word += static_cast<char>(random() % 6);
    auto node = trie.walk(byte_trie::root, word);
    auto id = node == byte_trie::none ? -1 : trie.id_at(node);
    auto at = known.find(word);
    CHECK(id == (at == known.end() ? -1 : at->second));
  }
}

TEST_CASE("an empty trie leads nowhere") {
  auto trie = byte_trie::make({});
  CHECK(trie.next(byte_trie::root, 'a') == byte_trie::none);
  CHECK(trie.id_at(byte_trie::root) == -1);
}
