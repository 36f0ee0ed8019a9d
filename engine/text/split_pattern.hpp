#pragma once

#include "engine/codec/error.hpp"

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

struct pcre2_real_code_8;
struct pcre2_real_match_context_8;
struct pcre2_real_match_data_8;
struct pcre2_real_jit_stack_8;

namespace troupe::text {

/// Rewrites a pattern of a tokenizer.json (Oniguruma, Ruby's syntax) for PCRE2
/// with the same meaning: `\s` and general categories are those of Unicode 16.
/// Known are literals, escapes of signs and of n r t f, \uXXXX, `.`, `$`, \s \S
/// \d, \p{..} \P{..} of general categories, sets without sets in them, groups
/// (plain, ?:, ?i:, ?>, lookaround), alternatives and repeats. Anything else is
/// refused with its position; so are unbounded repeats of unbounded repeats,
/// which take forever on some texts.
result<std::string> to_pcre2(std::string_view pattern);

/// What matching needs besides the pattern; one per thread and call.
class match_scratch {
public:
  match_scratch();

private:
  friend class split_pattern;
  struct deleter {
    void operator()(pcre2_real_match_context_8*) const;
    void operator()(pcre2_real_match_data_8*) const;
    void operator()(pcre2_real_jit_stack_8*) const;
  };
  std::unique_ptr<pcre2_real_jit_stack_8, deleter> stack_;
  std::unique_ptr<pcre2_real_match_context_8, deleter> context_;
  std::unique_ptr<pcre2_real_match_data_8, deleter> data_;
};

/// A compiled pattern of a pre-tokenizer. Immutable; any thread may match.
class split_pattern {
public:
  /// Refuses what `to_pcre2` refuses, patterns that can match nothing at all,
  /// and those that pass their limits on plain runs of characters.
  static result<split_pattern> compile(std::string_view pattern);

  /// A part of a text: bytes [first, second).
  using range = std::pair<std::size_t, std::size_t>;

  /// The first match that begins at `from` or after it. `text` is valid UTF-8.
  /// Nothing, too, once a match passes its limits (10 million steps, 64 MiB):
  /// the rest of the text then counts as not matched.
  std::optional<range> find(std::string_view text, std::size_t from,
                            match_scratch& scratch) const;

private:
  enum class outcome { match, no_match, limit };

  outcome search(std::string_view text, std::size_t from,
                 match_scratch& scratch) const;

  bool passes_limits_on_runs() const;

  struct deleter {
    void operator()(pcre2_real_code_8*) const;
  };
  std::unique_ptr<pcre2_real_code_8, deleter> code_;
  bool is_compiled_ = false; ///< to machine code
};

} // namespace troupe::text
