#include "engine/text/bpe_merges.hpp"
#include "engine/text/byte_alphabet.hpp"
#include "engine/text/subword_model.hpp"
#include "engine/text/vocabulary_index.hpp"

#include <array>
#include <string>
#include <unordered_map>

namespace troupe::text {

namespace {

class byte_level_bpe final : public subword_model {
public:
  byte_level_bpe(const tokenizer_data& data, const vocabulary_index& index,
                 byte_pair_merges merges)
      : merges_(std::move(merges)) {
    byte_ids_.fill(-1);
    for (std::size_t i = 0; i < data.vocabulary.size(); ++i)
      add(data, static_cast<token_id>(i));
    if (data.unknown >= 0 && !index.is_special(data.unknown))
      unknown_ = data.unknown;
  }

  void encode(std::string_view piece,
              std::vector<token_id>& out) const override {
    if (auto whole = words_.find(piece); whole != words_.end())
      return out.push_back(whole->second);
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

private:
  struct text_hash : std::hash<std::string_view> {
    using is_transparent = void;
  };

  void add(const tokenizer_data& data, token_id id) {
    auto index = static_cast<std::size_t>(id);
    auto kind = data.kinds[index];
    auto bytes = bytes_of_spelling(data.vocabulary[index]);
    if (!bytes || bytes->empty() || kind == token_kind::special)
      return;
    if (bytes->size() == 1)
      byte_ids_[static_cast<unsigned char>((*bytes)[0])] = id;
    if (data.ignore_merges && kind == token_kind::normal)
      words_.try_emplace(std::move(*bytes), id);
  }

  std::array<token_id, 256> byte_ids_{}; ///< -1: not in the vocabulary
  token_id unknown_ = -1;
  /// By bytes, if whole words win.
  std::unordered_map<std::string, token_id, text_hash, std::equal_to<>> words_;
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
