// Fuzz target for config.json: its translation and the check of the numbers.
// Build with clang++ -fsanitize=fuzzer,address,undefined.

#include "engine/model/hugging_face/config_json.hpp"
#include "engine/model/model_config.hpp"

#include <cstddef>
#include <cstdint>

using namespace troupe;

namespace {

/// A checkpoint that has metadata and an embedding table.
class bare_checkpoint final : public weights::checkpoint {
public:
  explicit bare_checkpoint(model::hugging_face::metadata_map metadata)
      : metadata_(std::move(metadata)) {
    tensors_[0].name = "token_embd.weight";
    tensors_[0].shape = {16, 8};
  }

  const weights::metadata_value* find(std::string_view key) const override {
    auto found = metadata_.find(key);
    return found == metadata_.end() ? nullptr : &found->second;
  }

  const weights::tensor* find_tensor(std::string_view name) const override {
    return name == tensors_[0].name ? &tensors_[0] : nullptr;
  }

  std::span<const weights::tensor> tensors() const override {
    return tensors_;
  }

  const std::string& name() const override {
    return name_;
  }

  std::string content_hash(int) const override {
    return {};
  }

  bool changed() const override {
    return false;
  }

private:
  model::hugging_face::metadata_map metadata_;
  std::vector<weights::tensor> tensors_{1};
  std::string name_ = "fuzz";
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  auto config = model::hugging_face::read_config_json(
      {reinterpret_cast<const char*>(data), size});
  if (!config)
    return 0;
  bare_checkpoint bare{std::move(config->metadata)};
  (void)model::read_model_config(bare);
  return 0;
}
