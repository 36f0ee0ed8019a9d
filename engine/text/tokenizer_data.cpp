#include "engine/text/tokenizer.hpp"

#include <algorithm>
#include <optional>

namespace troupe::text {

namespace {

constexpr std::string_view record = "tokenizer";
constexpr std::size_t record_bytes_max = 64u << 20;
constexpr std::size_t entries_max = 2'000'000; ///< of any list

enum field_tag : std::uint16_t {
  tag_entry = 1, // repeated, by id
  tag_kinds = 2,
  tag_merge = 3,         // repeated, best first
  tag_split_pattern = 4, // repeated, in order
  tag_split_modes = 5,   // two bytes each
  tag_added_options = 6, // id and flags each, as u32
  tag_normalize_nfc = 7,
  tag_add_prefix_space = 8,
  tag_ignore_merges = 9,
  tag_bos = 10,
  tag_eos = 11,
  tag_unknown = 12,
  tag_add_bos = 13,
};

constexpr std::uint32_t flag_single_word = 1;
constexpr std::uint32_t flag_lstrip = 2;
constexpr std::uint32_t flag_rstrip = 4;
constexpr std::uint32_t flag_normalized = 8;
constexpr std::uint32_t flags_all = 15;

std::vector<std::uint8_t> pack(const std::vector<split_options>& modes) {
  std::vector<std::uint8_t> out;
  for (const auto& mode : modes) {
    out.push_back(static_cast<std::uint8_t>(mode.behavior));
    out.push_back(mode.invert ? 1 : 0);
  }
  return out;
}

bool unpack(const std::vector<std::uint8_t>& bytes,
            std::vector<split_options>& out) {
  constexpr auto last = static_cast<std::uint8_t>(split_behavior::contiguous);
  if (bytes.size() % 2 != 0)
    return false;
  for (std::size_t i = 0; i < bytes.size(); i += 2) {
    if (bytes[i] > last || bytes[i + 1] > 1)
      return false;
    out.push_back({static_cast<split_behavior>(bytes[i]), bytes[i + 1] == 1});
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
                  (entry.normalized ? flag_normalized : 0u));
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
                   .normalized = (flags & flag_normalized) != 0});
  }
  return true;
}

bool append(const codec::field& field, std::vector<std::string>& out) {
  return out.size() < entries_max && field.get(out.emplace_back());
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
    return append(field, out.split_patterns);
  case tag_split_modes: {
    std::vector<std::uint8_t> bytes;
    out.split_modes.clear();
    return field.get(bytes) && unpack(bytes, out.split_modes);
  }
  case tag_added_options: {
    std::vector<std::uint32_t> words;
    out.added_options.clear();
    return field.get(words) && unpack(words, out.added_options);
  }
  case tag_normalize_nfc:
    return field.get(out.normalize_nfc);
  case tag_add_prefix_space:
    return field.get(out.add_prefix_space);
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
  for (const auto& pattern : data.split_patterns)
    out.put(tag_split_pattern, std::string_view{pattern});
  if (!data.split_modes.empty())
    out.put(tag_split_modes, pack(data.split_modes));
  if (!data.added_options.empty())
    out.put(tag_added_options, pack(data.added_options));
  out.put_unless(tag_normalize_nfc, data.normalize_nfc, false);
  out.put_unless(tag_add_prefix_space, data.add_prefix_space, false);
  out.put_unless(tag_ignore_merges, data.ignore_merges, false);
  out.put_unless(tag_bos, data.bos, token_id{-1});
  out.put_unless(tag_eos, data.eos, token_id{-1});
  out.put_unless(tag_unknown, data.unknown, token_id{-1});
  out.put_unless(tag_add_bos, data.add_bos, false);
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
