#pragma once

#include "engine/weights/checkpoint.hpp"

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace troupe::weights {

/// A GGUF file (v2, v3), mapped and checked. Everything the header says is
/// checked before use: counts against the file's size, strings, types, shapes,
/// offsets, overlap, alignment, duplicates (row W1 of the attack table). What
/// is allocated is bounded: the file's size plus 64 MiB. Format: the GGUF
/// specification of the ggml project.
///
/// The mapping is private and read-only, and the size is taken once, at open.
/// What that does not protect from: a file that another process changes while
/// it is mapped shows the new bytes, and one that it cuts short raises SIGBUS
/// at the first touch of a missing page. Replace model files by rename, never
/// in place; `changed()` tells afterwards whether somebody did not.
class gguf_file : public checkpoint {
public:
  static result<std::unique_ptr<gguf_file>>
  open(const std::filesystem::path& path);

  /// Parses from memory; for tests and the fuzz target. `data` must outlive it.
  static result<std::unique_ptr<gguf_file>>
  parse(std::span<const std::byte> data, std::string name);

  ~gguf_file() override;

  const metadata_value* find(std::string_view key) const override;
  const tensor* find_tensor(std::string_view name) const override;
  std::span<const tensor> tensors() const override;
  const std::string& name() const override;

  /// SHA-256 over the SHA-256 digests of the file's 1 MiB chunks.
  std::string content_hash(int threads) const override;

  /// By the file's size and time of change. Always false for a file parsed from
  /// memory.
  bool changed() const override;

private:
  gguf_file();
  struct state;
  std::unique_ptr<state> state_;
};

} // namespace troupe::weights
