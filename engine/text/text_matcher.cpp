#include "engine/text/text_matcher.hpp"

namespace troupe::text {

result<text_matcher> text_matcher::make(const text_pattern& pattern) {
  if (pattern.source.empty())
    return error{errc::unsupported, "pattern: empty"};
  text_matcher out;
  if (!pattern.is_regex) {
    out.literal_ = pattern.source;
    return out;
  }
  auto regex = split_pattern::compile(pattern.source);
  if (!regex)
    return regex.error();
  out.regex_ = std::move(*regex);
  out.cutter_ = word_cutter::of(pattern.source);
  return out;
}

std::optional<split_pattern::range>
text_matcher::find(std::string_view text, std::size_t from,
                   match_scratch& scratch) const {
  if (cutter_)
    if (auto match = cutter_->find(text, from)) {
      if (match->first == text.size())
        return std::nullopt;
      return match;
    }
  if (regex_)
    return regex_->find(text, from, scratch);
  auto at = text.find(literal_, from);
  if (at == std::string_view::npos)
    return std::nullopt;
  return split_pattern::range{at, at + literal_.size()};
}

std::string text_matcher::replace_all(std::string_view text,
                                      std::string_view by,
                                      match_scratch& scratch) const {
  std::string out;
  std::size_t done = 0;
  while (auto match = find(text, done, scratch)) {
    out += text.substr(done, match->first - done);
    out += by;
    done = match->second;
  }
  out += text.substr(done);
  return out;
}

} // namespace troupe::text
