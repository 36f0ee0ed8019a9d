#include "engine/text/byte_alphabet.hpp"
#include "engine/text/json_object.hpp"
#include "engine/text/tokenizer_json_steps.hpp"
#include "engine/text/vocabulary_index.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>

namespace troupe::text {

namespace {

namespace dom = simdjson::dom;

constexpr std::size_t file_bytes_max = 64u << 20;
constexpr std::size_t depth_max = 64;

constexpr auto powers_of_ten = [] {
  std::array<double, 23> out{1}; // the last one that a double can hold
  for (std::size_t i = 1; i < out.size(); ++i)
    out[i] = out[i - 1] * 10;
  return out;
}();

/// A score as the reader of `tokenizers` has it: its decimal digits rounded to
/// a double, then scaled by a power of ten, which rounds again. Which of two
/// paths has the larger sum of scores may hang on that last bit.
double rounded_twice(double score) {
  std::array<char, 32> text;
  auto* end = std::to_chars(text.data(), text.data() + text.size(),
                            std::fabs(score), std::chars_format::scientific)
                  .ptr;
  auto* exponent = std::find(text.data(), end, 'e') + 1;
  std::uint64_t digits = 0;
  int scale = 0; // of the last digit
  std::from_chars(exponent + (*exponent == '+' ? 1 : 0), end, scale);
  for (auto* c = text.data(); c + 1 < exponent; ++c)
    if (*c != '.') {
      digits = digits * 10 + static_cast<std::uint64_t>(*c - '0');
      scale -= c == text.data() ? 0 : 1;
    }
  auto power = static_cast<std::size_t>(std::abs(scale));
  if (power >= powers_of_ten.size())
    return score;
  auto whole = std::copysign(static_cast<double>(digits), score);
  return scale < 0 ? whole / powers_of_ten[power]
                   : whole * powers_of_ten[power];
}

/// Reads the parts of the file one after the other; the first problem ends it.
class json_reader {
public:
  result<tokenizer_data> run(std::string_view text) {
    if (text.size() > file_bytes_max)
      return error{errc::limit, "tokenizer.json: larger than 64 MiB"};
    dom::parser parser;
    if (parser.allocate(text.size(), depth_max) != simdjson::SUCCESS)
      return error{errc::limit, "tokenizer.json: out of memory"};
    dom::element root;
    dom::object object;
    if (auto code = parser.parse(text.data(), text.size()).get(root))
      return error{errc::corrupt, fmt::format("tokenizer.json: {}",
                                              simdjson::error_message(code))};
    if (root.get(object) || !read({object, "", problem_}))
      return problem_.what().value_or(
          error{errc::corrupt, "tokenizer.json: not an object"});
    return std::move(data_);
  }

private:
  // -- the file ---------------------------------------------------------------

  bool read(const json_object& root) {
    return root.only({"version", "truncation", "padding", "model",
                      "added_tokens", "normalizer", "pre_tokenizer",
                      "post_processor", "decoder"}) &&
           text::read_pre_tokenizer(root, data_, is_byte_level_) &&
           read_model(root) && read_added_tokens(root) &&
           text::read_normalizer(root, data_) &&
           text::read_post_processor(root, data_) &&
           text::read_decoder(root, data_) && finish(root);
  }

  // -- models -----------------------------------------------------------------

  bool read_model(const json_object& root) {
    auto model = root.child("model");
    std::string_view type = "BPE";
    if (!model || !model->get_or("type", type))
      return false;
    if (is_byte_level_ && type != "BPE")
      return root.refuse("pre_tokenizer",
                         fmt::format("ByteLevel with {}", type));
    if (type == "BPE")
      return read_bpe(*model);
    if (type == "Unigram")
      return read_unigram(*model);
    if (type == "WordPiece")
      return read_wordpiece(*model);
    return model->refuse("type", type);
  }

