#include "engine/text/byte_alphabet.hpp"
#include "engine/text/pretokenizers.hpp"
#include "engine/text/tokenizer.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <optional>

namespace troupe::text {

namespace {

namespace dom = simdjson::dom;

constexpr std::size_t file_bytes_max = 64u << 20;
constexpr std::size_t depth_max = 64;
constexpr std::int64_t ids_max = 1'000'000;
constexpr std::size_t steps_max = 16; ///< of a pre-tokenizer sequence

/// GPT-2's words, which ByteLevel cuts by itself.
std::string byte_level_pattern() {
  return pretokenizer_of("gpt-2")->split_patterns.front();
}

/// Where a value stands, for messages: "pre_tokenizer.pretokenizers[1]".
std::string at(std::string_view path, std::string_view key) {
  return path.empty() ? std::string{key} : fmt::format("{}.{}", path, key);
}

std::string at(std::string_view path, std::size_t index) {
  return fmt::format("{}[{}]", path, index);
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
    if (root.get(object) || !read(object))
      return problem_.value_or(
          error{errc::corrupt, "tokenizer.json: not an object"});
    return std::move(data_);
  }

private:
  // -- small pieces -----------------------------------------------------------

  bool fail(errc code, std::string_view path, std::string_view what) {
    if (!problem_)
      problem_ = error{code, fmt::format("tokenizer.json: {}: {}", path, what)};
    return false;
  }

  bool refuse(std::string_view path, std::string_view what) {
    return fail(errc::unsupported, path,
                fmt::format("{} is not supported", what));
  }

  static bool has(const dom::object& object, std::string_view key) {
    dom::element value;
    return object.at_key(key).get(value) == simdjson::SUCCESS &&
           !value.is_null();
  }

  template <class T>
  bool get(const dom::object& object, std::string_view path,
           std::string_view key, T& out) {
    if (object.at_key(key).get(out) != simdjson::SUCCESS)
      return fail(errc::corrupt, at(path, key), "missing or of a wrong type");
    return true;
  }

  template <class T>
  bool get_or(const dom::object& object, std::string_view path,
              std::string_view key, T& out) {
    return !has(object, key) || get(object, path, key, out);
  }

  bool get_id(const dom::element& value, std::string_view path, token_id& out) {
    std::int64_t id = 0;
    if (value.get(id) != simdjson::SUCCESS || id < 0 || id >= ids_max)
      return fail(errc::corrupt, path, "not an id below 1000000");
    out = static_cast<token_id>(id);
    return true;
  }

  /// Every key that is neither known nor null is refused.
  bool only(const dom::object& object, std::string_view path,
            std::initializer_list<std::string_view> known) {
    for (auto [key, value] : object)
      if (!value.is_null() &&
          std::find(known.begin(), known.end(), key) == known.end())
        return refuse(at(path, key), "this field");
    return true;
  }

  /// Refuses a flag that is set; unset, null and absent are the same.
  bool is_off(const dom::object& object, std::string_view path,
              std::string_view key) {
    bool on = false;
    if (!get_or(object, path, key, on))
      return false;
    return !on || refuse(at(path, key), "true");
  }

  // -- the file ---------------------------------------------------------------

  bool read(const dom::object& root) {
    return only(root, "",
                {"version", "model", "added_tokens", "normalizer",
                 "pre_tokenizer", "post_processor", "decoder"}) &&
           read_model(root) && read_added_tokens(root) &&
           read_normalizer(root) && read_pre_tokenizer(root) &&
           read_post_processor(root) && read_decoder(root) && set_unknown(root);
  }

