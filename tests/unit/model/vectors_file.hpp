#pragma once

#include "engine/sampling/sampling_params.hpp"

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace troupe::test {

/// One entry of a .vectors file (tests/reference/README.md).
struct reference_vector {
  std::string text; ///< "-": the ids were drawn
  std::vector<token_id> ids;
  std::uint32_t second_text = 0;
  std::vector<float> vector;
};

inline std::vector<reference_vector> read_vectors(const std::string& name) {
  std::ifstream in{std::filesystem::path{TROUPE_SOURCE_DIR} / "tests" /
                   "reference" / name};
  std::size_t count = 0, size = 0;
  in >> count >> size;
  std::vector<reference_vector> out(count);
  for (auto& one : out) {
    in.ignore(1);
    std::getline(in, one.text);
    std::size_t length = 0;
    in >> length >> one.second_text;
    one.ids.resize(length);
    for (auto& id : one.ids)
      in >> id;
    one.vector.resize(size);
    for (auto& value : one.vector)
      in >> value;
  }
  if (!in || out.empty())
    throw std::runtime_error{name + " is missing or cut short"};
  return out;
}

inline double cosine(const std::vector<float>& a, const std::vector<float>& b) {
  double product = 0, squares_a = 0, squares_b = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    product += double{a[i]} * b.at(i);
    squares_a += double{a[i]} * a[i];
    squares_b += double{b[i]} * b[i];
  }
  return product / std::sqrt(squares_a * squares_b);
}

} // namespace troupe::test
