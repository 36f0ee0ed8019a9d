#include "engine/text/tokenizer.hpp"

#include "engine/text/added_token_finder.hpp"
#include "engine/text/content_map.hpp"
#include "engine/text/normalizer.hpp"
#include "engine/text/pre_tokenizer.hpp"
#include "engine/text/subword_model.hpp"
#include "engine/text/token_decoder.hpp"
#include "engine/text/utf8.hpp"
#include "engine/text/vocabulary_index.hpp"
#include "engine/text/word_cache.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <unordered_map>

namespace troupe::text {

error invalid_tokenizer(std::string_view message) {
  return {errc::invalid_argument, fmt::format("tokenizer: {}", message)};
}

result<subword_model_ptr> make_subword_model(const tokenizer_data& data,
                                             const vocabulary_index& index) {
  switch (data.model) {
  case model_kind::byte_level_bpe:
    return make_byte_level_bpe(data, index);
  case model_kind::bpe:
    return make_bpe(data, index);
  case model_kind::unigram:
    return make_unigram(data, index);
  case model_kind::wordpiece:
    return make_wordpiece(data, index);
  }
  return invalid_tokenizer("a model of no known kind");
}

namespace {

constexpr std::size_t vocabulary_max = 1'000'000;
constexpr std::size_t frame_max = 16;

// Takes pieces and appends their ids.
class id_writer final : public piece_sink {
public:
  id_writer(const subword_model& model, std::vector<token_id>& out)
      : model_(model), out_(out) {
    // nop
  }

  /// For texts that are worth it.
  void use_cache() {
    cache_.emplace();
  }

  void take(std::string_view piece) override {
    if (!cache_ || piece.size() > short_word::bytes_max)
      return model_.encode(piece, out_);
    short_word word{piece};
    auto& slot = cache_->slot_of(word);
    if (slot.append_if(word, out_))
      return;
    auto before = out_.size();
    model_.encode(piece, out_);
    slot.put(word, std::span{out_}.subspan(before));
  }

  void append(token_id id) {
    out_.push_back(id);
  }

  match_scratch scratch;

private:
  const subword_model& model_;
  std::vector<token_id>& out_;
  std::optional<word_cache> cache_;
};

class tokenizer_of_data final : public tokenizer {
public:
  explicit tokenizer_of_data(tokenizer_data data) : data_(std::move(data)) {
    // nop
  }

  // Fills the tables from the data; called once, before anybody shares this.
  std::optional<error> prepare();

  void encode(std::string_view text, bool parse_special,
              std::vector<token_id>& out) const override {
    encode(text_pieces{{std::string{text}, !parse_special}}, out);
  }

  void encode(const text_pieces& pieces,
              std::vector<token_id>& out) const override;

  std::string_view bytes_of(token_id id) const override {
    return index_.has(id) ? std::string_view{bytes_[place(id)]} : "";
  }

  std::string_view bytes_at_front(token_id id) const override {
    return front_bytes_.empty() || !index_.has(id)
               ? bytes_of(id)
               : std::string_view{front_bytes_[place(id)]};
  }

  const leading_strip& strip_of_text() const override {
    return strip_;
  }

  bool is_special(token_id id) const override {
    return index_.is_special(id);
  }

  token_id id_of(std::string_view spelling) const override {
    return index_.id_of(spelling);
  }

  const tokenizer_data& data() const override {
    return data_;
  }

private:
  static std::size_t place(token_id id) {
    return static_cast<std::size_t>(id);
  }

  std::optional<error> check_shape() const;
  std::optional<error> check_frame(const std::vector<frame_place>& frame) const;
  std::optional<error> compile_steps();
  std::optional<error> make_model();
  std::optional<error> read_added_tokens(std::vector<std::string>& spellings);
  std::optional<error> add_token(const added_token_options& options,
                                 std::string& spelling);
  std::optional<error> read_bytes(const std::vector<std::string>& spellings);

  void encode_whole(std::string_view text, const content_map& content,
                    std::vector<token_id>& out) const;

