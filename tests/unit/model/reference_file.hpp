#pragma once

#include "engine/sampling/sampling_params.hpp"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace troupe::test {

/// One sequence of a .ref file (tests/reference/README.md): its ids and, for
/// every position, the reference's best ids and their logits, best first.
struct reference_sequence {
  std::size_t prompt_length = 0;
  std::vector<token_id> ids;
  std::vector<token_id> best; ///< [ids.size()][top_k]
  std::vector<float> logits;  ///< [ids.size()][top_k]
};

struct reference_file {
  std::size_t top_k = 0;
  std::size_t vocabulary = 0;
  std::vector<reference_sequence> sequences;
};

class reference_reader {
public:
  explicit reference_reader(const std::filesystem::path& path) {
    std::ifstream in{path, std::ios::binary};
    bytes_.assign(std::istreambuf_iterator<char>{in}, {});
  }

  reference_file run() {
    if (take<char>(8) !=
        std::vector<char>{'T', 'R', 'P', 'R', 'E', 'F', '0', '1'})
      throw std::runtime_error{"not a reference file"};
    reference_file out;
    out.sequences.resize(number());
    out.top_k = number();
    out.vocabulary = number();
    for (auto& one : out.sequences) {
      one.prompt_length = number();
      auto length = number();
      one.ids = take<token_id>(length);
      one.best = take<token_id>(length * out.top_k);
      one.logits = take<float>(length * out.top_k);
    }
    return out;
  }

private:
  std::size_t number() {
    return take<std::uint32_t>(1).front();
  }

  template <class T>
  std::vector<T> take(std::size_t count) {
    if (count * sizeof(T) > bytes_.size() - at_)
      throw std::runtime_error{"reference file missing or cut short"};
    std::vector<T> out(count);
    std::memcpy(out.data(), bytes_.data() + at_, count * sizeof(T));
    at_ += count * sizeof(T);
    return out;
  }

  std::string bytes_;
  std::size_t at_ = 0;
};

/// TROUPE_SOURCE names the tree on a machine that did not build it.
inline std::filesystem::path reference_folder() {
  const char* moved = std::getenv("TROUPE_SOURCE");
  return std::filesystem::path{moved != nullptr ? moved : TROUPE_SOURCE_DIR} /
         "tests" / "reference";
}

inline reference_file read_reference(const std::string& name) {
  return reference_reader{reference_folder() / name}.run();
}

} // namespace troupe::test
