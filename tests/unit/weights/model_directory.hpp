#pragma once

#include "tests/unit/weights/gguf_builder.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace troupe::test {

/// A safetensors file: the header's length, the header, the tensors' bytes.
inline std::string safetensors_file(std::string_view header,
                                    std::string_view data) {
  return byte_writer{}.string(header).raw(data).bytes();
}

/// A directory for a model's files that goes away with this object.
class model_directory {
public:
  model_directory() {
    char name[] = "/tmp/troupe-model-XXXXXX";
    if (!::mkdtemp(name))
      throw std::runtime_error{"no temporary directory"};
    path_ = name;
  }

  model_directory(const model_directory&) = delete;

  ~model_directory() {
    std::filesystem::remove_all(path_);
  }

  std::filesystem::path write(const std::string& name,
                              std::string_view content) const {
    std::ofstream out{path_ / name, std::ios::binary};
    out << content;
    return path_ / name;
  }

  void link(const std::string& name, const std::string& to) const {
    std::filesystem::create_symlink(to, path_ / name);
  }

  void copy_from(const std::filesystem::path& other) const {
    std::filesystem::copy(other, path_);
  }

  const std::filesystem::path& path() const {
    return path_;
  }

private:
  std::filesystem::path path_;
};

} // namespace troupe::test
