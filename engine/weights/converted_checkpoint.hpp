#pragma once

#include "engine/weights/checkpoint.hpp"

#include <memory>
#include <string_view>

namespace troupe::weights {

/// What matrices of floats become when they are loaded.
enum class matrix_form : std::uint8_t {
  as_stored,
  f32,
  f16,
  bf16,
  q8_0,
  q4_0,
  e4m3
};

/// Shows `inner` with its F32, F16 and BF16 matrices in another form (`inner`
/// itself if that changes nothing); they are
/// converted one by one as they are read (quantise.hpp). What is quantised
/// already stays, and so do vectors, the matrices that choose experts
/// ("ffn_gate_inp") and, for the quantised forms, matrices whose rows are not
/// whole blocks of 32. With `f32` only BF16 changes, whose products round their
/// inputs on a CPU; those of F16 do not. With `q4_0` tables of embeddings and
/// output layers become Q8_0: errors there weigh most. With `e4m3` those stay
/// as they are, and all others keep their elements: the backend is asked to
/// round them (ops::matrix_view::as_e4m3).
std::unique_ptr<checkpoint> convert_matrices(std::unique_ptr<checkpoint> inner,
                                             matrix_form form);

} // namespace troupe::weights
