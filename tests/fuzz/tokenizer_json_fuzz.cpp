// Fuzz target for the reader of tokenizer.json, the tokenizer made of it, and
// the encoding that carries it. Build with clang++
// -fsanitize=fuzzer,address,undefined.

#include "engine/text/detokenizer.hpp"
#include "engine/text/tokenizer.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  using namespace troupe;
  auto read =
      text::read_tokenizer_json({reinterpret_cast<const char*>(data), size});
  // A high id makes a table of mostly nothing, which takes all the time.
  constexpr std::size_t entries_max = 10'000;
  if (!read || read->vocabulary.size() > entries_max)
    return 0;
  auto again = text::decode_tokenizer_data(text::encode(*read));
  if (!again || !(*again == *read))
    std::abort();
  auto made = text::tokenizer::make(std::move(*read));
  if (!made)
    return 0;
  std::vector<text::token_id> ids;
  for (auto special : {false, true})
    (*made)->encode(" The \xC3\x89t\xC3\xA9 12 <s>, \xE4\xB8\xAD\n\xFF",
                    special, ids);
  text::detokenizer detokenizer{*made, false};
  std::string out;
  for (auto id : ids)
    detokenizer.push(id, out);
  detokenizer.finish(out);
  return 0;
}
