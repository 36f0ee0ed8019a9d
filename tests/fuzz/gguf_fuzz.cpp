// Fuzz target for the GGUF reader and what is built on it: configuration and
// model card. Build with clang++ -fsanitize=fuzzer,address,undefined.

#include "engine/model/model_card.hpp"
#include "engine/model/model_config.hpp"
#include "engine/weights/gguf.hpp"

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  using namespace troupe;
  auto file = weights::gguf_file::parse(
      {reinterpret_cast<const std::byte*>(data), size}, "fuzz.gguf");
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
