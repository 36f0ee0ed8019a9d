#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

/// Hugging Face's directories in the words of GGUF (engine/weights/
/// checkpoint.hpp). What differs from family to family stands in a table; one
/// reader interprets every row.
namespace troupe::model::hugging_face {

/// What a key of config.json holds.
enum class value_kind : std::uint8_t {
  whole,
  real,
  flag,
  text,
  inverse_root, ///< a number x above 0 that stands for 1 / sqrt(x)
};

/// A key of config.json and the metadata key that it becomes, without its
/// "<architecture>." prefix. A key that is missing or null takes `otherwise`,
/// transformers' default; without one it is left out, or refused if `required`.
struct key_row {
  std::string_view from;
  std::string_view to;
  value_kind kind = value_kind::whole;
  bool required = false;
  std::optional<double> otherwise = {};
};

/// A key of config.json that has to have one of these values, spelled as in the
/// file without quotes ("silu", "false", "1"), since anything else would have
/// to be computed otherwise. A missing or null one is fine.
struct demand_row {
  std::string_view key;
  std::vector<std::string_view> allowed;
};

/// How the elements of a module's tensors differ between the formats.
enum class change : std::uint8_t {
  none,
  plus_one, ///< GGUF holds w + 1 (Gemma's norms)
  cut,      ///< GGUF lacks the rows up to the padding's (RoBERTa's positions)
};

/// A module of the checkpoint and GGUF's name for it, both without the last
/// part (".weight", ".bias"). A '*' stands for a number, the same one in both.
/// A second one in `from` alone counts the parts of a stack (experts): GGUF has
/// them in one tensor, the number as its outermost dimension. An empty `to`
/// drops what transformers does not read.
struct module_row {
  std::string_view from;
  std::string_view to;
  change how = change::none;
};

/// A family. Keys of config.json that stand in no row mean nothing: the
/// family's code in transformers does not read them.
struct family {
  std::string_view model_type; ///< "llama"
  /// Of "architectures": "LlamaForCausalLM". A model type has a row for each;
  /// the first holds if config.json names none.
  std::string_view class_name;
  std::string_view architecture; ///< GGUF's "general.architecture"
  std::vector<key_row> keys;     ///< beside `common_keys`, and instead of them
  std::vector<demand_row> demands;
  std::vector<module_row> modules; ///< beside `common_modules`
  bool tied = false; ///< tie_word_embeddings if config.json does not say it
  double rope_base = 10000; ///< rope_theta if config.json does not say it
  /// Published with code of its own ("auto_map") that transformers has taken
  /// over since: the code is not needed. Others with an auto_map are refused.
  bool published_with_code = false;
  /// Names of modules may begin so, which is no part of them ("bert.").
  std::string_view prefix = {};
  /// Positions begin after the padding's id, which counts among them.
  bool cut_positions = false;
  bool scores = false; ///< an encoder with a head of scores
};

/// What all families share. A row of the family with the same `from` wins.
const std::vector<key_row>& common_keys();
const std::vector<module_row>& common_modules();

/// The rows of that "model_type".
std::vector<const family*> find_families(std::string_view model_type);

} // namespace troupe::model::hugging_face
