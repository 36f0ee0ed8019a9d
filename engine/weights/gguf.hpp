#pragma once

#include "engine/codec/error.hpp"
#include "engine/ops/tensor.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace troupe::weights {

/// One tensor of a model file. `shape[0]` is the contiguous dimension (inputs),
/// as GGUF writes it. `bytes` lie in the mapped file.
struct tensor {
  std::string name;
  ops::element_type type = ops::element_type::f32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;

  /// As a matrix: rows = product of all but shape[0].
  ops::matrix_view matrix() const;
};

/// A metadata value. Integers of every width are widened; arrays hold one type.
using metadata_value =
    std::variant<std::uint64_t, std::int64_t, double, bool, std::string,
                 std::vector<std::string>, std::vector<std::int64_t>,
                 std::vector<double>, std::vector<bool>>;

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
class gguf_file {
public:
  static result<std::unique_ptr<gguf_file>>
  open(const std::filesystem::path& path);

  /// Parses from memory; for tests and the fuzz target. `data` must outlive it.
  static result<std::unique_ptr<gguf_file>>
  parse(std::span<const std::byte> data, std::string name);

  ~gguf_file();

  const metadata_value* find(std::string_view key) const;
  const tensor* find_tensor(std::string_view name) const;
  std::span<const tensor> tensors() const;
  const std::string& name() const; ///< for messages: the file's name

  /// Digest of header and tensor bytes, part of the arithmetic class. Reads the
  /// whole file once, on `threads` threads.
  /// SHA-256 over the SHA-256 digests of its 1 MiB chunks; 64 hex digits.
  std::string content_hash(int threads) const;

  /// True if the file's size or time of change is no longer what it was at
  /// `open`. Always false for a file parsed from memory.
  bool changed() const;

private:
  gguf_file();
  struct state;
  std::unique_ptr<state> state_;
};

} // namespace troupe::weights
