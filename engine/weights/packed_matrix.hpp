#pragma once

#include "engine/weights/made_tensor.hpp"

#include <cstdint>
#include <string>

/// The quantised matrices of Hugging Face's checkpoints as types that the
/// backends compute with. Shapes, types and scales of F8_E4M3 are checked here,
/// elements when they are written, or of e4m3 when its scales are made.
namespace troupe::weights {

/// How four-bit weights are packed in 32-bit words.
enum class int4_packing : std::uint8_t {
  awq,     ///< words along the outputs, AutoAWQ's "gemm" order
  gptq,    ///< words along the inputs; zeros are stored less one
  gptq_v2, ///< the same; zeros are stored as they are
};

/// The tensors of one module, [in][out] with `in` and `out` (of the zeros)
/// divided by eight where they are packed. Inputs share a scale and a zero in
/// groups, one after the other.
struct int4_parts {
  const stored_tensor* weights = nullptr; ///< "qweight", I32
  const stored_tensor* zeros = nullptr;   ///< "qzeros", I32 [groups][out / 8]
  const stored_tensor* scales = nullptr;  ///< "scales", [groups][out]
  const stored_tensor* groups = nullptr; ///< "g_idx", I32 [in]; null = in order
};

/// AWQ's or GPTQ's w = s * (q - z) as Q4_1: d = s, m = -s * z, both F16. Exact
/// where F16 holds them: F16 scales with zeros that are powers of two (8: all
/// symmetric ones); else m is rounded, by at most s / 128. Groups of a multiple
/// of 32 inputs; inputs that are not in the order of their groups
/// ("desc_act") are refused.
result<made_tensor> int4_matrix(const int4_parts& parts, int4_packing packing);

/// An I8 matrix [out][in] with a scale per output, or one for all, as Q8_0: its
/// values are kept, scales are rounded to F16.
result<made_tensor> int8_matrix(const stored_tensor& weights,
                                const stored_tensor& scales);

/// An F8_E4M3 matrix [out][in] with a scale per output, one for all, or one per
/// square of `block` x `block` (0 = none), as F16: value times scale, rounded.
result<made_tensor> fp8_matrix(const stored_tensor& weights,
                               const stored_tensor& scales, std::int64_t block);

/// The same as it is, as e4m3: `block` is 0 or ops::scale_cols.
result<made_tensor> e4m3_matrix(const stored_tensor& weights,
                                const stored_tensor& scales,
                                std::int64_t block);

} // namespace troupe::weights
