#include "engine/model/model_card.hpp"

#include "engine/model/metadata.hpp"
#include "engine/text/pretokenizers.hpp"

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

/// Families whose tokenizer.json adds bos although files may not say so.
bool adds_bos_by_default(std::string_view pre) {
  return pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3";
}

class card_reader {
public:
  card_reader(const weights::checkpoint& file, const model_config& config)
      : metadata_(file), config_(config) {
    // nop
  }

  result<text::model_card> run() {
    using step = result<void> (card_reader::*)();
    for (step one : {&card_reader::kind_of_tokenizer, &card_reader::vocabulary,
                     &card_reader::kinds, &card_reader::merges,
                     &card_reader::pretokenizer, &card_reader::special_ids,
                     &card_reader::chat_template, &card_reader::eos_ids})
      if (auto done = (this->*one)(); !done)
        return done.error();
    card_.architecture = config_.family->name;
    card_.max_model_len = static_cast<std::uint32_t>(config_.context_length);
    card_.vocabulary_size = static_cast<std::uint32_t>(config_.vocabulary);
    return std::move(card_);
  }

private:
  result<void> kind_of_tokenizer() {
    constexpr std::string_view key = "tokenizer.ggml.model";
    auto kind = metadata_.text(key);
    if (!kind)
      return kind.error();
    if (*kind == "gpt2")
      return {};
    if (*kind == "llama")
      return metadata_.wrong(key,
                             "is 'llama' (SentencePiece): not supported yet",
                             errc::unsupported);
    for (const char* known : {"bert", "t5", "rwkv", "plamo2"})
      if (*kind == known)
        return metadata_.wrong(key,
                               fmt::format("is '{}': not supported yet", known),
                               errc::unsupported);
    return metadata_.wrong(key, "is not 'gpt2': not supported yet",
                           errc::unsupported);
  }

  result<void> vocabulary() {
    constexpr std::string_view key = "tokenizer.ggml.tokens";
    auto tokens = metadata_.texts(key);
    if (!tokens)
      return tokens.error();
    if (!*tokens)
      return metadata_.wrong(key, "is missing");
    if ((*tokens)->size() != static_cast<std::size_t>(config_.vocabulary))
      return metadata_.wrong(
          key, fmt::format("has {} entries, but the embedding has {} rows",
                           (*tokens)->size(), config_.vocabulary));
    card_.tokenizer.vocabulary = **tokens;
    return {};
  }

  result<void> kinds() {
    constexpr std::string_view key = "tokenizer.ggml.token_type";
    auto& out = card_.tokenizer.kinds;
    out.assign(card_.tokenizer.vocabulary.size(), token_kind::normal);
    auto types = metadata_.numbers(key);
    if (!types)
      return types.error();
    if (!*types)
      return {};
    if ((*types)->size() != out.size())
      return metadata_.wrong(key, fmt::format("has {} entries, not {}",
                                              (*types)->size(), out.size()));
    for (std::size_t i = 0; i < out.size(); ++i)
      if (!set_kind(out[i], (**types)[i]))
        return metadata_.wrong(
            key, fmt::format("holds {}, which is no token type", (**types)[i]));
    return {};
  }

  /// GGUF's token types. An "unknown" token is never text, a "byte" token is.
  static bool set_kind(token_kind& out, std::int64_t type) {
    switch (type) {
    case 1:
    case 6:
      out = token_kind::normal;
      return true;
    case 2:
    case 3:
      out = token_kind::special;
      return true;
    case 4:
      out = token_kind::added;
      return true;
    case 5:
      out = token_kind::unused;
      return true;
    default:
      return false;
    }
  }

  result<void> merges() {
    constexpr std::string_view key = "tokenizer.ggml.merges";
    auto merges = metadata_.texts(key);
    if (!merges)
      return merges.error();
    if (!*merges)
      return metadata_.wrong(key, "is missing");
    card_.tokenizer.merges = **merges;
    return {};
  }

  result<void> pretokenizer() {
    constexpr std::string_view key = "tokenizer.ggml.pre";
    auto name = metadata_.text(key);
    if (!name)
      return name.error();
    auto found = text::pretokenizer_of(*name);
    if (!found)
      return metadata_.wrong(key,
                             "names a pre-tokenizer that is not supported yet" +
                                 in_brackets(*name),
                             errc::unsupported);
    card_.tokenizer.split_patterns = std::move(found->split_patterns);
    card_.tokenizer.normalize_nfc = found->normalize_nfc;
    card_.tokenizer.ignore_merges = found->ignore_merges;
    auto prefix = metadata_.flag("tokenizer.ggml.add_space_prefix", false);
    if (!prefix)
      return prefix.error();
    card_.tokenizer.add_prefix_space = *prefix;
    auto bos = metadata_.flag("tokenizer.ggml.add_bos_token",
                              adds_bos_by_default(*name));
    if (!bos)
      return bos.error();
    card_.tokenizer.add_bos = *bos;
    return {};
  }

  /// " (name)" if the name is a plain one, so that no control character of a
  /// file gets into a message.
  static std::string in_brackets(const std::string& name) {
    bool plain = name.size() <= 64 &&
                 std::all_of(name.begin(), name.end(), [](unsigned char c) {
                   return c > 0x20 && c < 0x7f;
                 });
    return plain ? fmt::format(" ({})", name) : "";
  }

  /// An id of the vocabulary, or -1 if the key is missing.
  result<text::token_id> id(std::string_view name) const {
    auto value = metadata_.number(fmt::format("tokenizer.ggml.{}", name), 0,
                                  config_.vocabulary - 1, -1);
    if (!value)
      return value.error();
    return static_cast<text::token_id>(*value);
  }

  result<void> special_ids() {
    auto& tokenizer = card_.tokenizer;
    for (auto [out, name] : {std::pair{&tokenizer.bos, "bos_token_id"},
                             {&tokenizer.eos, "eos_token_id"},
                             {&tokenizer.unknown, "unknown_token_id"}}) {
      auto found = id(name);
      if (!found)
        return found.error();
      *out = *found;
    }
    if (tokenizer.add_bos && tokenizer.bos < 0)
      return metadata_.wrong("tokenizer.ggml.bos_token_id",
                             "is missing although prompts begin with it");
    return {};
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
  text::model_card card_;
};

} // namespace

result<text::model_card> read_model_card(const weights::checkpoint& file,
                                         const model_config& config) {
  return card_reader{file, config}.run();
}

} // namespace troupe::model
