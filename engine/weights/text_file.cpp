#include "engine/weights/text_file.hpp"

#include "engine/weights/mapped_file.hpp"

#include <fmt/format.h>

namespace troupe::weights {

result<std::string> read_text_file(const std::filesystem::path& path,
                                   std::size_t bytes_max) {
  auto too_large = [&] {
    return error{errc::limit, fmt::format("{}: larger than {} bytes",
                                          path.filename().string(), bytes_max)};
  };
  // Mapping a file begins to read it.
  std::error_code unknown;
  auto size = std::filesystem::file_size(path, unknown);
  if (!unknown && size > bytes_max)
    return too_large();
  auto file = mapped_file::open(path);
  if (!file)
    return file.error();
  auto bytes = file->bytes();
  if (bytes.size() > bytes_max)
    return too_large();
  return std::string{reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

result<std::string> read_text_file_if_there(const std::filesystem::path& path,
                                            std::size_t bytes_max) {
  auto text = read_text_file(path, bytes_max);
  if (!text && text.error().code == errc::not_found)
    return std::string{};
  return text;
}

} // namespace troupe::weights
