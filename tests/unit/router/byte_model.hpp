#pragma once

#include "engine/text/byte_alphabet.hpp"
#include "engine/text/model_card.hpp"
#include "engine/text/tokenizer.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

/// A model whose tokens are the 256 bytes, so that tests read like text.
namespace troupe::test {

inline constexpr token_id im_start = 256;
inline constexpr token_id im_end = 257;

inline text::tokenizer_data byte_tokenizer_data() {
  text::tokenizer_data data;
  for (int byte = 0; byte < 256; ++byte)
    data.vocabulary.push_back(
        text::spell_bytes(std::string(1, static_cast<char>(byte))));
  data.kinds.assign(256, text::token_kind::normal);
  for (auto special : {"<|im_start|>", "<|im_end|>"}) {
    data.vocabulary.push_back(special);
    data.kinds.push_back(text::token_kind::special);
  }
  data.bos = im_start;
  data.eos = im_end;
  return data;
}

inline text::model_card byte_model_card() {
  text::model_card card;
  card.architecture = "llama";
  card.tokenizer = byte_tokenizer_data();
  card.chat_template =
      "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
      "{{ message['content'] }}<|im_end|>\n{% endfor %}"
      "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
  card.eos_ids = {im_end};
  card.max_model_len = 256;
  card.vocabulary_size = 258;
  return card;
}

inline std::vector<token_id> ids_of(std::string_view text) {
  std::vector<token_id> out;
  for (unsigned char byte : text)
    out.push_back(byte);
  return out;
}

} // namespace troupe::test