  bool read_bpe(const json_object& model) {
    data_.model = is_byte_level_ ? model_kind::byte_level_bpe : model_kind::bpe;
    for (std::string_view key :
         {"continuing_subword_prefix", "end_of_word_suffix"}) {
      std::string_view value;
      if (!model.get_or(key, value))
        return false;
      if (!value.empty())
        return model.refuse(key, value);
    }
    double dropout = 0;
    if (!model.get_or("dropout", dropout))
      return false;
    if (dropout != 0)
      return model.refuse("dropout", "sampling");
    return model.only({"type", "dropout", "unk_token",
                       "continuing_subword_prefix", "end_of_word_suffix",
                       "fuse_unk", "byte_fallback", "ignore_merges", "vocab",
                       "merges"}) &&
           model.get_or("fuse_unk", data_.fuse_unknown) &&
           model.get_or("byte_fallback", data_.byte_fallback) &&
           model.get_or("ignore_merges", data_.ignore_merges) &&
           read_vocabulary(model) && read_merges(model);
  }

  bool read_wordpiece(const json_object& model) {
    data_.model = model_kind::wordpiece;
    std::string_view prefix = "##";
    std::int64_t characters = 100;
    if (!model.only({"type", "unk_token", "continuing_subword_prefix",
                     "max_input_chars_per_word", "vocab"}) ||
        !model.get_or("continuing_subword_prefix", prefix) ||
        !model.get_or("max_input_chars_per_word", characters))
      return false;
    if (characters < 0 || characters > 1000)
      return model.refuse("max_input_chars_per_word", "more than 1000");
    data_.continuing_prefix = prefix;
    data_.word_characters_max = static_cast<std::uint32_t>(characters);
    return read_vocabulary(model);
  }

  bool read_unigram(const json_object& model) {
    data_.model = model_kind::unigram;
    dom::array entries;
    if (!model.only({"type", "unk_id", "vocab", "byte_fallback"}) ||
        !model.get_or("byte_fallback", data_.byte_fallback) ||
        !model.get("vocab", entries))
      return false;
    if (!model.has("unk_id"))
      return model.refuse("unk_id", "null");
    token_id id = 0;
    for (auto value : entries) {
      auto here = json_path("model.vocab", static_cast<std::size_t>(id));
      if (id == json_ids_max)
        return model.refuse("vocab", "more than 1000000 entries");
      dom::array pair;
      std::string_view spelling;
      double score = 0;
      if (value.get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
          pair.at(0).get(spelling) != simdjson::SUCCESS ||
          pair.at(1).get(score) != simdjson::SUCCESS)
        return problem_.fail(errc::corrupt, here, "not [text, number]");
      if (!set_entry(id++, spelling, token_kind::normal, here))
        return false;
      data_.scores.push_back(rounded_twice(score));
    }
    dom::element unknown;
    return model.get("unk_id", unknown) &&
           read_json_id(unknown, "model.unk_id", problem_, data_.unknown);
  }

  bool set_entry(token_id id, std::string_view spelling, token_kind kind,
                 std::string_view path) {
    auto index = static_cast<std::size_t>(id);
    if (index >= data_.vocabulary.size()) {
      data_.vocabulary.resize(index + 1);
      data_.kinds.resize(index + 1, token_kind::unused);
    }
    auto& entry = data_.vocabulary[index];
    if (!entry.empty() && entry != spelling)
      return problem_.fail(errc::corrupt, path,
                           fmt::format("id {} is taken", id));
    entry = spelling;
    data_.kinds[index] = kind;
    return true;
  }

  bool read_vocabulary(const json_object& model) {
    dom::object vocabulary;
    if (!model.get("vocab", vocabulary))
      return false;
    for (auto [spelling, value] : vocabulary) {
      token_id id = 0;
      if (!read_json_id(value, json_path("model.vocab", spelling), problem_,
                        id))
        return false;
      auto index = static_cast<std::size_t>(id);
      if (index < data_.vocabulary.size() && !data_.vocabulary[index].empty())
        return problem_.fail(errc::corrupt, json_path("model.vocab", spelling),
                             fmt::format("id {} is taken", id));
      if (!set_entry(id, spelling, token_kind::normal, "model.vocab"))
        return false;
    }
    return true;
  }

