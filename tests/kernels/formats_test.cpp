#include "kernel_fixture.hpp"

#include "engine/weights/gguf.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <numeric>

using namespace troupe;
using namespace troupe::ops;
using namespace troupe::ops::test;

namespace {

/// The type's row of tests/reference/fixtures/formats.gguf: what `gguf` from
/// PyPI made of random blocks.
std::vector<float> expected_values(const weights::gguf_file& file,
                                   element_type type) {
  const auto* tensor = file.find_tensor(std::string{name_of(type)} + ".values");
  REQUIRE(tensor);
  std::vector<float> values(tensor->bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor->bytes.data(), tensor->bytes.size());
  return values;
}

} // namespace

TEST_CASE("every format means what its reference says, bit for bit") {
  const auto file =
      weights::gguf_file::open(std::string{TROUPE_SOURCE_DIR} +
                               "/tests/reference/fixtures/formats.gguf");
  REQUIRE(file.has_value());
  for (auto& each : backends())
    for (const auto type : all_types) {
      if (!quantised(type))
        continue;
      INFO(each.name << " " << name_of(type));
      const auto* tensor = (*file)->find_tensor(name_of(type));
      REQUIRE(tensor);
      REQUIRE(tensor->type == type);
      const matrix_view views[] = {tensor->matrix()};
      const auto w = each.ops->load(views).value();
      std::vector<std::int32_t> ids(w->rows());
      std::iota(ids.begin(), ids.end(), 0);
      auto rows = poisoned(w->rows() * w->cols());
      each.ops->embed(*w, ids, rows.data());
      CHECK(same_bits(rows, expected_values(**file, type)));
    }
}

TEST_CASE("a weight takes about the memory that it has in the file") {
  random_numbers random{40};
  const auto ops = best_backend(1);
  for (const auto type : all_types) {
    const auto m = random_matrix(type, 32, 512, random);
    const matrix_view views[] = {m.view()};
    const auto bits = 8.0 * ops->load(views).value()->bytes() / (32 * 512);
    const auto layout = layout_of(type);
    const auto in_file = 8.0 * layout.bytes / layout.elements;
    INFO(name_of(type));
    CHECK(bits >= in_file);
    CHECK(bits < in_file + 0.2);
  }
}
