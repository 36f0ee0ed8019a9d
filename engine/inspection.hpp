#pragma once

#include "engine/engine.hpp"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace troupe::engine {

struct inspected_tensor {
  std::string name;                ///< in GGUF's words
  std::string type;                ///< "q4_k": as the engine keeps it
  std::vector<std::int64_t> shape; ///< contiguous dimension first
  std::uint64_t bytes = 0;
};

/// What is in a model's files. What follows a part that cannot be served is
/// missing; `refusal` says why.
struct inspection {
  std::filesystem::path path; ///< the file or directory that is read
  std::string format;         ///< "gguf" or "safetensors"
  std::string quantization;   ///< "awq"; empty: none, or GGUF's types
  std::vector<inspected_tensor> tensors;
  std::string architecture; ///< empty: the configuration is refused
  /// Numbers of the configuration under their names ("layers", 30), for those
  /// that the model has.
  std::vector<std::pair<std::string, std::int64_t>> numbers;
  std::optional<text::model_card> card;
  std::optional<memory_use> memory;
  std::string refusal; ///< why no engine would load it; empty: one would
};

/// Reads the headers, not the weights. Errors: files that cannot be read at
/// all.
result<inspection> inspect(const options&, std::uint64_t available_bytes);

} // namespace troupe::engine
