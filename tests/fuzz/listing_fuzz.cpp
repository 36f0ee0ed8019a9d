// Feeds bytes to what reads a hub's and a bucket's lists and a model's name: to
// the one that their first byte is for. What is taken must be within its
// bounds.
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -I.
//     tests/fuzz/listing_fuzz.cpp engine/weights/download/*.cpp
//     engine/codec/*.cpp -lcurl -lcrypto -lsimdjson -lfmt -o listing_fuzz

#include "engine/weights/download/bucket_origin.hpp"
#include "engine/weights/download/file_choice.hpp"
#include "engine/weights/download/hub_origin.hpp"
#include "engine/weights/download/url.hpp"

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

namespace {

using namespace troupe::download;

void require(bool holds) {
  if (!holds)
    std::abort();
}

void read_as_hub(std::string_view text) {
  auto all = read_hub_listing(text);
  if (!all)
    return;
  std::vector<std::string> names;
  for (const auto& file : all->files) {
    require(is_safe_name(file.name));
    require(file.blob.empty() || is_hex(file.blob, file.blob.size()));
    names.push_back(file.name);
  }
  for (auto what : {wanted::model, wanted::tokenizer}) {
    auto choice = choose_files(names, "", what);
    require(!choice || !choice->names.empty());
  }
}

void read_as_bucket(std::string_view text) {
  auto page = read_bucket_page(text);
  if (!page)
    return;
  for (const auto& object : page->objects)
    require(!object.key.empty() && object.etag.find('\n') == std::string::npos);
}

void read_as_reference(std::string_view text) {
  auto reference = parse_model_reference(text);
  if (!reference)
    return;
  auto again = parse_model_reference(to_string(*reference));
  require(again && *again == *reference);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  std::string text(reinterpret_cast<const char*>(data), size);
  switch (text.empty() ? '\0' : text.front()) {
  case '{':
    read_as_hub(text);
    break;
  case '<':
    read_as_bucket(text);
    break;
  default:
    read_as_reference(text);
    shown_url(text);
  }
  return 0;
}
