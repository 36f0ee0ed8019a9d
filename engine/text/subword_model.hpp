#pragma once

#include "engine/codec/error.hpp"
#include "engine/text/tokenizer_data.hpp"

#include <memory>
#include <string_view>
#include <vector>

namespace troupe::text {

class vocabulary_index;

/// Makes ids of one piece of text. Immutable; any thread may call it.
class subword_model {
public:
  virtual ~subword_model() = default;

  /// Appends the ids of `piece`: not empty and valid UTF-8.
  virtual void encode(std::string_view piece,
                      std::vector<token_id>& out) const = 0;
};

using subword_model_ptr = std::unique_ptr<const subword_model>;

/// The model that the data asks for. Both arguments outlive it.
result<subword_model_ptr> make_subword_model(const tokenizer_data& data,
                                             const vocabulary_index& index);

// One of each kind.
result<subword_model_ptr> make_byte_level_bpe(const tokenizer_data& data,
                                              const vocabulary_index& index);
result<subword_model_ptr> make_bpe(const tokenizer_data& data,
                                   const vocabulary_index& index);
result<subword_model_ptr> make_unigram(const tokenizer_data& data,
                                       const vocabulary_index& index);
result<subword_model_ptr> make_wordpiece(const tokenizer_data& data,
                                         const vocabulary_index& index);

/// An error of a tokenizer's data.
error invalid_tokenizer(std::string_view message);

} // namespace troupe::text
