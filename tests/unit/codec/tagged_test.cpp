#include "engine/codec/tagged.hpp"

#include <catch2/catch.hpp>

using namespace troupe;

TEST_CASE("a record reads back field by field") {
  codec::writer out;
  out.put(1, std::uint32_t{7});
  out.put(2, std::string_view{"text"});
  out.put_unless(3, 0.5f, 0.5f);
  out.put(4, std::vector<std::int32_t>{1, -2, 3});
  auto record = out.take();
  codec::reader in{record};
  codec::field f;
  std::uint32_t number = 0;
  std::string text;
  std::vector<std::int32_t> list;
  REQUIRE(in.next(f));
  CHECK((f.tag == 1 && f.get(number) && number == 7));
  REQUIRE(in.next(f));
  CHECK((f.tag == 2 && f.get(text) && text == "text"));
  REQUIRE(in.next(f));
  CHECK((f.tag == 4 && f.get(list) && list == std::vector<int>{1, -2, 3}));
  CHECK_FALSE(in.next(f));
  CHECK(in.ok());
}

TEST_CASE("a record cut anywhere is noticed and never read past its end") {
  codec::writer out;
  out.put(1, std::uint64_t{1});
  out.put(9, std::string_view{"abc"});
  auto whole = out.take();
  for (std::size_t size = 1; size < whole.size(); ++size) {
    if (size == 14)
      continue; // the end of the first field
    codec::bytes cut(whole.begin(), whole.begin() + size);
    codec::reader in{cut};
    codec::field f;
    while (in.next(f)) {
    }
    CHECK_FALSE(in.ok());
  }
}

TEST_CASE("a field of the wrong length is not read") {
  codec::writer out;
  out.put(1, std::uint16_t{7});
  out.put(2, std::uint8_t{2});
  auto record = out.take();
  codec::reader in{record};
  codec::field f;
  REQUIRE(in.next(f));
  std::uint32_t number = 0;
  std::vector<std::int32_t> list;
  CHECK_FALSE(f.get(number));
  CHECK_FALSE(f.get(list));
  REQUIRE(in.next(f));
  bool flag = false;
  CHECK_FALSE(f.get(flag));
}
