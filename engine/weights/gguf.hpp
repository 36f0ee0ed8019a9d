#pragma once

#include "engine/weights/checkpoint.hpp"

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::weights {

/// A GGUF file as bytes; `data` must outlive what is made of it.
struct gguf_bytes {
  std::span<const std::byte> data;
  std::string name; ///< for messages
};

/// A model in a GGUF file (v2, v3), or in several that it is split over, mapped
/// and checked. Everything the header says is
/// checked before use: counts against the file's size, strings, types, shapes,
/// offsets, overlap, alignment, duplicates (row W1 of the attack table). What
/// is allocated is bounded: the files' size plus 64 MiB. Format: the GGUF
/// specification of the ggml project.
///
/// Of a split model every file has its number (metadata `split.no`, from 0),
/// the number of files and of all tensors; the first has the model's metadata,
/// which later ones may repeat. Anything else is an error that names the file.
///
/// The mapping is private and read-only, and the size is taken once, at open.
/// What that does not protect from: a file that another process changes while
/// it is mapped shows the new bytes, and one that it cuts short raises SIGBUS
/// at the first touch of a missing page. Replace model files by rename, never
/// in place; `changed()` tells afterwards whether somebody did not.
class gguf_file : public checkpoint {
public:
  /// A name that ends in -00002-of-00003.gguf is that of one file of three: all
  /// of them are opened, whichever is named.
  static result<std::unique_ptr<gguf_file>>
  open(const std::filesystem::path& path);

  /// Parse from memory, for tests and the fuzz target: all files of a model, in
  /// order, or its only one.
  static result<std::unique_ptr<gguf_file>>
  parse(std::vector<gguf_bytes> files);
  static result<std::unique_ptr<gguf_file>>
  parse(std::span<const std::byte> data, std::string name);

  ~gguf_file() override;

  const metadata_value* find(std::string_view key) const override;
  const tensor* find_tensor(std::string_view name) const override;
  std::span<const tensor> tensors() const override;
  /// The only or first file's.
  const std::string& name() const override;

  /// `tree_hash` of the file; of several files `tree_hash` of their hashes, as
  /// hex digits one after the other.
  std::string content_hash(int threads) const override;

  /// By the files' sizes and times of change. Always false for what was parsed
  /// from memory.
  bool changed() const override;

private:
  gguf_file();
  struct state;
  std::unique_ptr<state> state_;
};

} // namespace troupe::weights
