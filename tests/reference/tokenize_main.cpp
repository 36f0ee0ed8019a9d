// Tokenizes texts for comparison with another implementation.
//
//   tokenize_file TOKENIZER TEXTS IDS plain|special
//
// TOKENIZER is a tokenizer.json or an encoded tokenizer_data (".data"). TEXTS
// holds texts, IDS receives for each text its ids and the text that they stand
// for, all after their lengths as a u32 (bytes and ids). All numbers are
// little-endian 32-bit ones.

#include "engine/text/detokenizer.hpp"
#include "engine/text/tokenizer.hpp"

#include <cstring>
#include <ctime>
#include <fstream>
#include <iostream>
#include <iterator>

namespace {

using namespace troupe;

std::string read_file(const std::string& path) {
  std::ifstream in{path, std::ios::binary};
  if (!in)
    throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>{in}, {}};
}

text::tokenizer_data read_data(const std::string& path) {
  auto file = read_file(path);
  if (path.ends_with(".json"))
    return text::read_tokenizer_json(file).value();
  codec::bytes bytes(file.begin(), file.end());
  return text::decode_tokenizer_data(bytes).value();
}

void write_u32(std::ostream& out, std::size_t value) {
  auto number = static_cast<std::uint32_t>(value);
  out.write(reinterpret_cast<const char*>(&number), sizeof number);
}

std::string text_of(const std::shared_ptr<const text::tokenizer>& tokenizer,
                    const std::vector<text::token_id>& ids) {
  std::string out;
  text::detokenizer text{tokenizer, false};
  for (auto id : ids)
    text.push(id, out);
  text.finish(out);
  return out;
}

/// Processor time of this program, which has one thread.
double seconds_used() {
  return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

void run(const std::string& tokenizer_path, const std::string& texts_path,
         const std::string& ids_path, bool parse_special) {
  auto data = read_data(tokenizer_path);
  auto start = seconds_used();
  auto tokenizer = text::tokenizer::make(std::move(data)).value();
  std::cerr << "make: " << (seconds_used() - start) * 1e3 << " ms\n";
  auto texts = read_file(texts_path);
  std::ofstream out{ids_path, std::ios::binary};
  std::vector<text::token_id> ids;
  double seconds = 0;
  for (std::size_t at = 0; at + 4 <= texts.size();) {
    std::uint32_t size = 0;
    std::memcpy(&size, texts.data() + at, sizeof size);
    auto text = std::string_view{texts}.substr(at + 4, size);
    ids.clear();
    start = seconds_used();
    tokenizer->encode(text, parse_special, ids);
    seconds += seconds_used() - start;
    write_u32(out, ids.size());
    for (auto id : ids)
      write_u32(out, static_cast<std::size_t>(id));
    auto again = text_of(tokenizer, ids);
    write_u32(out, again.size());
    out << again;
    at += 4 + text.size();
  }
  std::cerr << "encode: " << static_cast<double>(texts.size()) / 1e6 / seconds
            << " MB/s\n";
}

} // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::cerr << "usage: tokenize_file TOKENIZER TEXTS IDS plain|special\n";
    return 2;
  }
  try {
    run(argv[1], argv[2], argv[3], std::string_view{argv[4]} == "special");
  } catch (const std::exception& e) {
    std::cerr << "tokenize_file: " << e.what() << '\n';
    return 1;
  }
}
