#include "engine/text/added_token_finder.hpp"

#include "engine/text/character_sets.hpp"
#include "engine/text/utf8.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace troupe::text {

namespace {

std::string_view first_character(std::string_view text) {
  return text.empty() ? text : text.substr(0, first_utf8_unit(text).size);
}

} // namespace

void added_token_finder::add(std::string_view spelling,
                             const added_token_options& options) {
  if (options.single_word && !word_character_)
    word_character_ = std::make_shared<const split_pattern>(
        split_pattern::compile(fmt::format("[{}]", word_items)).value());
  starts_[static_cast<unsigned char>(spelling[0])] = true;
  added_.emplace_back(spelling, options.id);
  options_.try_emplace(options.id, options);
}

void added_token_finder::prepare() {
  std::vector<byte_trie::entry> entries;
  for (auto token = added_.rbegin(); token != added_.rend(); ++token)
    entries.push_back({token->first, token->second});
  tokens_ = byte_trie::make(std::move(entries));
}

bool added_token_finder::longest_at(std::string_view text, std::size_t at,
                                    const filter& allowed, found& out) const {
  out.id = -1;
  auto node = byte_trie::root;
  for (auto i = at; i < text.size(); ++i) {
    node = tokens_.next(node, text[i]);
    if (node == byte_trie::none)
      break;
    auto id = tokens_.id_at(node);
    if (id >= 0 && allowed(id, at, i + 1))
      out = {id, at, at, i + 1, i + 1};
  }
  return out.id >= 0;
}

bool added_token_finder::find(std::string_view text, std::size_t from,
                              const filter& allowed, found& out) const {
  for (auto at = from; at < text.size(); ++at) {
    if (!starts_[static_cast<unsigned char>(text[at])] ||
        !longest_at(text, at, allowed, out))
      continue;
    if (!place(text, from, out)) {
      at = out.token_end - 1; // not a word of its own: nothing begins in it
      continue;
    }
    return true;
  }
  return false;
}

bool added_token_finder::is_word(std::string_view character) const {
  match_scratch scratch;
  return word_character_->find(character, 0, scratch).has_value();
}

// False if the token has to be a word of its own, and is not.
bool added_token_finder::place(std::string_view text, std::size_t from,
                               found& token) const {
  const auto& options = options_.at(token.id);
  auto before = text.substr(0, token.token_begin);
  auto after = text.substr(token.token_end);
  if (options.single_word &&
      (is_word(last_character(before)) || is_word(first_character(after))))
    return false;
  if (options.lstrip)
    token.begin -= spaces_at_end(before.substr(from));
  if (options.rstrip)
    token.end += spaces_at_start(after);
  return true;
}

} // namespace troupe::text
