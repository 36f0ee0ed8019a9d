#include "engine/text/bpe_merges.hpp"
#include "engine/text/byte_alphabet.hpp"
#include "engine/text/subword_model.hpp"
#include "engine/text/vocabulary_index.hpp"
#include "engine/text/word_table.hpp"

#include <array>
#include <string>
#include <vector>

namespace troupe::text {

namespace {

class byte_level_bpe final : public subword_model {
public:
  byte_level_bpe(const tokenizer_data& data, const vocabulary_index& index,
                 byte_pair_merges merges)
      : words_(data.vocabulary.size()), merges_(std::move(merges)) {
    byte_ids_.fill(-1);
    if (data.unknown >= 0 && !index.is_special(data.unknown))
      unknown_ = data.unknown;
    std::vector<std::string> bytes(data.vocabulary.size());
    for (std::size_t i = 0; i < bytes.size(); ++i)
      if (data.kinds[i] != token_kind::special)
        bytes[i] = bytes_of_spelling(data.vocabulary[i]).value_or("");
    for (std::size_t i = 0; i < bytes.size(); ++i)
      if (bytes[i].size() == 1)
        byte_ids_[static_cast<unsigned char>(bytes[i][0])] =
            static_cast<token_id>(i);
    for (std::size_t i = 0; i < bytes.size(); ++i)
      if (data.kinds[i] == token_kind::normal && !bytes[i].empty())
        add_word(bytes[i], static_cast<token_id>(i), data.ignore_merges);
  }

  void encode(std::string_view piece,
              std::vector<token_id>& out) const override {
    auto whole = words_.find(piece);
    if (whole >= 0)
      out.push_back(whole);
    else
      merge(piece, out);
  }

private:
  void merge(std::string_view piece, std::vector<token_id>& out) const {
    auto before = out.size();
    for (auto byte : piece) {
      auto id = byte_ids_[static_cast<unsigned char>(byte)];
      if (id < 0)
        id = unknown_;
      if (id >= 0)
        out.push_back(id);
    }
    merges_.apply(out, before);
  }

  // An entry that its own bytes merge into is found without merging, as most
  // words are. Where whole words win, all of them are.
  void add_word(std::string_view bytes, token_id id, bool always) {
    constexpr std::size_t bytes_max = 64;
    std::vector<token_id> merged;
    if (!always && bytes.size() <= bytes_max)
      merge(bytes, merged);
    if (always || (merged.size() == 1 && merged[0] == id))
      words_.add(bytes, id);
  }

  std::array<token_id, 256> byte_ids_{}; ///< -1: not in the vocabulary
  token_id unknown_ = -1;
  word_table words_; ///< by bytes
  byte_pair_merges merges_;
};

} // namespace

result<subword_model_ptr> make_byte_level_bpe(const tokenizer_data& data,
                                              const vocabulary_index& index) {
  auto merges = read_merges(data, index);
  if (!merges)
    return merges.error();
  return subword_model_ptr{
      std::make_unique<byte_level_bpe>(data, index, std::move(*merges))};
}

} // namespace troupe::text
