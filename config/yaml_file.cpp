#include "config/schema.hpp"

#include <fmt/format.h>
#include <fstream>
#include <sstream>

namespace troupe::config {

namespace {

constexpr std::uintmax_t file_bytes_max = 4u << 20;

} // namespace

std::filesystem::path beside(const std::string& named_in,
                             const std::string& path) {
  std::filesystem::path given{path};
  if (given.is_absolute())
    return given.lexically_normal();
  std::error_code code;
  auto folder = std::filesystem::absolute(named_in, code).parent_path();
  return (folder / given).lexically_normal();
}

std::string why_no_file(const std::filesystem::path& file) {
  std::error_code code;
  if (std::filesystem::is_directory(file, code))
    return "is a folder; a YAML file is expected";
  return std::filesystem::is_regular_file(file, code) ? "" : "no such file";
}

located open_yaml(const std::filesystem::path& file, diagnostics& findings) {
  located out{YAML::Node{YAML::NodeType::Undefined}, file.string(), "",
              &findings};
  if (auto why = why_no_file(file); !why.empty()) {
    out.error(why);
    return out;
  }
  std::error_code code;
  auto size = std::filesystem::file_size(file, code);
  if (code || size > file_bytes_max) {
    out.error(fmt::format("larger than {} MiB, or not readable",
                          file_bytes_max >> 20));
    return out;
  }
  std::ifstream stream{file, std::ios::binary};
  std::stringstream text;
  text << stream.rdbuf();
  if (!stream) {
    out.error("cannot be read");
    return out;
  }
  return parse_yaml(text.str(), file.string(), findings);
}

located parse_yaml(const std::string& text, const std::string& name,
                   diagnostics& findings) {
  located out{YAML::Node{YAML::NodeType::Undefined}, name, "", &findings};
  try {
    out.node = YAML::Load(text);
  } catch (const YAML::Exception& e) {
    findings.error({out.file, e.mark.line + 1, e.mark.column + 1}, "",
                   "not valid YAML: " + e.msg);
    return out;
  }
  if (!out.present())
    out.error("is empty");
  return out;
}

} // namespace troupe::config