  bool read_model(const dom::object& root) {
    dom::object model;
    std::string_view type = "BPE";
    if (!get(root, "", "model", model) || !get_or(model, "model", "type", type))
      return false;
    if (type != "BPE")
      return refuse("model.type", type);
    for (std::string_view key :
         {"continuing_subword_prefix", "end_of_word_suffix"}) {
      std::string_view value;
      if (!get_or(model, "model", key, value))
        return false;
      if (!value.empty())
        return refuse(at("model", key), fmt::format("\"{}\"", value));
    }
    double dropout = 0;
    if (!get_or(model, "model", "dropout", dropout))
      return false;
    if (dropout != 0)
      return refuse("model.dropout", "a value above 0");
    return only(model, "model",
                {"type", "dropout", "unk_token", "continuing_subword_prefix",
                 "end_of_word_suffix", "fuse_unk", "byte_fallback",
                 "ignore_merges", "vocab", "merges"}) &&
           is_off(model, "model", "fuse_unk") &&
           is_off(model, "model", "byte_fallback") &&
           get_or(model, "model", "ignore_merges", data_.ignore_merges) &&
           read_vocabulary(model) && read_merges(model);
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
      return fail(errc::corrupt, path, fmt::format("id {} is taken", id));
    entry = spelling;
    data_.kinds[index] = kind;
    return true;
  }

  bool read_vocabulary(const dom::object& model) {
    dom::object vocabulary;
    if (!get(model, "model", "vocab", vocabulary))
      return false;
    for (auto [spelling, value] : vocabulary) {
      token_id id = 0;
      if (!get_id(value, at("model.vocab", spelling), id))
        return false;
      auto index = static_cast<std::size_t>(id);
      if (index < data_.vocabulary.size() && !data_.vocabulary[index].empty())
        return fail(errc::corrupt, at("model.vocab", spelling),
                    fmt::format("id {} is taken", id));
      if (!set_entry(id, spelling, token_kind::normal, "model.vocab"))
        return false;
    }
    return true;
  }

  bool read_merges(const dom::object& model) {
    dom::array merges;
    if (!get(model, "model", "merges", merges))
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
      return fail(errc::corrupt, at("model.merges", index),
                  "neither \"left right\" nor [left, right]");
    if (left.find(' ') != left.npos || right.find(' ') != right.npos)
      return refuse(at("model.merges", index), "an entry with a space");
    data_.merges.push_back(fmt::format("{} {}", left, right));
    return true;
  }

  bool read_added_tokens(const dom::object& root) {
    dom::array tokens;
    if (!get_or(root, "", "added_tokens", tokens) || !has(root, "added_tokens"))
      return !problem_;
    std::size_t index = 0;
    for (auto value : tokens)
      if (!read_added_token(value, at("added_tokens", index++)))
        return false;
    return true;
  }

  bool read_added_token(const dom::element& value, const std::string& path) {
    dom::object token;
    dom::element id;
    std::string_view content;
    bool special = false;
    if (value.get(token) != simdjson::SUCCESS)
      return fail(errc::corrupt, path, "not an object");
    if (!only(token, path,
              {"id", "content", "single_word", "lstrip", "rstrip", "normalized",
               "special"}) ||
        !get(token, path, "content", content) || !get(token, path, "id", id) ||
        !get_or(token, path, "special", special))
      return false;
    added_token_options options;
    options.normalized = !special;
    if (!get_id(id, at(path, "id"), options.id) ||
        !get_or(token, path, "single_word", options.single_word) ||
        !get_or(token, path, "lstrip", options.lstrip) ||
        !get_or(token, path, "rstrip", options.rstrip) ||
        !get_or(token, path, "normalized", options.normalized))
      return false;
    if (content.empty())
      return refuse(at(path, "content"), "an empty token");
    if (options != added_token_options{.id = options.id})
      data_.added_options.push_back(options);
    return set_entry(options.id, content,
                     special ? token_kind::special : token_kind::added, path);
  }

  bool set_unknown(const dom::object& root) {
    dom::object model;
    std::string_view spelling;
    if (!get(root, "", "model", model) ||
        !get_or(model, "model", "unk_token", spelling))
      return false;
    if (spelling.empty())
      return true;
    auto found =
        std::find(data_.vocabulary.begin(), data_.vocabulary.end(), spelling);
    if (found == data_.vocabulary.end())
      return fail(errc::corrupt, "model.unk_token", "not in the vocabulary");
    data_.unknown = static_cast<token_id>(found - data_.vocabulary.begin());
    return true;
  }

  // -- normaliser and pre-tokenizer -------------------------------------------

  bool read_normalizer(const dom::object& root) {
    return !has(root, "normalizer") || read_normalizer(root, "normalizer");
  }