  bool read_merges(const json_object& model) {
    dom::array merges;
    if (!model.get("merges", merges))
      return false;
    for (auto value : merges) {
      std::string_view text;
      if (value.get(text) != simdjson::SUCCESS &&
          !read_pair(value, data_.merges.size()))
        return false;
      else if (value.is_string())
        data_.merges.emplace_back(text);
    }
    return true;
  }

  bool read_pair(const dom::element& value, std::size_t index) {
    dom::array pair;
    std::string_view left;
    std::string_view right;
    if (value.get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
        pair.at(0).get(left) != simdjson::SUCCESS ||
        pair.at(1).get(right) != simdjson::SUCCESS)
      return problem_.fail(errc::corrupt, json_path("model.merges", index),
                           "neither \"left right\" nor [left, right]");
    if (left.find(' ') != left.npos || right.find(' ') != right.npos)
      return problem_.refuse(json_path("model.merges", index),
                             "an entry with a space");
    data_.merges.push_back(fmt::format("{} {}", left, right));
    return true;
  }

  // -- added tokens -----------------------------------------------------------

  bool read_added_tokens(const json_object& root) {
    return !root.has("added_tokens") ||
           root.for_each("added_tokens", [&](const json_object& token) {
             return read_added_token(token);
           });
  }

  bool read_added_token(const json_object& token) {
    dom::element id;
    std::string_view content;
    bool special = false;
    if (!token.only({"id", "content", "single_word", "lstrip", "rstrip",
                     "normalized", "special"}) ||
        !token.get("content", content) || !token.get("id", id) ||
        !token.get_or("special", special))
      return false;
    added_token_options options;
    options.normalized = !special;
    if (!read_json_id(id, token.path_of("id"), problem_, options.id) ||
        !token.get_or("single_word", options.single_word) ||
        !token.get_or("lstrip", options.lstrip) ||
        !token.get_or("rstrip", options.rstrip) ||
        !token.get_or("normalized", options.normalized))
      return false;
    if (content.empty())
      return token.refuse("content", "an empty token");
    options.is_piece = data_.model == model_kind::wordpiece && !special &&
                       is_entry(options.id);
    if (options != added_token_options{.id = options.id})
      data_.added_options.push_back(options);
    return set_entry(options.id, content,
                     special ? token_kind::special : token_kind::added,
                     token.path());
  }

  bool is_entry(token_id id) const {
    auto index = static_cast<std::size_t>(id);
    return index < data_.vocabulary.size() && !data_.vocabulary[index].empty();
  }

  // -- what needs the whole ---------------------------------------------------

  bool finish(const json_object& root) {
    if (data_.model == model_kind::byte_level_bpe) {
      if (data_.decoder == std::vector<decoder_step>(1))
        data_.decoder.clear(); // what these tokenizers have anyway
      if (data_.byte_fallback && !spells_all_bytes())
        return problem_.refuse("model.byte_fallback",
                               "true with ByteLevel and bytes missing");
      data_.byte_fallback = data_.fuse_unknown = false;
    }
    return data_.model == model_kind::unigram || set_unknown(root);
  }

  bool spells_all_bytes() const {
    std::size_t single = 0;
    for (const auto& spelling : data_.vocabulary) {
      auto bytes = bytes_of_spelling(spelling);
      single += bytes && bytes->size() == 1 ? 1 : 0;
    }
    return single == 256;
  }

  bool set_unknown(const json_object& root) {
    auto model = root.child("model");
    std::string_view spelling;
    if (data_.model == model_kind::wordpiece)
      spelling = "[UNK]";
    if (!model || !model->get_or("unk_token", spelling))
      return false;
    if (spelling.empty())
      return true;
    auto found =
        std::find(data_.vocabulary.begin(), data_.vocabulary.end(), spelling);
    if (found == data_.vocabulary.end())
      return model->fail(errc::corrupt, "unk_token", "not in the vocabulary");
    data_.unknown = static_cast<token_id>(found - data_.vocabulary.begin());
    return true;
  }

  tokenizer_data data_;
  bool is_byte_level_ = false;
  json_problem problem_;
};

} // namespace

result<tokenizer_data> read_tokenizer_json(std::string_view text) {
  return json_reader{}.run(text);
}

} // namespace troupe::text
