#include "engine/text/model_card.hpp"

#include <optional>

namespace troupe::text {

namespace {

constexpr std::string_view record = "model card";
constexpr std::size_t record_bytes_max = 80u << 20;

enum field_tag : std::uint16_t {
  tag_architecture = 1,
  tag_tokenizer = 2, // a record of its own
  tag_chat_template = 3,
  tag_eos_ids = 4,
  tag_max_model_len = 5,
  tag_vocabulary_size = 6,
  tag_temperature = 7, // 7 to 12: sampling_defaults
  tag_top_p = 8,
  tag_top_k = 9,
  tag_min_p = 10,
  tag_repetition_penalty = 11,
  tag_seed = 12,
  tag_pooled = 13, // 13 to 16: pooled_output; there if it is
  tag_pooled_size = 14,
  tag_may_be_cut = 15,
  tag_lengths = 16,
  tag_trust_request_template = 17,
  tag_template_kwargs = 18,
};

/// The pooled output that is being read.
pooled_output& pooled(model_card& out) {
  return out.pooled ? *out.pooled : out.pooled.emplace();
}

bool get_kind(const codec::field& field, pooled_output::kind& out) {
  std::uint8_t number = 0;
  if (!field.get(number) ||
      number > static_cast<std::uint8_t>(pooled_output::kind::score))
    return false;
  out = static_cast<pooled_output::kind>(number);
  return true;
}

// Empty: `tag` is not known.
std::optional<bool> read(const codec::field& field, model_card& out) {
  switch (field.tag) {
  case tag_architecture:
    return field.get(out.architecture);
  case tag_chat_template:
    return field.get(out.chat_template);
  case tag_eos_ids:
    return field.get(out.eos_ids);
  case tag_max_model_len:
    return field.get(out.max_model_len);
  case tag_vocabulary_size:
    return field.get(out.vocabulary_size);
  case tag_temperature:
    return field.get(out.defaults.temperature.emplace());
  case tag_top_p:
    return field.get(out.defaults.top_p.emplace());
  case tag_top_k:
    return field.get(out.defaults.top_k.emplace());
  case tag_min_p:
    return field.get(out.defaults.min_p.emplace());
  case tag_repetition_penalty:
    return field.get(out.defaults.repetition_penalty.emplace());
  case tag_seed:
    return field.get(out.defaults.seed.emplace());
  case tag_pooled:
    return get_kind(field, pooled(out).what);
  case tag_pooled_size:
    return field.get(pooled(out).size);
  case tag_may_be_cut:
    return field.get(pooled(out).may_be_cut);
  case tag_lengths:
    return field.get(pooled(out).lengths);
  case tag_trust_request_template:
    return field.get(out.trust_request_template);
  case tag_template_kwargs:
    return field.get(out.template_kwargs);
  default:
    return std::nullopt;
  }
}

template <class T>
void put_if_said(codec::writer& out, field_tag tag,
                 const std::optional<T>& value) {
  if (value)
    out.put(tag, *value);
}

} // namespace

codec::bytes encode(const model_card& card) {
  codec::writer out;
  if (!card.architecture.empty())
    out.put(tag_architecture, std::string_view{card.architecture});
  out.put(tag_tokenizer, encode(card.tokenizer));
  if (!card.chat_template.empty())
    out.put(tag_chat_template, std::string_view{card.chat_template});
  if (!card.eos_ids.empty())
    out.put(tag_eos_ids, card.eos_ids);
  out.put_unless(tag_max_model_len, card.max_model_len, std::uint32_t{0});
  out.put_unless(tag_vocabulary_size, card.vocabulary_size, std::uint32_t{0});
  put_if_said(out, tag_temperature, card.defaults.temperature);
  put_if_said(out, tag_top_p, card.defaults.top_p);
  put_if_said(out, tag_top_k, card.defaults.top_k);
  put_if_said(out, tag_min_p, card.defaults.min_p);
  put_if_said(out, tag_repetition_penalty, card.defaults.repetition_penalty);
  put_if_said(out, tag_seed, card.defaults.seed);
  if (card.pooled) {
    out.put(tag_pooled, static_cast<std::uint8_t>(card.pooled->what));
    out.put(tag_pooled_size, card.pooled->size);
    out.put_unless(tag_may_be_cut, card.pooled->may_be_cut, false);
    if (!card.pooled->lengths.empty())
      out.put(tag_lengths, card.pooled->lengths);
  }
  out.put_unless(tag_trust_request_template, card.trust_request_template,
                 false);
  if (!card.template_kwargs.empty())
    out.put(tag_template_kwargs, std::string_view{card.template_kwargs});
  return out.take();
}

result<model_card> decode_model_card(codec::bytes_view bytes) {
  if (bytes.size() > record_bytes_max)
    return error{errc::limit, "model card: record larger than 80 MiB"};
  model_card out;
  codec::reader in{bytes};
  codec::field field;
  while (in.next(field)) {
    if (field.tag == tag_tokenizer) {
      auto tokenizer = decode_tokenizer_data(field.payload);
      if (!tokenizer)
        return tokenizer.error();
      out.tokenizer = std::move(*tokenizer);
      continue;
    }
    auto ok = read(field, out);
    if (!ok)
      return codec::unknown_field(record, field.tag);
    if (!*ok)
      return codec::broken_field(record, field.tag);
  }
  if (!in.ok())
    return error{errc::corrupt, "model card: record is cut short"};
  return out;
}

} // namespace troupe::text
