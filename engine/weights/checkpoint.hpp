#pragma once

#include "engine/codec/error.hpp"
#include "engine/ops/tensor.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace troupe::weights {

/// One tensor of a model file. `shape[0]` is the contiguous dimension (inputs),
/// as GGUF writes it.
struct tensor {
  std::string name;
  ops::element_type type = ops::element_type::f32;
  std::vector<std::int64_t> shape;
  /// Where the elements lie in the checkpoint's memory, as long as it lives.
  /// Empty if they have to be converted first: `checkpoint::read` gives them.
  /// Those of a vector always lie here.
  std::span<const std::byte> bytes;
  bool as_e4m3 = false;        ///< ops::matrix_view has what it means
  std::int64_t row_scales = 1; ///< this too; `read` gives the scales

  /// As a matrix: rows = product of all but shape[0].
  ops::matrix_view matrix() const;

  /// Bytes of the elements, wherever they are.
  std::uint64_t byte_size() const;
};

/// A tensor's elements in memory: a view into the checkpoint's, or converted
/// ones that go with this object; and e4m3's scales.
class tensor_data {
public:
  explicit tensor_data(std::span<const std::byte> view) : bytes_(view) {
    // nop
  }

  explicit tensor_data(std::vector<std::byte> converted)
      : own_(std::move(converted)), bytes_(own_) {
    // nop
  }

  tensor_data(tensor_data&&) noexcept = default;
  tensor_data& operator=(tensor_data&&) noexcept = default;

  std::span<const std::byte> bytes() const {
    return bytes_;
  }

  /// Of e4m3: tensor::row_scales for each row.
  std::vector<float> scales;

private:
  std::vector<std::byte> own_; ///< moving it keeps its elements in place
  std::span<const std::byte> bytes_;
};

/// A metadata value. Integers of every width are widened; arrays hold one type.
using metadata_value =
    std::variant<std::uint64_t, std::int64_t, double, bool, std::string,
                 std::vector<std::string>, std::vector<std::int64_t>,
                 std::vector<double>, std::vector<bool>>;

/// A key that GGUF does not have (boolean): whether rope's pairs of q and k
/// rows are neighbours. Missing: as GGUF's writers order the family's rows.
inline constexpr std::string_view rope_interleaved_key =
    "troupe.rope_interleaved";

/// Another (text): the method that the tensors were quantised with, in Hugging
/// Face's words ("awq"). Missing: none, or GGUF's types.
inline constexpr std::string_view quantisation_key = "troupe.quantisation";

/// Others, of encoders. Whether embeddings have the length 1 (boolean), whether
/// a score is what a sigmoid makes of it (boolean), whether it is made of the
/// mean of all rows (boolean; else of the first): missing, as llama.cpp and
/// sentence-transformers do it by default: true, true, false. What lengths an
/// embedding may be cut to: any (boolean), or some (whole numbers).
inline constexpr std::string_view normalised_key = "troupe.normalised";
inline constexpr std::string_view sigmoid_key = "troupe.sigmoid";
inline constexpr std::string_view score_of_mean_key = "troupe.score_of_mean";
inline constexpr std::string_view matryoshka_key = "troupe.matryoshka";
inline constexpr std::string_view matryoshka_lengths_key =
    "troupe.matryoshka_lengths";

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

  /// The elements of a tensor of this checkpoint, as its type says. Who reads
  /// one after the other needs memory for one. Errors: elements that the type
  /// cannot hold (corrupt). Any thread.
  virtual result<tensor_data> read(const tensor& one) const {
    return tensor_data{one.bytes};
  }

  /// For messages: the file's or directory's name.
  virtual const std::string& name() const = 0;

  /// Digest of all that decides what the model computes, part of the arithmetic
  /// class; 64 hex digits. Reads everything once, on `threads` threads.
  virtual std::string content_hash(int threads) const = 0;

  /// True if a file is no longer what it was when it was opened.
  virtual bool changed() const = 0;
};

} // namespace troupe::weights
