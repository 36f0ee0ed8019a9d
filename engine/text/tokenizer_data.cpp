#include "engine/text/tokenizer_data.hpp"

#include <algorithm>
#include <optional>

namespace troupe::text {

namespace {

constexpr std::string_view record = "tokenizer";
constexpr std::size_t record_bytes_max = 64u << 20;
constexpr std::size_t entries_max = 2'000'000; ///< of any list
constexpr std::size_t steps_max = 64;          ///< of any kind

enum field_tag : std::uint16_t {
  tag_entry = 1, // repeated, by id
  tag_kinds = 2,
  tag_merge = 3,         // repeated, best first
  tag_split_pattern = 4, // repeated, in order: steps that only isolate matches
  tag_split_modes = 5,   // two bytes each: what they do instead
  tag_added_options = 6, // id and flags each, as u32
  tag_normalize_nfc = 7, // the only normalizer step
  tag_prefix_space = 8,  // a step before those of tag_split_pattern
  tag_ignore_merges = 9,
  tag_bos = 10,
  tag_eos = 11,
  tag_unknown = 12,
  tag_add_bos = 13,
  tag_model = 14,
  tag_scores = 15,
  tag_normalizer_step = 16, // a record each, in order, as the next two
  tag_pre_token_step = 17,
  tag_decoder_step = 18,
  tag_byte_fallback = 19,
  tag_fuse_unknown = 20,
  tag_continuing_prefix = 21,
  tag_word_characters_max = 22,
  tag_frame_one = 23, // id and type each, as u32
  tag_frame_two = 24,
};

// Fields of the steps' records.
enum step_tag : std::uint16_t {
  step_what = 1,
  step_source = 2,
  step_is_regex = 3,
  step_text = 4,
  step_left = 5,
  step_right = 6,
  step_flag = 7,
  step_behavior = 8,
  step_invert = 9,
};

constexpr std::uint32_t flag_single_word = 1;
constexpr std::uint32_t flag_lstrip = 2;
constexpr std::uint32_t flag_rstrip = 4;
constexpr std::uint32_t flag_normalized = 8;
constexpr std::uint32_t flag_is_piece = 16;
constexpr std::uint32_t flags_all = 31;

const pre_token_step& prefix_space() {
  static const pre_token_step step{.what = pre_token_step::kind::prefix,
                                   .text = " "};
  return step;
}

bool is_regex_split(const pre_token_step& step) {
  return step.what == pre_token_step::kind::split && step.pattern.is_regex;
}

/// Whether tags 4, 5, 7 and 8 say it all, which any version reads.
bool has_plain_steps(const tokenizer_data& data) {
  const auto& steps = data.pre_tokenizer;
  auto first = steps.begin();
  if (first != steps.end() && *first == prefix_space())
    ++first;
  return std::all_of(first, steps.end(), is_regex_split) &&
         (data.normalizer.empty() ||
          data.normalizer == std::vector<normalizer_step>(1));
}

void put_plain_steps(codec::writer& out, const tokenizer_data& data) {
  std::vector<std::uint8_t> modes;
  auto has_modes = false;
  for (const auto& step : data.pre_tokenizer) {
    if (!is_regex_split(step))
      continue;
    out.put(tag_split_pattern, std::string_view{step.pattern.source});
    modes.push_back(static_cast<std::uint8_t>(step.mode.behavior));
    modes.push_back(step.mode.invert ? 1 : 0);
    has_modes = has_modes || step.mode != split_options{};
  }
  if (has_modes)
    out.put(tag_split_modes, modes);
  out.put_unless(tag_normalize_nfc, !data.normalizer.empty(), false);
  out.put_unless(tag_prefix_space,
                 !data.pre_tokenizer.empty() &&
                     data.pre_tokenizer[0] == prefix_space(),
                 false);
}

bool read_modes(const std::vector<std::uint8_t>& bytes,
                std::vector<pre_token_step>& steps) {
  constexpr auto last = static_cast<std::uint8_t>(split_behavior::contiguous);
  if (bytes.size() != 2 * steps.size())
    return false;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    if (bytes[2 * i] > last || bytes[2 * i + 1] > 1)
      return false;
    steps[i].mode = {static_cast<split_behavior>(bytes[2 * i]),
                     bytes[2 * i + 1] == 1};
  }
  return true;
}

std::vector<std::uint32_t>
pack(const std::vector<added_token_options>& options) {
  std::vector<std::uint32_t> out;
  for (const auto& entry : options) {
    out.push_back(static_cast<std::uint32_t>(entry.id));
    out.push_back((entry.single_word ? flag_single_word : 0u) |
                  (entry.lstrip ? flag_lstrip : 0u) |
                  (entry.rstrip ? flag_rstrip : 0u) |
                  (entry.normalized ? flag_normalized : 0u) |
                  (entry.is_piece ? flag_is_piece : 0u));
  }
  return out;
}

bool unpack(const std::vector<std::uint32_t>& words,
            std::vector<added_token_options>& out) {
  if (words.size() % 2 != 0)
    return false;
  for (std::size_t i = 0; i < words.size(); i += 2) {
    auto flags = words[i + 1];
    if (flags > flags_all)
      return false;
    out.push_back({.id = static_cast<token_id>(words[i]),
                   .single_word = (flags & flag_single_word) != 0,
                   .lstrip = (flags & flag_lstrip) != 0,
                   .rstrip = (flags & flag_rstrip) != 0,
                   .normalized = (flags & flag_normalized) != 0,
                   .is_piece = (flags & flag_is_piece) != 0});
  }
  return true;
}

std::vector<std::uint32_t> pack(const std::vector<frame_place>& frame) {
  std::vector<std::uint32_t> out;
  for (const auto& place : frame) {
    out.push_back(static_cast<std::uint32_t>(place.id));
    out.push_back(place.type);
  }
  return out;
}

bool unpack(const std::vector<std::uint32_t>& words,
            std::vector<frame_place>& out) {
  if (words.size() % 2 != 0)
    return false;
  for (std::size_t i = 0; i < words.size(); i += 2)
    out.push_back({static_cast<token_id>(words[i]), words[i + 1]});
  return true;
}

void put(codec::writer& out, const text_pattern& pattern) {
  if (!pattern.source.empty())
    out.put(step_source, std::string_view{pattern.source});
  out.put_unless(step_is_regex, pattern.is_regex, false);
}

void put_text(codec::writer& out, const std::string& text) {
  if (!text.empty())
    out.put(step_text, std::string_view{text});
}

codec::bytes encode(const normalizer_step& step) {
  codec::writer out;
  out.put(step_what, step.what);
  put(out, step.pattern);
  put_text(out, step.text);
  out.put_unless(step_left, step.left, false);
  out.put_unless(step_right, step.right, false);
  return out.take();
}

codec::bytes encode(const pre_token_step& step) {
  codec::writer out;
  out.put(step_what, step.what);
  put(out, step.pattern);
  put_text(out, step.text);
  out.put_unless(step_behavior, step.mode.behavior, split_behavior::isolated);
  out.put_unless(step_invert, step.mode.invert, false);
  out.put_unless(step_flag, step.front_only, false);
  return out.take();
}

codec::bytes encode(const decoder_step& step) {
  codec::writer out;
  out.put(step_what, step.what);
  put(out, step.pattern);
  put_text(out, step.text);
  out.put_unless(step_left, step.left, 0u);
  out.put_unless(step_right, step.right, 0u);
  out.put_unless(step_flag, step.flag, false);
  return out.take();
}

void put_steps(codec::writer& out, const tokenizer_data& data) {
  for (const auto& step : data.normalizer)
    out.put(tag_normalizer_step, encode(step));
  for (const auto& step : data.pre_tokenizer)
    out.put(tag_pre_token_step, encode(step));
}

/// A value of an enumeration that ends with `last`.
template <class T>
bool get(const codec::field& field, T& out, T last) {
  return field.get(out) && out <= last;
}

// Fields that every kind of step has. Empty: `tag` is not known.
template <class Step>
std::optional<bool> read_common(const codec::field& field, Step& out) {
  switch (field.tag) {
  case step_source:
    return field.get(out.pattern.source);
  case step_is_regex:
    return field.get(out.pattern.is_regex);
  case step_text:
    return field.get(out.text);
  default:
    return std::nullopt;
  }
}

std::optional<bool> read(const codec::field& field, normalizer_step& out) {
  switch (field.tag) {
  case step_what:
    return get(field, out.what, normalizer_step::kind::bert_strip_accents);
  case step_left:
    return field.get(out.left);
  case step_right:
    return field.get(out.right);
  default:
    return read_common(field, out);
  }
}

std::optional<bool> read(const codec::field& field, pre_token_step& out) {
  switch (field.tag) {
  case step_what:
    return get(field, out.what, pre_token_step::kind::prefix);
  case step_behavior:
    return get(field, out.mode.behavior, split_behavior::contiguous);
  case step_invert:
    return field.get(out.mode.invert);
  case step_flag:
    return field.get(out.front_only);
  default:
    return read_common(field, out);
  }
}

std::optional<bool> read(const codec::field& field, decoder_step& out) {
  switch (field.tag) {
  case step_what:
    return get(field, out.what, decoder_step::kind::wordpiece);
  case step_left:
    return field.get(out.left);
  case step_right:
    return field.get(out.right);
  case step_flag:
    return field.get(out.flag);
  default:
    return read_common(field, out);
  }
}

bool append_split(const codec::field& field, std::vector<pre_token_step>& out) {
  if (out.size() == steps_max)
    return false;
  auto& pattern = out.emplace_back().pattern;
  pattern.is_regex = true;
  return field.get(pattern.source);
}

/// Appends a step's record. A field in it that is not known refuses all.
template <class Step>
bool append(const codec::field& field, std::vector<Step>& out) {
  if (out.size() == steps_max)
    return false;
  codec::reader in{field.payload};
  codec::field part;
  auto& step = out.emplace_back();
  while (in.next(part))
    if (!read(part, step).value_or(false))
      return false;
  return in.ok();
}

bool append(const codec::field& field, std::vector<std::string>& out) {
  return out.size() < entries_max && field.get(out.emplace_back());
}

template <class T>
bool read_packed(const codec::field& field, std::vector<T>& out) {
  std::vector<std::uint32_t> words;
  out.clear();
  return field.get(words) && unpack(words, out);
}

bool read_kinds(const codec::field& field, std::vector<token_kind>& out) {
  return field.get(out) &&
         std::all_of(out.begin(), out.end(), [](token_kind kind) {
           return kind <= token_kind::unused;
         });
}

// Empty: `tag` is not known.
std::optional<bool> read(const codec::field& field, tokenizer_data& out) {
  switch (field.tag) {
  case tag_entry:
    return append(field, out.vocabulary);
  case tag_kinds:
    return read_kinds(field, out.kinds);
  case tag_merge:
    return append(field, out.merges);
  case tag_split_pattern:
    return append_split(field, out.pre_tokenizer);
  case tag_split_modes: {
    std::vector<std::uint8_t> modes;
    return field.get(modes) && read_modes(modes, out.pre_tokenizer);
  }
  case tag_normalize_nfc: {
    auto on = false;
    if (!field.get(on))
      return false;
    out.normalizer.resize(on ? 1 : 0);
    return true;
  }
  case tag_prefix_space: {
    auto on = false;
    if (!field.get(on))
      return false;
    if (on)
      out.pre_tokenizer.insert(out.pre_tokenizer.begin(), prefix_space());
    return true;
  }
  case tag_added_options:
    return read_packed(field, out.added_options);
  case tag_ignore_merges:
    return field.get(out.ignore_merges);
  case tag_bos:
    return field.get(out.bos);
  case tag_eos:
    return field.get(out.eos);
  case tag_unknown:
    return field.get(out.unknown);
  case tag_add_bos:
    return field.get(out.add_bos);
  case tag_model:
    return get(field, out.model, model_kind::wordpiece);
  case tag_scores:
    return field.get(out.scores);
  case tag_normalizer_step:
    return append(field, out.normalizer);
  case tag_pre_token_step:
    return append(field, out.pre_tokenizer);
  case tag_decoder_step:
    return append(field, out.decoder);
  case tag_byte_fallback:
    return field.get(out.byte_fallback);
  case tag_fuse_unknown:
    return field.get(out.fuse_unknown);
  case tag_continuing_prefix:
    return field.get(out.continuing_prefix);
  case tag_word_characters_max:
    return field.get(out.word_characters_max);
  case tag_frame_one:
    return read_packed(field, out.frame_one);
  case tag_frame_two:
    return read_packed(field, out.frame_two);
  default:
    return std::nullopt;
  }
}

} // namespace

