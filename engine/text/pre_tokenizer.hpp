#pragma once

#include "engine/text/text_matcher.hpp"
#include "engine/text/tokenizer_data.hpp"

#include <string_view>
#include <vector>

namespace troupe::text {

/// Takes the pieces of a text in their order. They live during the call only.
class piece_sink {
public:
  virtual void take(std::string_view piece) = 0;

protected:
  ~piece_sink() = default;
};

/// The steps of a pre-tokenizer, compiled. Immutable; any thread may run it.
class pre_tokenizer {
public:
  static result<pre_tokenizer> make(const std::vector<pre_token_step>& steps);

  /// Cuts valid UTF-8. `at_front`: the whole text begins with it.
  void run(std::string_view text, bool at_front, match_scratch& scratch,
           piece_sink& sink) const {
    run(0, text, at_front, scratch, sink);
  }

private:
  struct step {
    pre_token_step data;
    std::optional<text_matcher> matcher;
  };

  void run(std::size_t level, std::string_view text, bool at_front,
           match_scratch& scratch, piece_sink& sink) const;
  void isolate(std::size_t level, std::string_view text, bool at_front,
               match_scratch& scratch, piece_sink& sink) const;
  void split(std::size_t level, std::string_view text, bool at_front,
             match_scratch& scratch, piece_sink& sink) const;

  std::vector<step> steps_;
};

} // namespace troupe::text
