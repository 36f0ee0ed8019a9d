#pragma once

#include "engine/codec/error.hpp"
#include "engine/model/hugging_face/config_json.hpp"

#include <filesystem>

namespace troupe::model::hugging_face {

/// Adds to a configuration what sentence-transformers' files beside it say:
/// modules.json and the pooling that it names, and how long a text may be
/// (sentence_bert_config.json). Without modules.json the mean of an encoder's
/// rows is the embedding, as there; a decoder draws tokens. Refused by name:
/// modules other than a pooling and a normalisation after the transformer, and
/// poolings other than of the first, the last or the mean of all rows. A model
/// that scores has no such modules.
result<void> read_sentence_files(const std::filesystem::path& directory,
                                 model_json& config);

} // namespace troupe::model::hugging_face
