#include "engine/text/tokenizer.hpp"

#include "engine/text/added_token_finder.hpp"
#include "engine/text/byte_alphabet.hpp"
#include "engine/text/byte_pair_merges.hpp"
#include "engine/text/nfc.hpp"
#include "engine/text/split_pattern.hpp"
#include "engine/text/utf8.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <optional>
#include <unordered_map>

namespace troupe::text {

namespace {

constexpr std::size_t vocabulary_max = 1'000'000;
constexpr std::size_t merges_max = 2'000'000;
constexpr std::size_t patterns_max = 16;

error invalid(std::string message) {
  return {errc::invalid_argument, "tokenizer: " + std::move(message)};
}

// Ids of the words met in one call. A new word takes the place of an older one
// with the same hash, so the size is fixed.
class word_cache {
public:
  static constexpr std::size_t word_bytes_max = 22;
  static constexpr std::size_t ids_max = 10;

  /// Appends the ids of `word` if it is known.
  bool find(std::string_view word, std::size_t hash,
            std::vector<token_id>& out) const {
    const auto& known = slots_[hash % slots_.size()];
    if (known.size != word.size() ||
        std::memcmp(known.word.data(), word.data(), word.size()) != 0)
      return false;
    out.insert(out.end(), known.ids.begin(), known.ids.begin() + known.count);
    return true;
  }

  void put(std::string_view word, std::size_t hash,
           const std::vector<token_id>& ids) {
    if (ids.size() > ids_max)
      return;
    auto& slot = slots_[hash % slots_.size()];
    slot.size = static_cast<std::uint8_t>(word.size());
    slot.count = static_cast<std::uint8_t>(ids.size());
    std::memcpy(slot.word.data(), word.data(), word.size());
    std::copy(ids.begin(), ids.end(), slot.ids.begin());
  }

private:
  struct entry {
    std::array<char, word_bytes_max> word{};
    std::uint8_t size = 0;
    std::uint8_t count = 0;
    std::array<token_id, ids_max> ids{};
  };

  std::vector<entry> slots_{4096};
};

// What one call of `encode` needs besides the tokenizer.
struct encoding {
  std::vector<token_id>& out;
  match_scratch scratch;
  std::vector<token_id> word_ids;
  std::optional<word_cache> cache; ///< only for texts that are worth it
};

// Which bytes of a text came from a request.
class content_map {
public:
  void append(std::size_t size, bool content) {
    size_ += size;
    if (size == 0 || !content)
      return;
    if (!ranges_.empty() && ranges_.back().second == size_ - size)
      ranges_.back().second = size_;
    else
      ranges_.emplace_back(size_ - size, size_);
  }

  /// Whether a byte of [begin, end) is content.
  bool touches(std::size_t begin, std::size_t end) const {
    auto range = std::upper_bound(
        ranges_.begin(), ranges_.end(), begin,
        [](std::size_t at, const auto& r) { return at < r.second; });
    return range != ranges_.end() && range->first < end;
  }

private:
  std::vector<std::pair<std::size_t, std::size_t>> ranges_;
  std::size_t size_ = 0;
};

class byte_level_bpe final : public tokenizer {
public:
  using spelling_map = std::unordered_map<std::string_view, token_id>;

  explicit byte_level_bpe(tokenizer_data data)
      : data_(std::move(data)), merges_(data_.merges.size()) {
    // nop
  }

  // Fills the tables from the data; called once, before anybody shares this.
  std::optional<error> prepare();

  void encode(std::string_view text, bool parse_special,
              std::vector<token_id>& out) const override;
  void encode(const text_pieces& pieces,
              std::vector<token_id>& out) const override;

  std::string_view bytes_of(token_id id) const override {
    return is_known(id) ? std::string_view{bytes_[index(id)]} : "";
  }

  bool is_special(token_id id) const override {
    return is_known(id) && data_.kinds[index(id)] == token_kind::special;
  }

  token_id id_of(std::string_view spelling) const override {
    auto at = ids_.find(spelling);
    return at == ids_.end() ? -1 : at->second;
  }

  const tokenizer_data& data() const override {
    return data_;
  }

private:
  static std::size_t index(token_id id) {
    return static_cast<std::size_t>(id);
  }

  bool is_known(token_id id) const {
    return id >= 0 && index(id) < data_.vocabulary.size();
  }

  std::optional<error> check_shape() const;
  std::optional<error> read_vocabulary();
  std::optional<error> read_merges();
  std::optional<error> add_merge(std::size_t rank);
  std::optional<error> compile_patterns();
  std::optional<error> read_added_tokens();

