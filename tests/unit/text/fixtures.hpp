#pragma once

#include "engine/text/tokenizer.hpp"

#include <fstream>
#include <iterator>
#include <string>

namespace troupe::text::fixtures {

inline std::string read_file(const std::string& name) {
  std::ifstream in{std::string{TROUPE_SOURCE_DIR "/tests/reference/fixtures/"} +
                       name,
                   std::ios::binary};
  return {std::istreambuf_iterator<char>{in}, {}};
}

/// The tokenizer of fixtures/tokenizer_<name>.json.
inline tokenizer_data data(const std::string& name) {
  return read_tokenizer_json(read_file("tokenizer_" + name + ".json")).value();
}

inline std::shared_ptr<const tokenizer> load(const std::string& name) {
  return tokenizer::make(data(name)).value();
}

inline std::vector<token_id> ids(const tokenizer& tok, std::string_view text,
                                 bool parse_special = true) {
  std::vector<token_id> out;
  tok.encode(text, parse_special, out);
  return out;
}

inline std::vector<token_id> ids(const tokenizer& tok,
                                 const text_pieces& pieces) {
  std::vector<token_id> out;
  tok.encode(pieces, out);
  return out;
}

} // namespace troupe::text::fixtures
