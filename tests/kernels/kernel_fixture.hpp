#pragma once

#include "engine/ops/cpu/cpu_backend.hpp"

#include <bit>
#include <string>
#include <vector>

/// What the kernel tests share: random matrices in every type with their exact
/// values, backends to compare, and the comparison of bits.
namespace troupe::ops::test {

/// Numbers that are the same on every machine.
class random_numbers {
public:
  explicit random_numbers(std::uint64_t seed) : state_(seed * 2 + 1) {
  }
  std::uint32_t bits();
  /// Uniform in [-1, 1).
  float value();
  int below(int n);
  std::vector<float> values(std::int64_t n, float scale = 1);

private:
  std::uint64_t state_;
};

/// A matrix as a file holds it, and what it means.
struct matrix {
  element_type type;
  std::int64_t rows;
  std::int64_t cols;
  std::vector<std::byte> bytes;
  std::vector<double> values; ///< [rows][cols]

  matrix_view view() const {
    return {type, rows, cols, bytes};
  }
};

constexpr element_type all_types[] = {
    element_type::f32,  element_type::f16,  element_type::bf16,
    element_type::q8_0, element_type::q4_0, element_type::q4_1,
    element_type::q5_0, element_type::q5_1, element_type::iq4_nl,
    element_type::q4_k, element_type::q5_k, element_type::q6_k,
    element_type::q3_k, element_type::q2_k,
};

/// `cols` or the next number that is whole blocks of the type.
std::int64_t whole_blocks(element_type type, std::int64_t cols);

const char* name_of(element_type type);

/// Random weights; quantised ones use every stored value, -128 among them.
matrix random_matrix(element_type type, std::int64_t rows, std::int64_t cols,
                     random_numbers& random);

/// A quantised type; every byte of its blocks is `byte`, but its f16 scales and
/// minimums are 1.
matrix filled_matrix(element_type type, std::int64_t rows, std::int64_t cols,
                     std::uint8_t byte);

struct named_backend {
  std::string name;
  std::unique_ptr<backend> ops;
};

/// Every instruction set of this machine (a lacking one is named on the
/// output), with `threads` threads.
std::vector<named_backend> backends(int threads = 1);
std::unique_ptr<backend> plain_backend(int threads = 1);
std::unique_ptr<backend> best_backend(int threads);

/// w applied to rows of x, into a buffer that was full of NaN.
std::vector<float> apply(backend& ops, const weight& w,
                         const std::vector<float>& x, std::int64_t rows);

/// Memory full of NaN, so that what is not written shows.
std::vector<float> poisoned(std::int64_t n);

/// Equal bits; two NaN count as equal.
bool same_bits(const std::vector<float>& a, const std::vector<float>& b);

} // namespace troupe::ops::test