  void encode_whole(std::string_view text, const content_map& content,
                    std::vector<token_id>& out) const;
  template <class OnText>
  void find_added(const added_token_finder& finder, std::string_view text,
                  const added_token_finder::filter& allowed, encoding& state,
                  OnText on_text) const;
  void encode_plain(std::string_view text, encoding& state) const;
  void split(std::size_t level, std::string_view text, encoding& state) const;
  void split_isolated(std::size_t level, std::string_view text,
                      encoding& state) const;
  void split_by_mode(std::size_t level, std::string_view text,
                     encoding& state) const;
  void encode_word(std::string_view word, encoding& state) const;
  void merge_word(std::string_view word, std::vector<token_id>& ids) const;

  tokenizer_data data_;
  std::vector<std::string> bytes_;       ///< what each entry stands for
  spelling_map ids_;                     ///< by spelling
  spelling_map words_;                   ///< by bytes, if merges are ignored
  std::array<token_id, 256> byte_ids_{}; ///< -1: not in the vocabulary
  token_id unknown_ = -1;
  byte_pair_merges merges_;
  std::vector<split_pattern> patterns_;
  added_token_finder added_;
  added_token_finder added_normalized_; ///< looked for after normalisation
};

// -- making -------------------------------------------------------------------

std::optional<error> byte_level_bpe::prepare() {
  if (auto problem = check_shape())
    return problem;
  if (auto problem = read_vocabulary())
    return problem;
  if (auto problem = read_merges())
    return problem;
  if (auto problem = compile_patterns())
    return problem;
  return read_added_tokens();
}

std::optional<error> byte_level_bpe::check_shape() const {
  auto entries = data_.vocabulary.size();
  if (entries == 0 || entries > vocabulary_max)
    return invalid(fmt::format("{} vocabulary entries; 1 to {} are supported",
                               entries, vocabulary_max));
  if (data_.kinds.size() != entries)
    return invalid(fmt::format("{} token kinds for {} vocabulary entries",
                               data_.kinds.size(), entries));
  if (data_.merges.size() > merges_max)
    return invalid(fmt::format("more than {} merges", merges_max));
  if (data_.split_patterns.size() > patterns_max)
    return invalid(fmt::format("more than {} split patterns", patterns_max));
  if (!data_.split_modes.empty() &&
      data_.split_modes.size() != data_.split_patterns.size())
    return invalid("split modes and split patterns differ in number");
  for (auto id : {data_.bos, data_.eos, data_.unknown})
    if (id < -1 || (id >= 0 && !is_known(id)))
      return invalid(
          fmt::format("special id {} is outside the vocabulary", id));
  if (data_.add_bos && data_.bos < 0)
    return invalid("add_bos without a bos token");
  return std::nullopt;
}

std::optional<error> byte_level_bpe::read_vocabulary() {
  auto entries = data_.vocabulary.size();
  byte_ids_.fill(-1);
  bytes_.resize(entries);
  ids_.reserve(entries);
  if (data_.ignore_merges)
    words_.reserve(entries);
  for (std::size_t i = 0; i < entries; ++i) {
    const auto& spelling = data_.vocabulary[i];
    if (spelling.empty())
      continue; // a gap
    auto id = static_cast<token_id>(i);
    if (auto [at, is_new] = ids_.try_emplace(spelling, id); !is_new)
      return invalid(
          fmt::format("entries {} and {} are spelled alike", at->second, id));
    auto bytes = bytes_of_spelling(spelling);
    auto is_bpe = bytes && data_.kinds[i] != token_kind::special;
    if (is_bpe && bytes->size() == 1)
      byte_ids_[static_cast<unsigned char>((*bytes)[0])] = id;
    auto is_plain = data_.kinds[i] == token_kind::special ||
                    data_.kinds[i] == token_kind::added;
    bytes_[i] = bytes && !is_plain ? std::move(*bytes) : spelling;
    if (data_.ignore_merges && data_.kinds[i] == token_kind::normal)
      words_.try_emplace(bytes_[i], id);
  }
  if (data_.unknown >= 0 && !is_special(data_.unknown))
    unknown_ = data_.unknown;
  return std::nullopt;
}

std::optional<error> byte_level_bpe::read_merges() {
  for (std::size_t rank = 0; rank < data_.merges.size(); ++rank)
    if (auto problem = add_merge(rank))
      return problem;
  return std::nullopt;
}

std::optional<error> byte_level_bpe::add_merge(std::size_t rank) {
  std::string_view merge = data_.merges[rank];
  auto space = merge.find(' ');
  if (space == 0 || space >= merge.size() - 1 ||
      merge.find(' ', space + 1) != merge.npos)
    return invalid(fmt::format("merge {} is not two entries", rank));
  auto left = id_of(merge.substr(0, space));
  auto right = id_of(merge.substr(space + 1));
  std::string joined{merge};
  joined.erase(space, 1);
  auto merged = id_of(joined);
  if (left < 0 || right < 0 || merged < 0)
    return invalid(fmt::format("merge {} names what is no entry", rank));
  if (is_special(merged))
    return invalid(
        fmt::format("merge {} makes the special token {}", rank, merged));
  merges_.add(left, right, static_cast<std::uint32_t>(rank), merged);
  return std::nullopt;
}

std::optional<error> byte_level_bpe::compile_patterns() {
  for (const auto& source : data_.split_patterns) {
    auto pattern = split_pattern::compile(source);
    if (!pattern)
      return error{pattern.error().code,
                   fmt::format("tokenizer: split {}: {}", patterns_.size(),
                               pattern.error().message)};
    patterns_.push_back(std::move(*pattern));
  }
  return std::nullopt;
}

std::optional<error> byte_level_bpe::read_added_tokens() {
  std::unordered_map<token_id, added_token_options> options;
  for (const auto& entry : data_.added_options) {
    if (!is_known(entry.id) || !options.try_emplace(entry.id, entry).second)
      return invalid(
          fmt::format("options of token {} make no sense", entry.id));
  }
  for (std::size_t i = 0; i < data_.vocabulary.size(); ++i) {
    auto kind = data_.kinds[i];
    const auto& spelling = data_.vocabulary[i];
    if ((kind != token_kind::special && kind != token_kind::added) ||
        spelling.empty())
      continue;
    if (spelling.size() > added_token_finder::spelling_bytes_max)
      return invalid(fmt::format("token {} is longer than {} bytes", i,
                                 added_token_finder::spelling_bytes_max));
    if (!is_utf8(spelling))
      return invalid(fmt::format("token {} is not UTF-8", i));
    auto id = static_cast<token_id>(i);
    auto given = options.find(id);
    auto entry =
        given == options.end() ? added_token_options{.id = id} : given->second;
    if (entry.normalized && data_.normalize_nfc && kind == token_kind::special)
      return error{errc::unsupported,
                   fmt::format("tokenizer: normalized special token {}", i)};
    if (!entry.normalized)
      added_.add(spelling, entry);
    else
      added_normalized_.add(data_.normalize_nfc ? to_nfc(spelling) : spelling,
                            entry);
  }
  return std::nullopt;
}

// -- encoding -----------------------------------------------------------------

void byte_level_bpe::encode(std::string_view text, bool parse_special,
                            std::vector<token_id>& out) const {
  encode(text_pieces{{std::string{text}, !parse_special}}, out);
}

void byte_level_bpe::encode(const text_pieces& pieces,
                            std::vector<token_id>& out) const {
  std::string joined;
  content_map content;
  for (const auto& piece : pieces) {
    joined += piece.text;
    content.append(piece.text.size(), piece.content);
  }
  if (is_utf8(joined))
    return encode_whole(joined, content, out);
  std::string replaced;
  content_map replaced_content;
  for (std::size_t at = 0; at < joined.size();) {
    auto unit = first_utf8_unit(std::string_view{joined}.substr(at));
    auto before = replaced.size();
    append_replaced(std::string_view{joined}.substr(at, unit.size), replaced);
    replaced_content.append(replaced.size() - before,
                            content.touches(at, at + unit.size));
    at += unit.size;
  }
  encode_whole(replaced, replaced_content, out);
}

void byte_level_bpe::encode_whole(std::string_view text,
                                  const content_map& content,
                                  std::vector<token_id>& out) const {
  constexpr std::size_t cache_from_bytes = 4096;
  encoding state{out, {}, {}, {}};
  if (text.size() >= cache_from_bytes)
    state.cache.emplace();
  auto allowed_from = [&](std::size_t offset) {
    return [this, &content, offset](token_id id, std::size_t begin,
                                    std::size_t end) {
      return !is_special(id) || !content.touches(offset + begin, offset + end);
    };
  };
  auto on_plain = [&](std::string_view plain) { encode_plain(plain, state); };
  find_added(added_, text, allowed_from(0), state, [&](std::string_view part) {
    if (data_.normalize_nfc) {
      auto any = [](token_id, std::size_t, std::size_t) { return true; };
      auto normalized = to_nfc(part);
      return find_added(added_normalized_, normalized, any, state, on_plain);
    }
    auto offset = static_cast<std::size_t>(part.data() - text.data());
    find_added(added_normalized_, part, allowed_from(offset), state, on_plain);
  });
}

template <class OnText>
void byte_level_bpe::find_added(const added_token_finder& finder,
                                std::string_view text,
                                const added_token_finder::filter& allowed,
                                encoding& state, OnText on_text) const {
  std::size_t from = 0;
  added_token_finder::found token;
  while (!finder.empty() && finder.find(text, from, allowed, token)) {
    if (token.begin > from)
      on_text(text.substr(from, token.begin - from));
    state.out.push_back(token.id);
    from = token.end;
  }
  if (from < text.size())
    on_text(text.substr(from));
}

void byte_level_bpe::encode_plain(std::string_view text,
                                  encoding& state) const {
  if (!data_.add_prefix_space || text.starts_with(' '))
    return split(0, text, state);
  std::string prefixed{' '};
  prefixed += text;
  split(0, prefixed, state);
}

void byte_level_bpe::split(std::size_t level, std::string_view text,
                           encoding& state) const {
  if (level == patterns_.size())
    encode_word(text, state);
  else if (data_.split_modes.empty() ||
           data_.split_modes[level].behavior == split_behavior::isolated)
    split_isolated(level, text, state);
  else
    split_by_mode(level, text, state);
}

void byte_level_bpe::split_isolated(std::size_t level, std::string_view text,
                                    encoding& state) const {
  std::size_t done = 0;
  while (done < text.size()) {
    auto match = patterns_[level].find(text, done, state.scratch);
    if (!match)
      break;
    if (match->first > done)
      split(level + 1, text.substr(done, match->first - done), state);
    split(level + 1, text.substr(match->first, match->second - match->first),
          state);
    done = match->second;
  }
  if (done < text.size())
    split(level + 1, text.substr(done), state);
}

struct part {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool is_match = false;
};

// All of `text` in order, matches and what is between them.
std::vector<part> parts_of(const split_pattern& pattern, bool invert,
                           std::string_view text, match_scratch& scratch) {
  std::vector<part> out;
  std::size_t done = 0;
  while (done < text.size()) {
    auto match = pattern.find(text, done, scratch);
    auto begin = match ? match->first : text.size();
    if (begin > done)
      out.push_back({done, begin, invert});
    if (match)
      out.push_back({begin, match->second, !invert});
    done = match ? match->second : text.size();
  }
  return out;
}

// Joins parts as the behaviour asks.
std::vector<part> join(const std::vector<part>& parts, split_behavior how) {
  std::vector<part> out;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const auto* before = i == 0 ? nullptr : &parts[i - 1];
    auto joins = false;
    if (before != nullptr && how == split_behavior::contiguous)
      joins = parts[i].is_match == before->is_match;
    else if (before != nullptr && how == split_behavior::merged_with_previous)
      joins = parts[i].is_match && !before->is_match;
    else if (before != nullptr && how == split_behavior::merged_with_next)
      joins = before->is_match && !parts[i].is_match;
    if (joins)
      out.back().end = parts[i].end;
    else if (how != split_behavior::removed || !parts[i].is_match)
      out.push_back(parts[i]);
  }
  return out;
}

void byte_level_bpe::split_by_mode(std::size_t level, std::string_view text,
                                   encoding& state) const {
  const auto& mode = data_.split_modes[level];
  auto parts = parts_of(patterns_[level], mode.invert, text, state.scratch);
  for (const auto& piece : join(parts, mode.behavior))
    split(level + 1, text.substr(piece.begin, piece.end - piece.begin), state);
}

void byte_level_bpe::encode_word(std::string_view word, encoding& state) const {
  if (data_.ignore_merges) {
    if (auto at = words_.find(word); at != words_.end())
      return state.out.push_back(at->second);
  }
  auto is_short = state.cache && word.size() <= word_cache::word_bytes_max;
  auto hash = is_short ? std::hash<std::string_view>{}(word) : 0;
  if (is_short && state.cache->find(word, hash, state.out))
    return;
  auto& ids = state.word_ids;
  ids.clear();
  merge_word(word, ids);
  if (is_short)
    state.cache->put(word, hash, ids);
  state.out.insert(state.out.end(), ids.begin(), ids.end());
}

void byte_level_bpe::merge_word(std::string_view word,
                                std::vector<token_id>& ids) const {
  for (auto byte : word) {
    auto id = byte_ids_[static_cast<unsigned char>(byte)];
    if (id < 0)
      id = unknown_;
    if (id >= 0)
      ids.push_back(id);
  }
  merges_.apply(ids);
}

} // namespace

result<std::shared_ptr<const tokenizer>> tokenizer::make(tokenizer_data data) {
  auto out = std::make_shared<byte_level_bpe>(std::move(data));
  if (auto problem = out->prepare())
    return *problem;
  return std::shared_ptr<const tokenizer>{std::move(out)};
}

} // namespace troupe::text