  bool read_normalizer(const dom::object& parent, std::string_view key) {
    dom::object step;
    std::string_view type;
    if (!get(parent, "", key, step) || !get(step, key, "type", type))
      return false;
    if (type != "NFC")
      return refuse(at(key, "type"), type);
    data_.normalize_nfc = true;
    return only(step, key, {"type"});
  }

  bool read_pre_tokenizer(const dom::object& root) {
    dom::object step;
    std::string_view type;
    if (!has(root, "pre_tokenizer"))
      return refuse("pre_tokenizer", "null");
    if (!get(root, "", "pre_tokenizer", step) ||
        !get(step, "pre_tokenizer", "type", type))
      return false;
    auto ok = type == "Sequence" ? read_sequence(step)
                                 : read_step(step, "pre_tokenizer");
    if (!ok)
      return false;
    if (!byte_level_)
      return refuse("pre_tokenizer", "one without ByteLevel");
    auto is_default = [](const split_options& mode) {
      return mode == split_options{};
    };
    if (std::all_of(data_.split_modes.begin(), data_.split_modes.end(),
                    is_default))
      data_.split_modes.clear();
    return true;
  }

  bool read_sequence(const dom::object& sequence) {
    constexpr std::string_view path = "pre_tokenizer.pretokenizers";
    dom::array steps;
    if (!only(sequence, "pre_tokenizer", {"type", "pretokenizers"}) ||
        !get(sequence, "pre_tokenizer", "pretokenizers", steps))
      return false;
    if (steps.size() > steps_max)
      return refuse(path, "a sequence of more than 16 steps");
    std::size_t index = 0;
    for (auto value : steps) {
      auto here = at(path, index++);
      dom::object step;
      if (value.get(step) != simdjson::SUCCESS)
        return fail(errc::corrupt, here, "not an object");
      if (!read_step(step, here))
        return false;
    }
    return true;
  }

  bool read_step(const dom::object& step, std::string_view path) {
    std::string_view type;
    if (!get(step, path, "type", type))
      return false;
    if (byte_level_)
      return refuse(path, "a step after ByteLevel");
    if (type == "Split")
      return read_split(step, path);
    if (type == "Digits")
      return read_digits(step, path);
    if (type == "ByteLevel")
      return read_byte_level(step, path);
    return refuse(at(path, "type"), type);
  }

  void add_split(std::string pattern, split_options mode = {}) {
    data_.split_patterns.push_back(std::move(pattern));
    data_.split_modes.push_back(mode);
  }

  bool read_split(const dom::object& step, std::string_view path) {
    dom::object pattern;
    std::string_view behavior;
    std::string_view text;
    split_options mode;
    if (!only(step, path, {"type", "pattern", "behavior", "invert"}) ||
        !get(step, path, "pattern", pattern) ||
        !get(step, path, "behavior", behavior) ||
        !get_or(step, path, "invert", mode.invert))
      return false;
    if (!read_behavior(behavior, mode.behavior))
      return refuse(at(path, "behavior"), behavior);
    auto here = at(path, "pattern");
    if (has(pattern, "Regex")) {
      if (!get(pattern, here, "Regex", text))
        return false;
      add_split(std::string{text}, mode);
      return only(pattern, here, {"Regex"});
    }
    if (!get(pattern, here, "String", text))
      return false;
    if (text.empty())
      return refuse(here, "an empty text");
    add_split(literal(text), mode);
    return only(pattern, here, {"String"});
  }

  static bool read_behavior(std::string_view name, split_behavior& out) {
    constexpr std::pair<std::string_view, split_behavior> known[] = {
        {"Isolated", split_behavior::isolated},
        {"Removed", split_behavior::removed},
        {"MergedWithPrevious", split_behavior::merged_with_previous},
        {"MergedWithNext", split_behavior::merged_with_next},
        {"Contiguous", split_behavior::contiguous},
    };
    for (auto [spelling, behavior] : known)
      if (name == spelling) {
        out = behavior;
        return true;
      }
    return false;
  }

  /// The pattern that matches just `text`.
  static std::string literal(std::string_view text) {
    std::string out;
    for (auto c : text) {
      if (std::string_view{"\\^$.|?*+()[]{}"}.find(c) != std::string_view::npos)
        out += '\\';
      out += c;
    }
    return out;
  }

