#include "engine/model/hugging_face/directory_card.hpp"

#include "engine/model/hugging_face/json_fields.hpp"
#include "engine/model/hugging_face/tokenizer_files.hpp"
#include "engine/weights/text_file.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <optional>
#include <utility>

namespace troupe::model::hugging_face {

namespace {

namespace dom = simdjson::dom;

/// What a field of the defaults may be.
struct bounds {
  double low;
  double high;
};

class generation_reader {
public:
  generation_reader(const json_fields& fields, text::model_card& card)
      : fields_(fields), card_(card) {
    // nop
  }

  result<void> ends() {
    if (!fields_.has("eos_token_id"))
      return {};
    auto value = fields_.at("eos_token_id");
    dom::array list;
    if (value.get(list))
      return end(value);
    for (auto one : list)
      if (auto done = end(one); !done)
        return done;
    return {};
  }

  result<void> defaults() {
    auto& out = card_.defaults;
    if (auto done = number("temperature", {0, 2}, out.temperature); !done)
      return done;
    if (auto done = number("top_p", {1e-6, 1}, out.top_p); !done)
      return done;
    if (auto done = number("min_p", {0, 1}, out.min_p); !done)
      return done;
    if (auto done =
            number("repetition_penalty", {0.01, 100}, out.repetition_penalty);
        !done)
      return done;
    return top_k();
  }

private:
  result<void> end(dom::element value) {
    std::int64_t id = -1;
    if (value.get(id) || id < 0 || id >= std::int64_t{card_.vocabulary_size})
      return fields_.wrong("eos_token_id",
                           "is not an id of the vocabulary, nor a list of "
                           "such");
    auto& ids = card_.eos_ids;
    auto known = static_cast<text::token_id>(id);
    if (std::find(ids.begin(), ids.end(), known) == ids.end())
      ids.push_back(known);
    return {};
  }

  result<void> number(std::string_view key, bounds range,
                      std::optional<float>& out) {
    if (!fields_.has(key))
      return {};
    auto value = fields_.real(key);
    if (!value)
      return value.error();
    if (*value < range.low || *value > range.high)
      return fields_.wrong(key, fmt::format("is {}, not from {} to {}", *value,
                                            range.low, range.high));
    out = static_cast<float>(*value);
    return {};
  }

  result<void> top_k() {
    if (!fields_.has("top_k"))
      return {};
    constexpr std::int64_t most = 1 << 24;
    auto value = fields_.whole("top_k", -1, most);
    if (!value)
      return value.error();
    card_.defaults.top_k =
        static_cast<std::int32_t>(std::max<std::int64_t>(*value, 0));
    return {};
  }

  const json_fields& fields_;
  text::model_card& card_;
};

/// Reads a file of the directory; false if it is not there.
result<bool> read_generation(const std::filesystem::path& path, bool defaults,
                             text::model_card& card) {
  auto text =
      weights::read_text_file_if_there(path, weights::json_document::bytes_max);
  if (!text)
    return text.error();
  if (text->empty())
    return false;
  const auto name = path.filename().string();
  auto document = weights::json_document::parse(*text, name);
  if (!document)
    return document.error();
  json_fields fields{document->root(), name + ": "};
  generation_reader reader{fields, card};
  if (auto done = reader.ends(); !done)
    return done.error();
  if (defaults)
    if (auto done = reader.defaults(); !done)
      return done.error();
  return true;
}

} // namespace

result<text::model_card>
read_directory_card(const std::filesystem::path& directory,
                    const std::filesystem::path& tokenizer,
                    const model_config& config) {
  text::model_card card;
  card.architecture = config.family->name;
  card.max_model_len = static_cast<std::uint32_t>(config.context_length);
  card.vocabulary_size = static_cast<std::uint32_t>(config.vocabulary);
  if (auto done = read_tokenizer_files(tokenizer, card); !done)
    return done.error();
  auto read = read_generation(directory / "generation_config.json", true, card);
  if (read && !*read)
    read = read_generation(directory / "config.json", false, card);
  if (!read)
    return read.error();
  return card;
}

} // namespace troupe::model::hugging_face
