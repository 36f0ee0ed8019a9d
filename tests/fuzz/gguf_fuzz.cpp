// Fuzz target for the GGUF reader and what is built on it: configuration and
// model card. What does not begin as a GGUF file is taken for a model split
// over two: the first two bytes are the size of the first. Build with clang++
// -fsanitize=fuzzer,address,undefined.

#include "engine/model/model_card.hpp"
#include "engine/model/model_config.hpp"
#include "engine/weights/gguf.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace {

std::vector<troupe::weights::gguf_bytes>
files_in(std::span<const std::byte> data) {
  if (data.size() < 2 || data[0] == std::byte{'G'})
    return {{data, "fuzz.gguf"}};
  const auto wanted = static_cast<std::size_t>(data[0]) +
                      static_cast<std::size_t>(data[1]) * 256;
  data = data.subspan(2);
  const auto size = std::min(wanted, data.size());
  return {{data.first(size), "1.gguf"}, {data.subspan(size), "2.gguf"}};
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  using namespace troupe;
  auto file = weights::gguf_file::parse(
      files_in({reinterpret_cast<const std::byte*>(data), size}));
  if (!file)
    return 0;
  std::uint64_t sum = 0;
  for (const auto& tensor : (*file)->tensors()) {
    auto matrix = tensor.matrix();
    if (!matrix.bytes.empty())
      sum += static_cast<std::uint64_t>(matrix.bytes.front()) +
             static_cast<std::uint64_t>(matrix.bytes.back());
  }
  [[maybe_unused]] volatile auto seen = sum;
  auto config = model::read_model_config(**file);
  if (config)
    (void)model::read_model_card(**file, *config);
  return 0;
}
