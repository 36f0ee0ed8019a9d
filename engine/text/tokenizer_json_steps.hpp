#pragma once

#include "engine/text/json_object.hpp"
#include "engine/text/tokenizer_data.hpp"

namespace troupe::text {

// Parts of a tokenizer.json, each read from the file's object. False: see the
// object's problem.

constexpr std::int64_t json_ids_max = 1'000'000;

/// An id of the vocabulary.
bool read_json_id(const simdjson::dom::element& value, std::string_view path,
                  json_problem& problem, token_id& out);

bool read_normalizer(const json_object& root, tokenizer_data& out);

/// Sets `is_byte_level` if the pieces are bytes for the model.
bool read_pre_tokenizer(const json_object& root, tokenizer_data& out,
                        bool& is_byte_level);

bool read_post_processor(const json_object& root, tokenizer_data& out);

bool read_decoder(const json_object& root, tokenizer_data& out);

} // namespace troupe::text
