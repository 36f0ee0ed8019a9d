#pragma once

#include "engine/codec/error.hpp"
#include "engine/ops/tensor.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace troupe::weights {

/// One tensor of a model file. `shape[0]` is the contiguous dimension (inputs),
/// as GGUF writes it. `bytes` live as long as the checkpoint.
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

/// The weights and the metadata of one model, whatever files they come from, in
/// the words of GGUF: its names of tensors ("blk.0.attn_q.weight") and of
/// metadata ("llama.block_count"). A reader of another format translates when
/// it opens its files, so that one reader of configurations serves all.
class checkpoint {
public:
  virtual ~checkpoint() = default;

  /// Null if there is none.
  virtual const metadata_value* find(std::string_view key) const = 0;
  virtual const tensor* find_tensor(std::string_view name) const = 0;

  virtual std::span<const tensor> tensors() const = 0;

  /// For messages: the file's or directory's name.
  virtual const std::string& name() const = 0;

  /// Digest of all that decides what the model computes, part of the arithmetic
  /// class; 64 hex digits. Reads everything once, on `threads` threads.
  virtual std::string content_hash(int threads) const = 0;

  /// True if a file is no longer what it was when it was opened.
  virtual bool changed() const = 0;
};

} // namespace troupe::weights
