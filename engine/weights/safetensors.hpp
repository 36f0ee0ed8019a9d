#pragma once

#include "engine/codec/error.hpp"
#include "engine/weights/mapped_file.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::weights {

/// How safetensors stores elements; all but `boolean` little-endian.
enum class stored_type : std::uint8_t {
  f64,
  f32,
  f16,
  bf16,
  f8_e4m3,
  f8_e5m2,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean,
};

/// safetensors' name of a type ("BF16"), and its bytes per element.
std::string_view name_of(stored_type type);
std::size_t size_of(stored_type type);

/// A tensor as a safetensors file holds it: `shape[0]` is the outermost
/// dimension, none is a scalar. `bytes` live as long as the mapping.
struct stored_tensor {
  std::string name;
  stored_type type = stored_type::f32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;

  std::int64_t elements() const;
};

/// Reads the header of a safetensors file (format: the safetensors project's
/// README) and checks everything that it says: sizes against the file's, types,
/// shapes, no duplicates, no holes, no overlap (row W2 of the attack table). A
/// header above 5 MiB (json_document) is no model's and refused, one above the
/// format's own 100 MB as corrupt. `name` begins the messages.
result<std::vector<stored_tensor>>
parse_safetensors(std::span<const std::byte> data, const std::string& name);

/// The safetensors files of a model's directory, mapped: "model.safetensors",
/// or the shards of "model.safetensors.index.json". Every tensor is in the one
/// shard that the index says and in no other. gguf.hpp says what a mapping does
/// not protect from. Symbolic links are followed: the hub's cache consists of
/// them.
class safetensors_set {
public:
  static result<safetensors_set> open(const std::filesystem::path& directory);

  /// In the order of their names.
  std::span<const stored_tensor> tensors() const {
    return tensors_;
  }

  /// Null if there is none.
  const stored_tensor* find(std::string_view name) const;

  /// Of all files, in the order of their names (tree_hash.hpp).
  std::string content_hash(int threads) const;

  /// True if a file is no longer what it was when it was opened.
  bool changed() const;

private:
  result<void> open_shard(const std::filesystem::path& path);
  result<void> open_index(const std::filesystem::path& directory);

  std::vector<mapped_file> files_;
  std::vector<stored_tensor> tensors_;
};

} // namespace troupe::weights