  bool read_digits(const dom::object& step, std::string_view path) {
    bool individual = false;
    if (!only(step, path, {"type", "individual_digits"}) ||
        !get_or(step, path, "individual_digits", individual))
      return false;
    add_split(individual ? digit_pattern : fmt::format("{}+", digit_pattern));
    return true;
  }

  bool read_byte_level(const dom::object& step, std::string_view path) {
    bool prefix = true;
    bool words = true;
    if (!only(step, path,
              {"type", "add_prefix_space", "trim_offsets", "use_regex"}) ||
        !get_or(step, path, "add_prefix_space", prefix) ||
        !get_or(step, path, "use_regex", words))
      return false;
    if (prefix && !data_.split_patterns.empty())
      return refuse(at(path, "add_prefix_space"), "true after another step");
    data_.add_prefix_space = prefix;
    if (words)
      add_split(byte_level_pattern());
    byte_level_ = true;
    return true;
  }

  // -- what comes around the ids ----------------------------------------------

  bool read_post_processor(const dom::object& root) {
    dom::object step;
    if (!has(root, "post_processor"))
      return true;
    return get(root, "", "post_processor", step) &&
           read_processor(step, "post_processor", true);
  }

  bool read_processor(const dom::object& step, const std::string& path,
                      bool may_nest) {
    std::string_view type;
    if (!get(step, path, "type", type))
      return false;
    if (type == "ByteLevel") // changes offsets only
      return true;
    if (type == "TemplateProcessing")
      return read_template(step, path);
    if (type != "Sequence" || !may_nest)
      return refuse(at(path, "type"), type);
    dom::array steps;
    if (!get(step, path, "processors", steps))
      return false;
    std::size_t index = 0;
    for (auto value : steps) {
      auto here = at(at(path, "processors"), index++);
      dom::object inner;
      if (value.get(inner) != simdjson::SUCCESS)
        return fail(errc::corrupt, here, "not an object");
      if (!read_processor(inner, here, false))
        return false;
    }
    return true;
  }

  /// Either the text alone, or bos before it. Templates for pairs of texts are
  /// not looked at: there are no pairs here.
  bool read_template(const dom::object& step, const std::string& path) {
    dom::array single;
    if (!get(step, path, "single", single))
      return false;
    auto here = at(path, "single");
    auto count = single.size();
    dom::object last;
    dom::object text;
    if (count == 0 || count > 2 || single.at(count - 1).get(last) ||
        last.at_key("Sequence").get(text))
      return refuse(here, "what is not [bos, text] or [text]");
    if (count == 1)
      return true;
    dom::object first;
    dom::object special;
    std::string_view name;
    if (single.at(0).get(first) || first.at_key("SpecialToken").get(special))
      return refuse(here, "what is not [bos, text] or [text]");
    return get(special, here, "id", name) && read_bos(step, path, name);
  }

  /// The ids of a token of the template: {"special_tokens": {name: {ids}}}.
  bool read_bos(const dom::object& step, const std::string& path,
                std::string_view name) {
    dom::object tokens;
    dom::object token;
    dom::array ids;
    auto here = at(path, "special_tokens");
    if (!get(step, path, "special_tokens", tokens) ||
        !get(tokens, here, name, token) ||
        !get(token, at(here, name), "ids", ids))
      return false;
    if (ids.size() != 1)
      return refuse(at(here, name), "a token of several ids");
    if (data_.add_bos)
      return refuse(path, "a second bos");
    data_.add_bos = true;
    return get_id(ids.at(0).value_unsafe(), at(here, name), data_.bos);
  }

  bool read_decoder(const dom::object& root) {
    dom::object step;
    std::string_view type;
    if (!has(root, "decoder"))
      return refuse("decoder", "null");
    if (!get(root, "", "decoder", step) || !get(step, "decoder", "type", type))
      return false;
    return type == "ByteLevel" || refuse("decoder.type", type);
  }

  tokenizer_data data_;
  bool byte_level_ = false;
  std::optional<error> problem_;
};

} // namespace

result<tokenizer_data> read_tokenizer_json(std::string_view text) {
  return json_reader{}.run(text);
}

} // namespace troupe::text
