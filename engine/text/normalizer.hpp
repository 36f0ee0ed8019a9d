#pragma once

#include "engine/text/charsmap.hpp"
#include "engine/text/text_matcher.hpp"
#include "engine/text/tokenizer_data.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::text {

/// Text on its way through a normalizer.
struct normalized_text {
  std::string text;
  bool front_is_gone = false; ///< what it began with was taken away
};

/// The steps of a normalizer, compiled. Immutable; any thread may run it. Texts
/// grow by a factor of 10,000 at the most.
class normalizer {
public:
  static result<normalizer> make(const std::vector<normalizer_step>& steps);

  bool is_empty() const {
    return steps_.empty();
  }

  /// `text` is valid UTF-8, and so is what becomes of it.
  normalized_text run(std::string_view text, match_scratch& scratch) const;

private:
  struct step {
    normalizer_step data;
    std::optional<text_matcher> matcher;
    std::optional<charsmap> map;
  };

  static result<step> make_step(const normalizer_step& data);
  static void run(const step& one, normalized_text& text,
                  match_scratch& scratch);

  std::vector<step> steps_;
};

} // namespace troupe::text
