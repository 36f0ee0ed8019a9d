#include "engine/text/pre_tokenizer.hpp"

#include "engine/text/utf8.hpp"

#include <fmt/format.h>

namespace troupe::text {

namespace {

constexpr std::size_t steps_max = 32;
constexpr std::size_t text_bytes_max = 64; ///< of a prefix or replacement
constexpr std::size_t replacements_max = 2;

using kind = pre_token_step::kind;

struct part {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool is_match = false;
};

// All of `text` in order, matches and what is between them.
std::vector<part> parts_of(const text_matcher& matcher, bool invert,
                           std::string_view text, match_scratch& scratch) {
  std::vector<part> out;
  std::size_t done = 0;
  while (done < text.size()) {
    auto match = matcher.find(text, done, scratch);
    auto begin = match ? match->first : text.size();
    if (begin > done)
      out.push_back({done, begin, invert});
    if (match)
      out.push_back({begin, match->second, !invert});
    done = match ? match->second : text.size();
  }
  return out;
}

// Joins parts as the behaviour asks.
std::vector<part> join(const std::vector<part>& parts, split_behavior how) {
  std::vector<part> out;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const auto* before = i == 0 ? nullptr : &parts[i - 1];
    auto joins = false;
    if (before != nullptr && how == split_behavior::contiguous)
      joins = parts[i].is_match == before->is_match;
    else if (before != nullptr && how == split_behavior::merged_with_previous)
      joins = parts[i].is_match && !before->is_match;
    else if (before != nullptr && how == split_behavior::merged_with_next)
      joins = before->is_match && !parts[i].is_match;
    if (joins)
      out.back().end = parts[i].end;
    else if (how != split_behavior::removed || !parts[i].is_match)
      out.push_back(parts[i]);
  }
  return out;
}

error at_step(std::size_t index, errc code, std::string_view why) {
  return {code, fmt::format("tokenizer: pre-tokenizer {}: {}", index, why)};
}

} // namespace

result<pre_tokenizer>
pre_tokenizer::make(const std::vector<pre_token_step>& steps) {
  if (steps.size() > steps_max)
    return at_step(steps_max, errc::limit, "one too many");
  pre_tokenizer out;
  std::size_t replacements = 0;
  for (const auto& data : steps) {
    auto index = out.steps_.size();
    step made{data, std::nullopt};
    if (data.text.size() > text_bytes_max)
      return at_step(index, errc::limit, "a text of over 64 bytes");
    if (!is_utf8(data.text))
      return at_step(index, errc::corrupt, "a text that is not UTF-8");
    if (data.what == kind::replace && ++replacements > replacements_max)
      return at_step(index, errc::limit, "one replacement too many");
    if (data.what != kind::prefix) {
      auto matcher = text_matcher::make(data.pattern);
      if (!matcher)
        return at_step(index, matcher.error().code, matcher.error().message);
      made.matcher = std::move(*matcher);
    }
    out.steps_.push_back(std::move(made));
  }
  return out;
}

void pre_tokenizer::run(std::size_t level, std::string_view text, bool at_front,
                        match_scratch& scratch, piece_sink& sink) const {
  if (level == steps_.size())
    return sink.take(text);
  const auto& data = steps_[level].data;
  if (data.what == kind::split &&
      data.mode.behavior == split_behavior::isolated)
    return isolate(level, text, at_front, scratch, sink);
  if (data.what == kind::split)
    return split(level, text, at_front, scratch, sink);
  if (data.what == kind::replace) {
    auto replaced =
        steps_[level].matcher->replace_all(text, data.text, scratch);
    return run(level + 1, replaced, at_front, scratch, sink);
  }
  if (text.starts_with(data.text) || (data.front_only && !at_front))
    return run(level + 1, text, at_front, scratch, sink);
  auto prefixed = data.text;
  prefixed += text;
  run(level + 1, prefixed, at_front, scratch, sink);
}

void pre_tokenizer::isolate(std::size_t level, std::string_view text,
                            bool at_front, match_scratch& scratch,
                            piece_sink& sink) const {
  std::size_t done = 0;
  auto give = [&](std::size_t end) {
    if (end > done)
      run(level + 1, text.substr(done, end - done), at_front && done == 0,
          scratch, sink);
    done = end;
  };
  while (done < text.size()) {
    auto match = steps_[level].matcher->find(text, done, scratch);
    if (!match)
      break;
    give(match->first);
    give(match->second);
  }
  give(text.size());
}

void pre_tokenizer::split(std::size_t level, std::string_view text,
                          bool at_front, match_scratch& scratch,
                          piece_sink& sink) const {
  const auto& mode = steps_[level].data.mode;
  auto parts = parts_of(*steps_[level].matcher, mode.invert, text, scratch);
  for (const auto& piece : join(parts, mode.behavior))
    run(level + 1, text.substr(piece.begin, piece.end - piece.begin),
        at_front && piece.begin == 0, scratch, sink);
}

} // namespace troupe::text
