#include "engine/text/byte_trie.hpp"
#include "engine/text/subword_model.hpp"
#include "engine/text/utf8.hpp"
#include "engine/text/vocabulary_index.hpp"

#include <algorithm>

namespace troupe::text {

namespace {

constexpr std::uint32_t word_characters_limit = 1000;

class wordpiece final : public subword_model {
public:
  wordpiece(const tokenizer_data& data, byte_trie trie)
      : data_(data), trie_(std::move(trie)),
        inside_(trie_.walk(byte_trie::root, data.continuing_prefix)) {
    // nop
  }

  void encode(std::string_view piece,
              std::vector<token_id>& out) const override {
    auto before = out.size();
    if (!is_short(piece) || !append_entries(piece, out)) {
      out.resize(before);
      out.push_back(data_.unknown);
    }
  }

private:
  bool is_short(std::string_view piece) const {
    auto characters = std::count_if(piece.begin(), piece.end(), [](char byte) {
      return (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
    });
    return static_cast<std::size_t>(characters) <= data_.word_characters_max;
  }

  // False where no entry goes on.
  bool append_entries(std::string_view piece,
                      std::vector<token_id>& out) const {
    auto from = byte_trie::root;
    while (!piece.empty()) {
      token_id best = -1;
      std::size_t size = 0;
      auto node = from;
      for (std::size_t i = 0; i < piece.size(); ++i) {
        node = node == byte_trie::none ? node : trie_.next(node, piece[i]);
        if (node == byte_trie::none)
          break;
        if (trie_.id_at(node) >= 0) {
          best = trie_.id_at(node);
          size = i + 1;
        }
      }
      if (best < 0)
        return false;
      out.push_back(best);
      piece.remove_prefix(size);
      from = inside_;
    }
    return true;
  }

  const tokenizer_data& data_;
  byte_trie trie_;
  byte_trie::node inside_; ///< after the prefix of entries inside a word
};

} // namespace

result<subword_model_ptr> make_wordpiece(const tokenizer_data& data,
                                         const vocabulary_index& index) {
  if (data.unknown < 0)
    return invalid_tokenizer("wordpiece without an unknown token");
  if (data.word_characters_max > word_characters_limit)
    return invalid_tokenizer("words of over 1000 characters");
  std::vector<byte_trie::entry> entries;
  auto add = [&](std::size_t i) {
    if (!data.vocabulary[i].empty() && is_utf8(data.vocabulary[i]))
      entries.push_back({data.vocabulary[i], static_cast<token_id>(i)});
  };
  for (std::size_t i = 0; i < data.vocabulary.size(); ++i)
    if (data.kinds[i] == token_kind::normal)
      add(i);
  for (const auto& options : data.added_options)
    if (options.is_piece && index.has(options.id) &&
        !index.is_special(options.id))
      add(static_cast<std::size_t>(options.id));
  return subword_model_ptr{
      std::make_unique<wordpiece>(data, byte_trie::make(std::move(entries)))};
}

} // namespace troupe::text
