#include "engine/model/model_source.hpp"

#include "engine/weights/split_files.hpp"

#include <fmt/format.h>
#include <set>
#include <string>
#include <system_error>

namespace troupe::model {

namespace {

namespace fs = std::filesystem;

struct directory_content {
  std::set<fs::path> gguf; ///< of a model split over several the first file
  bool config = false;     ///< config.json
  bool safetensors = false;
  bool pickled = false;
};

directory_content content_of(const fs::path& directory, std::error_code& why) {
  directory_content out;
  fs::directory_iterator entry{directory, why};
  for (; !why && entry != fs::directory_iterator{}; entry.increment(why)) {
    auto extension = entry->path().extension();
    if (extension == ".gguf")
      out.gguf.insert(weights::first_split_file(entry->path()));
    out.config = out.config || entry->path().filename() == "config.json";
    out.safetensors = out.safetensors || extension == ".safetensors";
    out.pickled = out.pickled || extension == ".bin" || extension == ".pth" ||
                  extension == ".pt";
  }
  return out;
}

result<fs::path> model_in(const fs::path& directory) {
  std::error_code why;
  auto content = content_of(directory, why);
  if (why)
    return error{errc::io,
                 fmt::format("model '{}': cannot read the directory: {}",
                             directory.string(), why.message())};
  if (content.gguf.size() == 1)
    return *content.gguf.begin();
  if (content.gguf.size() > 1)
    return error{errc::invalid_argument,
                 fmt::format("model '{}': the directory holds {} .gguf models; "
                             "name one of them",
                             directory.string(), content.gguf.size())};
  if (content.config && content.safetensors)
    return directory;
  auto refused = [&](errc code, const char* what) {
    return error{code, fmt::format("model '{}': {}", directory.string(), what)};
  };
  if (content.safetensors)
    return refused(errc::not_found, "no config.json beside the safetensors");
  if (content.pickled)
    return refused(errc::unsupported,
                   "pickled weights can hold code and are never read; save "
                   "the model as safetensors");
  return refused(errc::not_found,
                 "neither a .gguf file nor safetensors in the directory");
}

} // namespace

result<fs::path> resolve_model_source(const fs::path& path) {
  std::error_code why;
  auto status = fs::status(path, why);
  if (!fs::exists(status))
    return error{
        errc::not_found,
        fmt::format("model '{}': no such file or directory", path.string())};
  if (fs::is_directory(status))
    return model_in(path);
  if (path.extension() == ".safetensors")
    return error{errc::unsupported,
                 fmt::format("model '{}': name the directory, which has "
                             "config.json too",
                             path.string())};
  if (path.extension() != ".gguf")
    return error{errc::unsupported,
                 fmt::format("model '{}': not a .gguf file", path.string())};
  return path;
}

} // namespace troupe::model
