#pragma once

#include "engine/text/tokenizer.hpp"

#include <memory>
#include <string>

namespace troupe::text {

/// Turns the ids of one choice into text as they come. Characters whose bytes
/// are spread over several tokens come out whole, never in halves.
class detokenizer {
public:
  /// With `skip_special` special tokens give no text.
  detokenizer(std::shared_ptr<const tokenizer>, bool skip_special);

  /// Appends to `out` the text that became complete with `id`.
  void push(token_id id, std::string& out);

  /// Appends what is left: incomplete bytes become U+FFFD.
  void finish(std::string& out);

private:
  void strip_front(bool is_end);

  std::shared_ptr<const tokenizer> tokenizer_;
  bool skip_special_;
  bool is_at_front_ = true;   ///< nothing was pushed that gives text
  std::uint32_t strips_left_; ///< of tokenizer::strip_of_text
  std::string pending_;       ///< bytes of an unfinished character or strip
};

} // namespace troupe::text