  tokenizer_data data_;
  vocabulary_index index_;
  normalizer normalizer_;
  pre_tokenizer pre_tokenizer_;
  subword_model_ptr model_;
  std::vector<std::string> bytes_;       ///< what each entry stands for
  std::vector<std::string> front_bytes_; ///< at the front, if that differs
  leading_strip strip_;
  added_token_finder added_;
  added_token_finder added_normalized_; ///< looked for after normalisation
};

// -- making -------------------------------------------------------------------

// Moves a value out of a result; its error otherwise.
template <class T>
std::optional<error> take(result<T> from, T& to) {
  if (!from)
    return from.error();
  to = std::move(*from);
  return std::nullopt;
}

std::optional<error> tokenizer_of_data::prepare() {
  if (auto problem = check_shape())
    return problem;
  if (auto problem = take(vocabulary_index::make(data_), index_))
    return problem;
  for (const auto* frame : {&data_.frame_one, &data_.frame_two})
    if (auto problem = check_frame(*frame))
      return problem;
  if (auto problem = compile_steps())
    return problem;
  if (auto problem = take(make_subword_model(data_, index_), model_))
    return problem;
  auto spellings = data_.vocabulary;
  if (auto problem = read_added_tokens(spellings))
    return problem;
  return read_bytes(spellings);
}

std::optional<error> tokenizer_of_data::check_shape() const {
  auto entries = data_.vocabulary.size();
  if (entries == 0 || entries > vocabulary_max)
    return invalid_tokenizer(
        fmt::format("{} vocabulary entries; 1 to {} are supported", entries,
                    vocabulary_max));
  if (data_.kinds.size() != entries)
    return invalid_tokenizer(
        fmt::format("{} token kinds for {} vocabulary entries",
                    data_.kinds.size(), entries));
  if (data_.scores.size() > entries)
    return invalid_tokenizer("more scores than vocabulary entries");
  if (!std::all_of(data_.scores.begin(), data_.scores.end(),
                   [](double score) { return std::isfinite(score); }))
    return invalid_tokenizer("a score that is no finite number");
  auto end = static_cast<token_id>(entries);
  for (auto id : {data_.bos, data_.eos, data_.unknown})
    if (id < -1 || id >= end)
      return invalid_tokenizer(
          fmt::format("special id {} is outside the vocabulary", id));
  if (data_.add_bos && data_.bos < 0)
    return invalid_tokenizer("add_bos without a bos token");
  return std::nullopt;
}

std::optional<error>
tokenizer_of_data::check_frame(const std::vector<frame_place>& frame) const {
  if (frame.size() > frame_max)
    return invalid_tokenizer("a frame of over 16 places");
  for (const auto& at : frame)
    if (at.id < frame_place::second_text || (at.id >= 0 && !index_.has(at.id)))
      return invalid_tokenizer(
          fmt::format("frame id {} is outside the vocabulary", at.id));
  return std::nullopt;
}

std::optional<error> tokenizer_of_data::compile_steps() {
  if (auto problem = take(normalizer::make(data_.normalizer), normalizer_))
    return problem;
  return take(pre_tokenizer::make(data_.pre_tokenizer), pre_tokenizer_);
}

// Without a decoder the byte alphabet is what byte-level entries are in. Added
// tokens of such tokenizers are plain text, although it may look like it.
std::optional<error>
tokenizer_of_data::read_bytes(const std::vector<std::string>& spellings) {
  auto is_byte_level = data_.model == model_kind::byte_level_bpe;
  auto steps = data_.decoder;
  if (steps.empty() && is_byte_level)
    steps.emplace_back();
  auto decoder = token_decoder::make(steps);
  if (!decoder)
    return decoder.error();
  match_scratch scratch;
  auto fill = [&](bool at_front, std::vector<std::string>& out) {
    out.reserve(spellings.size());
    for (std::size_t i = 0; i < spellings.size(); ++i) {
      auto is_plain =
          spellings[i].empty() || // an id that nothing has
          (is_byte_level && (data_.kinds[i] == token_kind::special ||
                             data_.kinds[i] == token_kind::added));
      out.push_back(is_plain
                        ? spellings[i]
                        : decoder->decode(spellings[i], at_front, scratch));
    }
  };
  fill(false, bytes_);
  if (decoder->minds_front())
    fill(true, front_bytes_);
  strip_ = {decoder->stripped(), decoder->strip_count()};
  return std::nullopt;
}

// `spellings` become those that stand for the tokens in text.
std::optional<error>
tokenizer_of_data::read_added_tokens(std::vector<std::string>& spellings) {
  std::unordered_map<token_id, added_token_options> options;
  for (const auto& entry : data_.added_options) {
    if (!index_.has(entry.id) || !options.try_emplace(entry.id, entry).second)
      return invalid_tokenizer(
          fmt::format("options of token {} make no sense", entry.id));
  }
  for (std::size_t i = 0; i < data_.vocabulary.size(); ++i) {
    auto kind = data_.kinds[i];
    if ((kind != token_kind::special && kind != token_kind::added) ||
        data_.vocabulary[i].empty())
      continue;
    auto id = static_cast<token_id>(i);
    auto given = options.find(id);
    if (auto problem =
            add_token(given == options.end() ? added_token_options{.id = id}
                                             : given->second,
                      spellings[i]))
      return problem;
  }
  added_.prepare();
  added_normalized_.prepare();
  return std::nullopt;
}

// A special token has to be found in what was written, so that it is known
// where its characters come from: a normalised one, too, if it stays as it is.
std::optional<error>
tokenizer_of_data::add_token(const added_token_options& options,
                             std::string& spelling) {
  if (spelling.size() > added_token_finder::spelling_bytes_max)
    return invalid_tokenizer(
        fmt::format("token {} is longer than {} bytes", options.id,
                    added_token_finder::spelling_bytes_max));
  if (!is_utf8(spelling))
    return invalid_tokenizer(fmt::format("token {} is not UTF-8", options.id));
  if (!options.normalized) {
    added_.add(spelling, options);
    return std::nullopt;
  }
  match_scratch scratch;
  auto normalized = normalizer_.run(spelling, scratch).text;
  if (normalized.empty())
    return std::nullopt;
  if (!index_.is_special(options.id)) {
    added_normalized_.add(normalized, options);
    spelling = std::move(normalized);
    return std::nullopt;
  }
  if (normalized != spelling)
    return error{errc::unsupported,
                 fmt::format("tokenizer: special token {}, which is looked for "
                             "after a normalizer that changes it",
                             options.id)};
  (normalizer_.is_empty() ? added_normalized_ : added_).add(spelling, options);
  return std::nullopt;
}

// -- encoding -----------------------------------------------------------------

void tokenizer_of_data::encode(const text_pieces& pieces,
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

// Gives `on_text` what lies between the tokens that are found.
template <class OnText>
void find_added(const added_token_finder& finder, std::string_view text,
                const added_token_finder::filter& allowed, id_writer& ids,
                OnText on_text) {
  std::size_t from = 0;
  added_token_finder::found token;
  while (!finder.empty() && finder.find(text, from, allowed, token)) {
    if (token.begin > from)
      on_text(text.substr(from, token.begin - from));
    ids.append(token.id);
    from = token.end;
  }
  if (from < text.size())
    on_text(text.substr(from));
}

void tokenizer_of_data::encode_whole(std::string_view text,
                                     const content_map& content,
                                     std::vector<token_id>& out) const {
  constexpr std::size_t cache_from_bytes = 4096;
  id_writer ids{*model_, out};
  if (text.size() >= cache_from_bytes)
    ids.use_cache();
  auto allowed_from = [&](std::size_t offset) {
    return [this, &content, offset](token_id id, std::size_t begin,
                                    std::size_t end) {
      return !is_special(id) || !content.touches(offset + begin, offset + end);
    };
  };
  auto cut = [&](std::string_view whole, bool at_front) {
    return [&, whole, at_front](std::string_view part) {
      pre_tokenizer_.run(part, at_front && part.data() == whole.data(),
                         ids.scratch, ids);
    };
  };
  find_added(added_, text, allowed_from(0), ids, [&](std::string_view part) {
    auto offset = static_cast<std::size_t>(part.data() - text.data());
    if (normalizer_.is_empty())
      return find_added(added_normalized_, part, allowed_from(offset), ids,
                        cut(part, offset == 0));
    auto any = [](token_id, std::size_t, std::size_t) { return true; };
    auto normalized = normalizer_.run(part, ids.scratch);
    auto at_front = offset == 0 && !normalized.front_is_gone;
    find_added(added_normalized_, normalized.text, any, ids,
               cut(normalized.text, at_front));
  });
}

} // namespace

result<std::shared_ptr<const tokenizer>> tokenizer::make(tokenizer_data data) {
  auto out = std::make_shared<tokenizer_of_data>(std::move(data));
  if (auto problem = out->prepare())
    return *problem;
  return std::shared_ptr<const tokenizer>{std::move(out)};
}

} // namespace troupe::text
