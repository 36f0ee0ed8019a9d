#include "engine/model/hugging_face/sentence_files.hpp"

#include "engine/model/architecture.hpp"
#include "engine/model/hugging_face/json_fields.hpp"
#include "engine/weights/text_file.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <optional>
#include <string>
#include <utility>

namespace troupe::model::hugging_face {

namespace {

namespace fs = std::filesystem;
namespace dom = simdjson::dom;
using weights::printable;

/// GGUF's numbers of poolings (model_config.cpp).
enum pooling_type : std::int64_t { of_mean = 1, of_first = 2, of_last = 3 };

constexpr std::int64_t length_max = 1 << 28;

/// A file of the directory; nothing if it is not there. `wrapped`: its list
/// becomes the value of "modules".
result<std::optional<weights::json_document>>
read_json(const fs::path& path, const std::string& name, bool wrapped = false) {
  auto text =
      weights::read_text_file_if_there(path, weights::json_document::bytes_max);
  if (!text)
    return text.error();
  if (text->empty())
    return std::optional<weights::json_document>{};
  if (wrapped)
    *text = "{\"modules\": " + *text + "}";
  auto document = weights::json_document::parse(*text, name);
  if (!document)
    return document.error();
  return std::optional{std::move(*document)};
}

class sentence_reader {
public:
  sentence_reader(const fs::path& directory, model_json& out)
      : directory_(directory), out_(out) {
    // nop
  }

  result<void> run() {
    if (auto done = lengths(); !done)
      return done;
    return out_.of->scores ? result<void>{} : modules();
  }

private:
  std::string own(std::string_view key) const {
    return fmt::format("{}.{}", out_.of->architecture, key);
  }

  // -- sentence_bert_config.json ----------------------------------------------

  result<void> lengths() {
    const std::string name = "sentence_bert_config.json";
    auto document = read_json(directory_ / name, name);
    if (!document)
      return document.error();
    if (!*document)
      return {};
    const json_fields fields{(*document)->root(), name + ": "};
    auto lower = fields.flag("do_lower_case", false);
    if (!lower)
      return lower.error();
    if (*lower)
      return fields.wrong("do_lower_case", "is true: not supported yet",
                          errc::unsupported);
    if (!fields.has("max_seq_length"))
      return {};
    auto longest = fields.whole("max_seq_length", 1, length_max);
    if (!longest)
      return longest.error();
    auto& context = out_.metadata[own("context_length")];
    context = std::min(std::get<std::int64_t>(context), *longest);
    return {};
  }

  // -- modules.json -----------------------------------------------------------

  result<void> modules() {
    const std::string name = "modules.json";
    auto document = read_json(directory_ / name, name, true);
    if (!document)
      return document.error();
    if (!*document && out_.headless)
      return error{errc::unsupported,
                   "config.json: architectures names a class that draws no "
                   "tokens, and no modules.json says what else it gives"};
    if (!*document && !find_architecture(out_.of->architecture)->encoder)
      return {};
    out_.metadata[own("pooling_type")] = std::int64_t{of_mean};
    out_.metadata[std::string{weights::normalised_key}] = false;
    if (!*document)
      return {};
    dom::array list;
    if ((*document)->root()["modules"].get(list) ||
        (*document)->root().size() != 1)
      return error{errc::corrupt, name + ": is not a list of modules"};
    std::size_t place = 0;
    for (auto one : list) {
      dom::object object;
      if (one.get(object))
        return error{errc::corrupt, name + ": is not a list of modules"};
      if (auto done = module(json_fields{object, name + ": "}, place++); !done)
        return done;
    }
    if (place < 2)
      return error{errc::unsupported,
                   name + ": names no pooling: not supported yet"};
    return {};
  }

  /// The transformer, the pooling and maybe a normalisation stand in this
  /// order.
  result<void> module(const json_fields& fields, std::size_t place) {
    auto type = fields.text("type");
    auto path = fields.text("path", "");
    if (!type || !path)
      return !type ? type.error() : path.error();
    const auto last = type->substr(type->rfind('.') + 1);
    if (place == 0 && last == "Transformer" && path->empty())
      return {};
    if (place == 1 && last == "Pooling" && is_plain(*path))
      return pooling(*path);
    if (place == 2 && last == "Normalize") {
      out_.metadata[std::string{weights::normalised_key}] = true;
      return {};
    }
    return fields.wrong("type",
                        fmt::format("is '{}' as number {}: not supported yet",
                                    printable(*type), place),
                        errc::unsupported);
  }

  /// The name of a folder in this one.
  static bool is_plain(const std::string& path) {
    return !path.empty() && path != "." && path != ".." &&
           path.find('/') == std::string::npos;
  }

  result<void> pooling(const std::string& folder) {
    const auto name = folder + "/config.json";
    auto document = read_json(directory_ / folder / "config.json", name);
    if (!document)
      return document.error();
    if (!*document)
      return error{errc::not_found, name + ": is missing"};
    const json_fields fields{(*document)->root(), name + ": "};
    auto mode = fields.has("pooling_mode") ? fields.text("pooling_mode")
                                           : flagged_mode(fields);
    if (!mode)
      return mode.error();
    for (auto [word, type] : {std::pair{"mean", of_mean},
                              {"mean_tokens", of_mean},
                              {"cls", of_first},
                              {"cls_token", of_first},
                              {"lasttoken", of_last}})
      if (*mode == word) {
        out_.metadata[own("pooling_type")] = std::int64_t{type};
        return {};
      }
    return fields.wrong(
        "pooling_mode",
        fmt::format("is '{}': not supported yet", printable(*mode)),
        errc::unsupported);
  }

  /// The flags "pooling_mode_..." that are set; the mean if there are none.
  static result<std::string> flagged_mode(const json_fields& fields) {
    constexpr std::string_view prefix = "pooling_mode_";
    std::string out;
    bool any = false;
    for (auto key : fields.keys()) {
      if (!key.starts_with(prefix))
        continue;
      any = true;
      auto set = fields.flag(key, false);
      if (!set)
        return set.error();
      if (*set)
        out +=
            (out.empty() ? "" : "+") + std::string{key.substr(prefix.size())};
    }
    return any ? out : "mean";
  }

  const fs::path& directory_;
  model_json& out_;
};

} // namespace

result<void> read_sentence_files(const fs::path& directory,
                                 model_json& config) {
  return sentence_reader{directory, config}.run();
}

} // namespace troupe::model::hugging_face
