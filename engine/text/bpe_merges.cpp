#include "engine/text/bpe_merges.hpp"

#include "engine/text/subword_model.hpp"
#include "engine/text/utf8.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

namespace troupe::text {

namespace {

constexpr std::size_t merges_max = 4'000'000;
constexpr std::size_t scored_bytes_max = 512; ///< of a piece with a score

struct merge {
  token_id left = -1;
  token_id right = -1;
  std::uint32_t rank = 0;
  token_id merged = -1;
};

result<merge> read_merge(const tokenizer_data& data,
                         const vocabulary_index& index, std::size_t rank) {
  std::string_view text = data.merges[rank];
  auto space = text.find(' ');
  if (space == 0 || space >= text.size() - 1 ||
      text.find(' ', space + 1) != text.npos)
    return invalid_tokenizer(fmt::format("merge {} is not two entries", rank));
  std::string joined{text};
  joined.erase(space, 1);
  merge out{index.id_of(text.substr(0, space)),
            index.id_of(text.substr(space + 1)),
            static_cast<std::uint32_t>(rank), index.id_of(joined)};
  if (out.left < 0 || out.right < 0 || out.merged < 0)
    return invalid_tokenizer(
        fmt::format("merge {} names what is no entry", rank));
  if (index.is_special(out.merged))
    return invalid_tokenizer(
        fmt::format("merge {} makes the special token {}", rank, out.merged));
  return out;
}

/// Whether SentencePiece looks an entry up when it merges.
bool is_piece(const tokenizer_data& data, std::size_t id) {
  return data.kinds[id] == token_kind::normal && !data.vocabulary[id].empty() &&
         byte_of_spelling(data.vocabulary[id]) < 0;
}

/// The ranks of equal scores are equal: of them the leftmost pair goes first.
std::vector<std::uint32_t> ranks_of(const std::vector<double>& scores) {
  auto sorted = scores;
  std::sort(sorted.begin(), sorted.end(), std::greater<>{});
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  std::vector<std::uint32_t> out;
  for (auto score : scores)
    out.push_back(static_cast<std::uint32_t>(
        std::lower_bound(sorted.begin(), sorted.end(), score,
                         std::greater<>{}) -
        sorted.begin()));
  return out;
}

/// Every way to make a piece of two others.
result<std::vector<merge>> merges_by_score(const tokenizer_data& data,
                                           const vocabulary_index& index) {
  std::vector<merge> out;
  auto ranks = ranks_of(data.scores);
  for (std::size_t i = 0; i < data.scores.size(); ++i) {
    if (!is_piece(data, i))
      continue;
    std::string_view piece = data.vocabulary[i];
    if (piece.size() > scored_bytes_max || !is_utf8(piece))
      return invalid_tokenizer(fmt::format(
          "entry {} is not UTF-8 of up to {} bytes", i, scored_bytes_max));
    for (auto at = first_utf8_unit(piece).size; at < piece.size();
         at += first_utf8_unit(piece.substr(at)).size) {
      auto left = index.id_of(piece.substr(0, at));
      auto right = index.id_of(piece.substr(at));
      if (left < 0 || right < 0 ||
          !is_piece(data, static_cast<std::size_t>(left)) ||
          !is_piece(data, static_cast<std::size_t>(right)))
        continue;
      if (out.size() == merges_max)
        return invalid_tokenizer(
            fmt::format("more than {} merges", merges_max));
      out.push_back({left, right, ranks[i], static_cast<token_id>(i)});
    }
  }
  return out;
}

result<std::vector<merge>> listed_merges(const tokenizer_data& data,
                                         const vocabulary_index& index) {
  if (data.merges.size() > merges_max)
    return invalid_tokenizer(fmt::format("more than {} merges", merges_max));
  std::vector<merge> out;
  out.reserve(data.merges.size());
  for (std::size_t rank = 0; rank < data.merges.size(); ++rank) {
    auto one = read_merge(data, index, rank);
    if (!one)
      return one.error();
    out.push_back(*one);
  }
  return out;
}

} // namespace

result<byte_pair_merges> read_merges(const tokenizer_data& data,
                                     const vocabulary_index& index) {
  if (!data.scores.empty() && !data.merges.empty())
    return invalid_tokenizer("merges and scores");
  auto all = data.scores.empty() ? listed_merges(data, index)
                                 : merges_by_score(data, index);
  if (!all)
    return all.error();
  byte_pair_merges out{all->size()};
  for (const auto& one : *all)
    out.add(one.left, one.right, one.rank, one.merged);
  return out;
}

} // namespace troupe::text
