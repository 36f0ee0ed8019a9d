#pragma once

#include "engine/codec/error.hpp"
#include "engine/text/text_piece.hpp"
#include "engine/text/value.hpp"

#include <memory>
#include <string_view>

namespace troupe::text {

/// Bounds of one rendering (rows T1-T3 of the attack table).
struct template_limits {
  std::size_t operations_max = 1'000'000;
  std::size_t output_bytes_max = 16u << 20;
  std::size_t depth_max = 64; ///< nesting of expressions, calls and blocks
};

/// A chat template in the Jinja subset of docs/chat-templates.md, compiled once
/// when a model is loaded. Immutable; safe to use from any thread.
class chat_template {
public:
  /// Parses and checks the source. A construct, filter, test or function that is
  /// not known is an error with its line: the model is refused, nothing is
  /// guessed at run time.
  static result<std::shared_ptr<const chat_template>>
  compile(std::string_view source, template_limits = {});

  virtual ~chat_template() = default;

  /// Renders with the variables of `globals` (messages, add_generation_prompt,
  /// bos_token, eos_token, tools, ...). `raise_exception` in the template, a
  /// limit passed or a type error come back as an error (invalid_argument or
  /// limit) whose message is fit for the client.
  virtual result<text_pieces> render(const value::map& globals) const = 0;
};

} // namespace troupe::text
