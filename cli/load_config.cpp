#include "cli/load_config.hpp"

#include "engine/text/chat_template.hpp"

#include <fmt/format.h>

#include <cstdio>

namespace troupe::cli {

config::loaded_config load_config(const std::filesystem::path& file,
                                  config::purpose purpose) {
  auto loaded = config::load(file, purpose);
  for (const auto& application : loaded.values.applications)
    for (const auto& model : application.models) {
      const auto& engine = model.engine;
      if (engine.chat_template.empty())
        continue;
      auto made = text::chat_template::compile(engine.chat_template);
      if (!made)
        loaded.findings.error(engine.chat_template_at,
                              engine.chat_template_path, made.error().message);
    }
  loaded.findings.sort();
  return loaded;
}

bool report(const config::diagnostics& findings) {
  using kind = config::diagnostic::kind;
  auto errors = findings.error_count();
  for (const auto& finding : findings.all())
    if (finding.what == (errors != 0 ? kind::error : kind::note))
      fmt::print(stderr, "{}\n", to_string(finding));
  if (errors != 0)
    fmt::print(stderr, "{} error{}\n", errors, errors == 1 ? "" : "s");
  return errors == 0;
}

} // namespace troupe::cli
