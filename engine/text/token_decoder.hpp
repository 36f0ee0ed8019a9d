#pragma once

#include "engine/text/text_matcher.hpp"
#include "engine/text/tokenizer_data.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::text {

/// The steps of a decoder, compiled: what the spelling of an entry stands for.
class token_decoder {
public:
  /// Refuses orders in which a step would have to see several entries at once.
  static result<token_decoder> make(const std::vector<decoder_step>& steps);

  /// The bytes of an entry, as the first of a text or inside it.
  std::string decode(std::string_view spelling, bool at_front,
                     match_scratch& scratch) const;

  /// Whether `at_front` makes a difference.
  bool minds_front() const {
    return minds_front_;
  }

  /// Up to `count` of these are taken from the front of a whole text.
  const std::string& stripped() const {
    return stripped_;
  }
  std::uint32_t strip_count() const {
    return strip_count_;
  }

private:
  struct step {
    decoder_step data;
    std::optional<text_matcher> matcher;
  };

  std::optional<error> add(const decoder_step& data);
  std::optional<error> add_after_fuse(const decoder_step& data);

  std::vector<step> steps_;
  bool has_bytes_ = false; ///< what comes out is bytes, no text
  bool is_fused_ = false;
  bool minds_front_ = false;
  std::string stripped_;
  std::uint32_t strip_count_ = 0;
};

} // namespace troupe::text
