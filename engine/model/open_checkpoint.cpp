#include "engine/model/open_checkpoint.hpp"

#include "engine/weights/gguf.hpp"

namespace troupe::model {

result<std::unique_ptr<weights::checkpoint>>
open_checkpoint(const std::filesystem::path& source,
                hugging_face::e4m3_matrices how) {
  std::error_code ignored;
  if (std::filesystem::is_directory(source, ignored))
    return hugging_face::open_directory(source, how);
  auto file = weights::gguf_file::open(source);
  if (!file)
    return file.error();
  return std::unique_ptr<weights::checkpoint>{std::move(*file)};
}

} // namespace troupe::model
