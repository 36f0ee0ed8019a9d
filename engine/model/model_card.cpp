#include "engine/model/model_card.hpp"

#include "engine/model/gguf_tokenizer.hpp"
#include "engine/model/metadata.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

namespace troupe::model {

namespace {

using text::token_kind;

/// Tokens that end a turn if the chat template writes them.
constexpr std::string_view turn_ends[] = {
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>",    "<|end_of_text|>",
    "<|end|>",    "<|eot|>",    "<end_of_turn>", "</s>"};

class card_reader {
public:
  card_reader(const weights::checkpoint& file, const model_config& config,
              const put_tokenizer& other)
      : metadata_(file), config_(config), other_(other) {
    // nop
  }

  result<text::model_card> run() {
    card_.architecture = config_.family->name;
    card_.max_model_len = static_cast<std::uint32_t>(config_.context_length);
    card_.vocabulary_size = static_cast<std::uint32_t>(config_.vocabulary);
    using step = result<void> (card_reader::*)();
    for (step one : {&card_reader::chat_template, &card_reader::tokenizer,
                     &card_reader::eos_ids})
      if (auto done = (this->*one)(); !done)
        return done.error();
    return std::move(card_);
  }

private:
  result<void> tokenizer() {
    return other_ ? other_tokenizer() : own_tokenizer();
  }

  result<void> other_tokenizer() {
    if (auto done = other_(card_); !done)
      return done;
    auto& into = card_.tokenizer;
    for (auto [place, name] : {std::pair{&into.bos, "bos_token_id"},
                               std::pair{&into.eos, "eos_token_id"}}) {
      auto said = id(name);
      if (!said)
        return said.error();
      auto size = static_cast<text::token_id>(into.vocabulary.size());
      if (*place < 0 && *said < size)
        *place = *said;
    }
    return {};
  }

  result<void> own_tokenizer() {
    auto read = read_gguf_tokenizer(metadata_, config_.vocabulary);
    if (!read)
      return read.error();
    card_.tokenizer = std::move(*read);
    return {};
  }

  /// An id of the vocabulary, or -1 if the key is missing.
  result<text::token_id> id(std::string_view name) const {
    return read_token_id(metadata_, name, config_.vocabulary);
  }

  result<void> chat_template() {
    auto source = metadata_.text("tokenizer.chat_template", "");
    if (!source)
      return source.error();
    card_.chat_template = std::move(*source);
    return {};
  }

  result<void> eos_ids() {
    add_eos(card_.tokenizer.eos);
    for (const char* name : {"eot_token_id", "eom_token_id"}) {
      auto found = id(name);
      if (!found)
        return found.error();
      add_eos(*found);
    }
    for (auto end : turn_ends)
      if (card_.chat_template.find(end) != std::string::npos)
        add_eos(special_id_of(end));
    return {};
  }

  void add_eos(text::token_id id) {
    auto& ids = card_.eos_ids;
    if (id >= 0 && std::find(ids.begin(), ids.end(), id) == ids.end())
      ids.push_back(id);
  }

  text::token_id special_id_of(std::string_view spelling) const {
    const auto& tokenizer = card_.tokenizer;
    auto found = std::find(tokenizer.vocabulary.begin(),
                           tokenizer.vocabulary.end(), spelling);
    auto at = found - tokenizer.vocabulary.begin();
    if (found == tokenizer.vocabulary.end() ||
        tokenizer.kinds[at] != token_kind::special)
      return -1;
    return static_cast<text::token_id>(at);
  }

  metadata metadata_;
  const model_config& config_;
  const put_tokenizer& other_;
  text::model_card card_;
};

} // namespace

result<text::model_card> read_model_card(const weights::checkpoint& file,
                                         const model_config& config,
                                         const put_tokenizer& other_tokenizer) {
  return card_reader{file, config, other_tokenizer}.run();
}

} // namespace troupe::model
