#pragma once

#include "engine/weights/checkpoint.hpp"
#include "engine/weights/safetensors.hpp"

#include <functional>
#include <span>
#include <vector>

/// Tensors for a checkpoint out of those that a safetensors file holds.
namespace troupe::weights {

/// Writes all elements of a tensor to `out`, which has their size. Any thread.
using tensor_writer = std::function<result<void>(std::span<std::byte> out)>;

/// Makes the scales of a tensor in e4m3, or refuses it if a code in it is no
/// number. Any thread.
using scale_maker = std::function<result<std::vector<float>>()>;

/// A tensor without a name. `write` is empty if its bytes are the file's own,
/// `scales` if it is not e4m3.
struct made_tensor {
  tensor out;
  tensor_writer write;
  scale_maker scales = {};
};

/// The elements of a stored F32, F16 or BF16 tensor as floats, exactly. Refuses
/// other types by name.
result<std::vector<float>> floats_of(const stored_tensor& stored);

/// A stored F32, F16 or BF16 matrix as it lies in the file, its dimensions in
/// GGUF's order. Refuses other types and matrices without elements by name.
result<made_tensor> stored_matrix(const stored_tensor& stored);

/// Matrices of one type and shape as one tensor, one after the other. Refuses
/// matrices that differ.
result<made_tensor> stack(std::vector<made_tensor> parts);

} // namespace troupe::weights
