#pragma once

#include "engine/codec/error.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace troupe::download {

/// What is wanted of a repository.
enum class wanted : std::uint8_t {
  model,
  tokenizer, ///< the small files around the weights
};

struct file_choice {
  std::vector<std::string> names; ///< in order; not empty
  /// The file to open; empty = the directory that holds them.
  std::string entry;
};

/// Which of the files `names` make a model. Safetensors where there are any:
/// model.safetensors or its shards (else all .safetensors at the top), and all
/// configuration: .json, .jinja and vocabularies, at the top and in
/// sentence-transformers' numbered folders. Else the one .gguf file, or all
/// parts of one. `file` chooses among .gguf files: its name, or a part of it
/// between separators ("Q4_K_M"; case does not count).
/// Pickled weights (.bin, .pt) are never chosen. Errors say what there is to
/// choose from, or which shards are missing.
result<file_choice> choose_files(const std::vector<std::string>& names,
                                 const std::string& file, wanted);

} // namespace troupe::download
