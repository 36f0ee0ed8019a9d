#include "engine/text/bpe_merges.hpp"
#include "engine/text/subword_model.hpp"
#include "engine/text/utf8.hpp"
#include "engine/text/vocabulary_index.hpp"

#include <array>
#include <unordered_map>

namespace troupe::text {

namespace {

class bpe final : public subword_model {
public:
  bpe(const tokenizer_data& data, const vocabulary_index& index,
      byte_pair_merges merges)
      : data_(data), index_(index), merges_(std::move(merges)),
        byte_ids_(index.byte_tokens()) {
    for (std::size_t c = 0; c < ascii_.size(); ++c) {
      auto character = static_cast<char>(c);
      ascii_[c] = index.id_of_text({&character, 1});
    }
  }

  void encode(std::string_view piece,
              std::vector<token_id>& out) const override {
    if (data_.ignore_merges) {
      auto whole = index_.id_of_text(piece);
      if (whole >= 0)
        return out.push_back(whole);
    }
    auto before = out.size();
    auto is_unknown = false; // an unknown token that is still to be appended
    auto end_unknown = [&] {
      if (is_unknown)
        out.push_back(data_.unknown);
      is_unknown = false;
    };
    for (auto rest = piece; !rest.empty();) {
      auto character = rest.substr(0, first_utf8_unit(rest).size);
      rest.remove_prefix(character.size());
      auto id = id_of(character);
      if (id >= 0) {
        end_unknown();
        out.push_back(id);
      } else if (!append_bytes(character, out) && data_.unknown >= 0) {
        if (!data_.fuse_unknown)
          end_unknown();
        is_unknown = true;
      }
    }
    end_unknown();
    merges_.apply(out, before);
  }

private:
  token_id id_of(std::string_view character) const {
    return character.size() == 1
               ? ascii_[static_cast<std::size_t>(character[0])]
               : index_.id_of_text(character);
  }

  // False if the vocabulary lacks one of the bytes.
  bool append_bytes(std::string_view character,
                    std::vector<token_id>& out) const {
    if (!data_.byte_fallback)
      return false;
    for (auto byte : character)
      if (byte_ids_[static_cast<unsigned char>(byte)] < 0)
        return false;
    for (auto byte : character)
      out.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
    return true;
  }

  const tokenizer_data& data_;
  const vocabulary_index& index_;
  byte_pair_merges merges_;
  std::array<token_id, 256> byte_ids_;
  std::array<token_id, 128> ascii_{};
};

} // namespace

result<subword_model_ptr> make_bpe(const tokenizer_data& data,
                                   const vocabulary_index& index) {
  auto merges = read_merges(data, index);
  if (!merges)
    return merges.error();
  return subword_model_ptr{
      std::make_unique<bpe>(data, index, std::move(*merges))};
}

} // namespace troupe::text
