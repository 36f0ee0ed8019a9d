#pragma once

#include "config/serve_config.hpp"

#include <catch2/catch.hpp>

#include <cstdlib>
#include <fstream>
#include <string>
#include <unistd.h>

namespace troupe::config_test {

namespace fs = std::filesystem;

/// A folder of its own per test, with a model file in it.
struct folder {
  fs::path path;

  folder() {
    std::string name = (fs::temp_directory_path() / "troupe-config-XXXXXX");
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
    write("model.gguf", "GGUF");
  }

  ~folder() {
    fs::remove_all(path);
  }

  fs::path write(const std::string& name, const std::string& text) const {
    fs::create_directories((path / name).parent_path());
    std::ofstream{path / name} << text;
    return path / name;
  }

  config::loaded_config load(const std::string& text) const {
    return config::load(write("serve.yaml", text));
  }
};

inline std::string findings_of(const config::loaded_config& loaded,
                               config::diagnostic::kind kind) {
  std::string out;
  for (const auto& finding : loaded.findings.all())
    if (finding.what == kind)
      out += to_string(finding) + "\n";
  return out;
}

inline std::string errors_of(const config::loaded_config& loaded) {
  return findings_of(loaded, config::diagnostic::kind::error);
}

inline std::string notes_of(const config::loaded_config& loaded) {
  return findings_of(loaded, config::diagnostic::kind::note);
}

/// A file with one model whose entry is `entry` (indented by ten spaces).
inline std::string with_model(const std::string& entry) {
  return "applications:\n"
         "  - import_path: ray.serve.llm:build_openai_app\n"
         "    args:\n"
         "      llm_configs:\n"
         "        - model_loading_config: {model_id: m, model_source: "
         "model.gguf}\n" +
         entry;
}

inline bool holds(const std::string& text, const std::string& part) {
  INFO(text);
  CHECK(text.find(part) != std::string::npos);
  return text.find(part) != std::string::npos;
}

} // namespace troupe::config_test
