#include "engine/text/byte_trie.hpp"
#include "engine/text/subword_model.hpp"
#include "engine/text/utf8.hpp"
#include "engine/text/vocabulary_index.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace troupe::text {

namespace {

constexpr std::size_t piece_bytes_max = 1024;
/// How much less likely than the least likely entry an unknown character is.
constexpr double unknown_penalty = 10;

/// The best path through a text (Viterbi): for every place the entry that ends
/// there on the path with the best sum of scores. Of equals the path found
/// first stays: longer last entries win.
class unigram final : public subword_model {
public:
  unigram(const tokenizer_data& data, const vocabulary_index& index,
          byte_trie trie, double unknown_score)
      : data_(data), index_(index), trie_(std::move(trie)),
        unknown_score_(unknown_score), byte_ids_(index.byte_tokens()) {
    // nop
  }

  void encode(std::string_view piece,
              std::vector<token_id>& out) const override {
    std::vector<step> steps(piece.size() + 1);
    for (std::size_t at = 0; at < piece.size();
         at += first_utf8_unit(piece.substr(at)).size)
      step_from(piece, at, steps);
    append_path(piece, steps, out);
  }

private:
  /// How the best path comes to a place.
  struct step {
    double score = 0;
    std::uint32_t size = 0; ///< bytes of its last entry; 0: no path yet
    token_id id = -1;
  };

  static void offer(std::size_t size, double score, token_id id, step& to) {
    if (to.size == 0 || score > to.score)
      to = {score, static_cast<std::uint32_t>(size), id};
  }

  void step_from(std::string_view piece, std::size_t at,
                 std::vector<step>& steps) const {
    auto so_far = steps[at].score;
    auto character_end = at + first_utf8_unit(piece.substr(at)).size;
    auto has_character = false;
    auto node = byte_trie::root;
    for (auto i = at; i < piece.size(); ++i) {
      node = trie_.next(node, piece[i]);
      if (node == byte_trie::none)
        break;
      auto id = trie_.id_at(node);
      if (id < 0)
        continue;
      offer(i + 1 - at, so_far + data_.scores[static_cast<std::size_t>(id)], id,
            steps[i + 1]);
      has_character = has_character || i + 1 == character_end;
    }
    if (!has_character)
      offer(character_end - at, so_far + unknown_score_, data_.unknown,
            steps[character_end]);
  }

  void append_path(std::string_view piece, const std::vector<step>& steps,
                   std::vector<token_id>& out) const {
    std::vector<std::size_t> ends;
    for (auto end = piece.size(); end > 0; end -= steps[end].size) {
      auto joins = !ends.empty() && steps[end].id == data_.unknown &&
                   steps[ends.back()].id == data_.unknown;
      if (!joins)
        ends.push_back(end);
    }
    std::size_t begin = 0;
    for (auto i = ends.size(); i-- > 0; begin = ends[i]) {
      auto id = steps[ends[i]].id;
      if (id == data_.unknown)
        append_unknown(piece.substr(begin, ends[i] - begin), out);
      else
        out.push_back(id);
    }
  }

  // A run of unknown characters: together they may be an entry after all.
  void append_unknown(std::string_view run, std::vector<token_id>& out) const {
    auto id = index_.id_of_text(run);
    auto is_entry =
        id >= 0 && static_cast<std::size_t>(id) < data_.scores.size();
    auto has_bytes = data_.byte_fallback &&
                     std::all_of(run.begin(), run.end(), [&](char byte) {
                       return byte_ids_[static_cast<unsigned char>(byte)] >= 0;
                     });
    if (is_entry || !has_bytes)
      return out.push_back(is_entry ? id : data_.unknown);
    for (auto byte : run)
      out.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
  }

  const tokenizer_data& data_;
  const vocabulary_index& index_;
  byte_trie trie_;
  double unknown_score_;
  std::array<token_id, 256> byte_ids_;
};

} // namespace

result<subword_model_ptr> make_unigram(const tokenizer_data& data,
                                       const vocabulary_index& index) {
  if (data.unknown < 0)
    return invalid_tokenizer("unigram without an unknown token");
  if (data.scores.empty() || data.scores.size() > data.vocabulary.size())
    return invalid_tokenizer(fmt::format("{} scores for {} vocabulary entries",
                                         data.scores.size(),
                                         data.vocabulary.size()));
  std::vector<byte_trie::entry> entries;
  for (std::size_t i = 0; i < data.scores.size(); ++i) {
    std::string_view spelling = data.vocabulary[i];
    if (spelling.size() > piece_bytes_max || !is_utf8(spelling))
      return invalid_tokenizer(
          fmt::format("entry {} is no piece of up to {} bytes with a score", i,
                      piece_bytes_max));
    auto kind = data.kinds[i];
    if (!spelling.empty() && kind != token_kind::special &&
        kind != token_kind::unused)
      entries.push_back({spelling, static_cast<token_id>(i)});
  }
  auto least = *std::min_element(data.scores.begin(), data.scores.end());
  return subword_model_ptr{std::make_unique<unigram>(
      data, index, byte_trie::make(std::move(entries)),
      least - unknown_penalty)};
}

} // namespace troupe::text