codec::bytes encode(const tokenizer_data& data) {
  codec::writer out;
  for (const auto& entry : data.vocabulary)
    out.put(tag_entry, std::string_view{entry});
  if (!data.kinds.empty())
    out.put(tag_kinds, data.kinds);
  for (const auto& merge : data.merges)
    out.put(tag_merge, std::string_view{merge});
  if (!data.added_options.empty())
    out.put(tag_added_options, pack(data.added_options));
  out.put_unless(tag_ignore_merges, data.ignore_merges, false);
  out.put_unless(tag_bos, data.bos, token_id{-1});
  out.put_unless(tag_eos, data.eos, token_id{-1});
  out.put_unless(tag_unknown, data.unknown, token_id{-1});
  out.put_unless(tag_add_bos, data.add_bos, false);
  out.put_unless(tag_model, data.model, model_kind::byte_level_bpe);
  if (!data.scores.empty())
    out.put(tag_scores, data.scores);
  if (has_plain_steps(data))
    put_plain_steps(out, data);
  else
    put_steps(out, data);
  for (const auto& step : data.decoder)
    out.put(tag_decoder_step, encode(step));
  out.put_unless(tag_byte_fallback, data.byte_fallback, false);
  out.put_unless(tag_fuse_unknown, data.fuse_unknown, false);
  if (!data.continuing_prefix.empty())
    out.put(tag_continuing_prefix, std::string_view{data.continuing_prefix});
  out.put_unless(tag_word_characters_max, data.word_characters_max, 100u);
  if (!data.frame_one.empty())
    out.put(tag_frame_one, pack(data.frame_one));
  if (!data.frame_two.empty())
    out.put(tag_frame_two, pack(data.frame_two));
  return out.take();
}

result<tokenizer_data> decode_tokenizer_data(codec::bytes_view bytes) {
  if (bytes.size() > record_bytes_max)
    return error{errc::limit, "tokenizer: record larger than 64 MiB"};
  tokenizer_data out;
  codec::reader in{bytes};
  codec::field field;
  while (in.next(field)) {
    auto ok = read(field, out);
    if (!ok)
      return codec::unknown_field(record, field.tag);
    if (!*ok)
      return codec::broken_field(record, field.tag);
  }
  if (!in.ok())
    return error{errc::corrupt, "tokenizer: record is cut short"};
  if (out.kinds.size() != out.vocabulary.size())
    return codec::broken_field(record, tag_kinds);
  return out;
}

} // namespace troupe::text
