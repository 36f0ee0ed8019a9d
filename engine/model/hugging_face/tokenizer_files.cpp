#include "engine/model/hugging_face/tokenizer_files.hpp"

#include "engine/model/hugging_face/json_fields.hpp"
#include "engine/weights/text_file.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <string>
#include <system_error>

namespace troupe::model::hugging_face {

namespace {

namespace fs = std::filesystem;
namespace dom = simdjson::dom;

using text::token_id;

constexpr std::size_t tokenizer_bytes_max = 64u << 20;
constexpr std::size_t template_bytes_max = 768u << 10;

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

/// tokenizer_config.json, as far as it is needed; nothing if it is not there.
class settings {
public:
  result<void> read(const fs::path& path) {
    auto text = weights::read_text_file_if_there(
        path, weights::json_document::bytes_max);
    if (!text)
      return text.error();
    if (text->empty())
      return {};
    auto parsed =
        weights::json_document::parse(*text, path.filename().string());
    if (!parsed)
      return parsed.error();
    document_ = std::move(*parsed);
    is_there_ = true;
    return {};
  }

  /// A token's spelling: a string, or an object with "content"; else empty.
  std::string_view token(std::string_view key) const {
    std::string_view text;
    dom::element value;
    if (!is_there_ || document_.root().at_key(key).get(value))
      return {};
    if (value.get(text) && value["content"].get(text))
      return {};
    return text;
  }

  bool flag(std::string_view key, bool otherwise) const {
    bool value = false;
    const bool is_said = is_there_ && !document_.root().at_key(key).get(value);
    return is_said ? value : otherwise;
  }

  /// The template: a string, or the one named "default" of a list.
  std::string_view chat_template() const {
    std::string_view text;
    dom::element value;
    dom::array list;
    if (!is_there_ || document_.root().at_key("chat_template").get(value))
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
  weights::json_document document_;
  bool is_there_ = false;
};

/// Sets the special ids of `to`: what the configuration names, else what
/// tokenizer.json says, else what the card's own tokenizer names.
result<void> set_special_ids(const settings& config,
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

result<text::tokenizer_data> read_tokenizer(const fs::path& path,
                                            std::uint32_t vocabulary_size) {
  auto json = weights::read_text_file(path, tokenizer_bytes_max);
  std::error_code ignored;
  if (!json && json.error().code == errc::not_found &&
      fs::exists(path.parent_path() / "tokenizer.model", ignored))
    return error{errc::unsupported,
                 "tokenizer.model: not read; save the tokenizer with "
                 "transformers, which writes tokenizer.json"};
  if (!json)
    return json.error();
  auto tokenizer = text::read_tokenizer_json(*json);
  if (tokenizer && tokenizer->vocabulary.size() > vocabulary_size)
    return error{errc::invalid_argument,
                 fmt::format("tokenizer.json: has {} entries, the model has {}",
                             tokenizer->vocabulary.size(), vocabulary_size)};
  return tokenizer;
}

/// Every template of the directory in ascending rank: the last one counts.
result<void> read_templates(const fs::path& directory, const settings& config,
                            std::string& out) {
  settings processor;
  if (auto done = processor.read(directory / "chat_template.json"); !done)
    return done;
  auto jinja = weights::read_text_file_if_there(
      directory / "chat_template.jinja", template_bytes_max);
  if (!jinja)
    return jinja.error();
  for (auto found : {config.chat_template(), processor.chat_template(),
                     std::string_view{*jinja}})
    if (!found.empty())
      out = found;
  return {};
}

} // namespace

result<void> read_tokenizer_files(const fs::path& path,
                                  text::model_card& card) {
  std::error_code ignored;
  const bool is_directory = fs::is_directory(path, ignored);
  auto tokenizer = read_tokenizer(is_directory ? path / "tokenizer.json" : path,
                                  card.vocabulary_size);
  if (!tokenizer)
    return tokenizer.error();
  settings config;
  if (is_directory) {
    if (auto done = config.read(path / "tokenizer_config.json"); !done)
      return done;
    if (auto done = read_templates(path, config, card.chat_template); !done)
      return done;
  }
  if (auto done = set_special_ids(config, card.tokenizer, *tokenizer); !done)
    return done;
  card.tokenizer = std::move(*tokenizer);
  const token_id eos = card.tokenizer.eos;
  auto& ends = card.eos_ids;
  if (eos >= 0 && std::find(ends.begin(), ends.end(), eos) == ends.end())
    ends.push_back(eos);
  return {};
}

} // namespace troupe::model::hugging_face
