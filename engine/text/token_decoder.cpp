#include "engine/text/token_decoder.hpp"

#include "engine/text/byte_alphabet.hpp"
#include "engine/text/utf8.hpp"
#include "engine/text/vocabulary_index.hpp"

#include <fmt/format.h>

#include <utility>

namespace troupe::text {

namespace {

constexpr std::size_t steps_max = 16;
constexpr std::size_t text_bytes_max = 64;

using kind = decoder_step::kind;

error unsupported(std::string_view what) {
  return {errc::unsupported, fmt::format("tokenizer: decoder: {}", what)};
}

void replace_all(std::string& text, std::string_view from,
                 std::string_view by) {
  for (auto at = text.find(from); at != std::string::npos;
       at = text.find(from, at + by.size()))
    text.replace(at, from.size(), by);
}

// No spaces before signs and the ends of English contractions.
void clean_up(std::string& text) {
  constexpr std::pair<std::string_view, std::string_view> changes[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (auto [from, by] : changes)
    replace_all(text, from, by);
}

std::string continue_word(std::string_view text, const decoder_step& step,
                          bool at_front) {
  std::string out;
  if (at_front)
    out = text;
  else if (!step.text.empty() && text.starts_with(step.text))
    out = text.substr(step.text.size());
  else
    out = fmt::format(" {}", text);
  if (step.flag)
    clean_up(out);
  return out;
}

std::string strip(std::string_view text, const decoder_step& step) {
  for (auto i = step.left; i > 0 && text.starts_with(step.text); --i)
    text.remove_prefix(step.text.size());
  for (auto i = step.right; i > 0 && text.ends_with(step.text); --i)
    text.remove_suffix(step.text.size());
  return std::string{text};
}

std::string run(const decoder_step& step, const text_matcher* matcher,
                std::string text, bool at_front, match_scratch& scratch) {
  switch (step.what) {
  case kind::byte_level:
    return bytes_of_spelling(text).value_or(text);
  case kind::byte_fallback: {
    auto byte = byte_of_spelling(text);
    return byte < 0 ? text : std::string(1, static_cast<char>(byte));
  }
  case kind::fuse:
    return text;
  case kind::strip:
    return strip(text, step);
  case kind::replace:
    return matcher->replace_all(text, step.text, scratch);
  case kind::metaspace:
    replace_all(text, step.text, at_front && step.flag ? "" : " ");
    return text;
  case kind::wordpiece:
    return continue_word(text, step, at_front);
  }
  return text;
}

} // namespace

result<token_decoder>
token_decoder::make(const std::vector<decoder_step>& steps) {
  if (steps.size() > steps_max)
    return unsupported("more than 16 steps");
  token_decoder out;
  for (const auto& data : steps)
    if (auto problem = out.is_fused_ ? out.add_after_fuse(data) : out.add(data))
      return *problem;
  return out;
}

std::optional<error> token_decoder::add(const decoder_step& data) {
  if (data.text.size() > text_bytes_max || !is_utf8(data.text))
    return unsupported("a text that is not UTF-8 of up to 64 bytes");
  is_fused_ = data.what == kind::fuse;
  if (is_fused_)
    return std::nullopt;
  if (has_bytes_)
    return unsupported("a step between bytes and Fuse");
  step made{data, std::nullopt};
  if (data.what == kind::replace) {
    auto matcher = text_matcher::make(data.pattern);
    if (!matcher)
      return unsupported(matcher.error().message);
    made.matcher = std::move(*matcher);
  } else if ((data.what == kind::strip || data.what == kind::metaspace) &&
             data.text.empty()) {
    return unsupported("an empty text");
  }
  has_bytes_ =
      data.what == kind::byte_level || data.what == kind::byte_fallback;
  minds_front_ = minds_front_ || data.what == kind::wordpiece ||
                 (data.what == kind::metaspace && data.flag);
  steps_.push_back(std::move(made));
  return std::nullopt;
}

std::optional<error> token_decoder::add_after_fuse(const decoder_step& data) {
  if (data.what == kind::fuse)
    return std::nullopt;
  if (data.what != kind::strip || data.right != 0 || strip_count_ != 0 ||
      data.text.empty() || data.text.size() > text_bytes_max)
    return unsupported("a step after Fuse that is no Strip at the front");
  stripped_ = data.text;
  strip_count_ = data.left;
  return std::nullopt;
}

std::string token_decoder::decode(std::string_view spelling, bool at_front,
                                  match_scratch& scratch) const {
  std::string out{spelling};
  for (const auto& one : steps_)
    out = run(one.data, one.matcher ? &*one.matcher : nullptr, std::move(out),
              at_front, scratch);
  return out;
}

} // namespace troupe::text
