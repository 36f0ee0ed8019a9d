#include "engine/text/vocabulary_index.hpp"

#include "engine/text/subword_model.hpp"

#include <charconv>
#include <fmt/format.h>

namespace troupe::text {

result<vocabulary_index> vocabulary_index::make(const tokenizer_data& data) {
  vocabulary_index out;
  out.data_ = &data;
  out.ids_.reserve(data.vocabulary.size());
  for (std::size_t i = 0; i < data.vocabulary.size(); ++i) {
    const auto& spelling = data.vocabulary[i];
    if (spelling.empty())
      continue; // a gap
    auto [at, is_new] =
        out.ids_.try_emplace(spelling, static_cast<token_id>(i));
    if (!is_new)
      return invalid_tokenizer(
          fmt::format("entries {} and {} are spelled alike", at->second, i));
  }
  return out;
}

token_id vocabulary_index::id_of(std::string_view spelling) const {
  auto at = ids_.find(spelling);
  return at == ids_.end() ? -1 : at->second;
}

token_id vocabulary_index::id_of_text(std::string_view spelling) const {
  auto id = id_of(spelling);
  return is_special(id) ? -1 : id;
}

std::array<token_id, 256> vocabulary_index::byte_tokens() const {
  std::array<token_id, 256> out{};
  for (std::size_t byte = 0; byte < out.size(); ++byte)
    out[byte] = id_of_text(fmt::format("<0x{:02X}>", byte));
  return out;
}

int byte_of_spelling(std::string_view spelling) {
  if (spelling.size() != 6 || !spelling.starts_with("<0x") ||
      spelling.back() != '>')
    return -1;
  int out = 0;
  const auto* end = spelling.data() + 5;
  auto [at, code] = std::from_chars(spelling.data() + 3, end, out, 16);
  return code == std::errc{} && at == end && out >= 0 ? out : -1;
}

} // namespace troupe::text
