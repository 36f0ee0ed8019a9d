#include "engine/tokenizer_override.hpp"

#include "engine/sampling/sampling_params.hpp"

#include <simdjson.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <system_error>

namespace troupe::engine {

namespace {

namespace fs = std::filesystem;
namespace dom = simdjson::dom;

constexpr std::uintmax_t file_bytes_max = 64u << 20;

result<std::string> read_file(const fs::path& path) {
  const std::string name = "tokenizer file '" + path.string() + "'";
  std::error_code why;
  const std::uintmax_t size = fs::file_size(path, why);
  if (why)
    return error{errc::not_found, name + ": " + why.message()};
  if (size > file_bytes_max)
    return error{errc::limit, name + ": larger than 64 MiB"};
  std::string text(size, '\0');
  std::ifstream file{path, std::ios::binary};
  if (!file.read(text.data(), static_cast<std::streamsize>(size)))
    return error{errc::io, name + ": cannot be read"};
  return text;
}

token_id id_of(const text::tokenizer_data& tokenizer,
               std::string_view spelling) {
  const auto& entries = tokenizer.vocabulary;
  const auto found = std::find(entries.begin(), entries.end(), spelling);
  return found == entries.end()
             ? -1
             : static_cast<token_id>(found - entries.begin());
}

std::string_view spelling_of(const text::tokenizer_data& tokenizer,
                             token_id id) {
  return id < 0 ? std::string_view{}
                : std::string_view{tokenizer.vocabulary[id]};
}

/// tokenizer_config.json, as far as it is needed.
class config_file {
public:
  /// An empty text stands for a file that is not there.
  result<void> parse(const std::string& text) {
    if (text.empty())
      return {};
    dom::element root;
    if (auto code = parser_.parse(text).get(root))
      return error{errc::corrupt, std::string{"tokenizer_config.json: "} +
                                      simdjson::error_message(code)};
    if (root.get(object_))
      return error{errc::corrupt, "tokenizer_config.json: not an object"};
    is_there_ = true;
    return {};
  }

  /// A token's spelling: a string, or an object with "content"; else empty.
  std::string_view token(std::string_view key) const {
    std::string_view text;
    dom::element value;
    if (!is_there_ || object_.at_key(key).get(value))
      return {};
    if (value.get(text) && value["content"].get(text))
      return {};
    return text;
  }

  bool flag(std::string_view key, bool otherwise) const {
    bool value = false;
    const bool is_said = is_there_ && !object_.at_key(key).get(value);
    return is_said ? value : otherwise;
  }

  /// The template: a string, or the one named "default" of a list.
  std::string_view chat_template() const {
    std::string_view text;
    dom::element value;
    dom::array list;
    if (!is_there_ || object_.at_key("chat_template").get(value))
      return {};
    if (value.get(list))
      return token("chat_template");
    for (dom::element entry : list) {
      std::string_view name;
      if (!entry["name"].get(name) && name == "default" &&
          !entry["template"].get(text))
        return text;
    }
    return {};
  }

private:
  dom::parser parser_;
  dom::object object_;
  bool is_there_ = false;
};

result<std::string> read_if_there(const fs::path& path) {
  std::error_code ignored;
  if (!fs::exists(path, ignored))
    return std::string{};
  return read_file(path);
}

/// Sets the special ids of `to`: what the configuration names, else what
/// tokenizer.json says, else what the model's own tokenizer names.
result<void> set_special_ids(const config_file& config,
                             const text::tokenizer_data& own,
                             text::tokenizer_data& to) {
  struct special {
    const char* key;
    token_id own;
    token_id& to;
  };
  for (const special& s : {special{"bos_token", own.bos, to.bos},
                           special{"eos_token", own.eos, to.eos},
                           special{"unk_token", own.unknown, to.unknown}}) {
    const std::string_view named = config.token(s.key);
    if (!named.empty())
      s.to = id_of(to, named);
    else if (s.to < 0)
      s.to = id_of(to, spelling_of(own, s.own));
    if (s.to < 0 && !named.empty())
      return error{errc::corrupt, std::string{"tokenizer_config.json: "} +
                                      s.key + " is not in the vocabulary"};
  }
  to.add_bos = config.flag("add_bos_token", to.add_bos) && to.bos >= 0;
  return {};
}

} // namespace

result<void> override_tokenizer(const fs::path& path, text::model_card& card) {
  std::error_code ignored;
  const bool is_directory = fs::is_directory(path, ignored);
  auto json = read_file(is_directory ? path / "tokenizer.json" : path);
  if (!json)
    return json.error();
  auto tokenizer = text::read_tokenizer_json(*json);
  if (!tokenizer)
    return tokenizer.error();
  if (tokenizer->vocabulary.size() > card.vocabulary_size)
    return error{
        errc::invalid_argument,
        "tokenizer.json: has " + std::to_string(tokenizer->vocabulary.size()) +
            " entries, the model has " + std::to_string(card.vocabulary_size)};
  std::string config_text, jinja;
  if (is_directory) {
    auto one = read_if_there(path / "tokenizer_config.json");
    auto other = read_if_there(path / "chat_template.jinja");
    if (!one || !other)
      return !one ? one.error() : other.error();
    config_text = std::move(*one);
    jinja = std::move(*other);
  }
  config_file config;
  if (auto done = config.parse(config_text); !done)
    return done;
  if (auto done = set_special_ids(config, card.tokenizer, *tokenizer); !done)
    return done;
  card.tokenizer = std::move(*tokenizer);
  if (!config.chat_template().empty())
    card.chat_template = config.chat_template();
  if (!jinja.empty())
    card.chat_template = std::move(jinja);
  const token_id eos = card.tokenizer.eos;
  auto& ends = card.eos_ids;
  if (eos >= 0 && std::find(ends.begin(), ends.end(), eos) == ends.end())
    ends.push_back(eos);
  return {};
}

} // namespace troupe::engine
