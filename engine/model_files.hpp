#pragma once

#include "engine/engine.hpp"
#include "engine/model/model_config.hpp"
#include "engine/weights/checkpoint.hpp"

#include <filesystem>
#include <memory>
#include <string>

namespace troupe::engine {

/// A model's files, opened as the options say.
struct model_files {
  std::filesystem::path source; ///< a .gguf file or a directory
  std::unique_ptr<weights::checkpoint> checkpoint;
};

/// "gguf" or "safetensors".
std::string format_of(const std::filesystem::path& source);

/// Errors: options out of their bounds, files that cannot be read, another
/// format or quantisation than the options ask for.
result<model_files> open_files(const options&);

/// The model's card with what the options change of it, `max_model_len` left
/// out. A tokenizer or a template that a router could not use is an error.
result<text::model_card> read_card(const options&, const model_files&,
                                   const model::model_config&);

} // namespace troupe::engine
