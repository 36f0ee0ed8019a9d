#pragma once

#include "engine/codec/error.hpp"

#include <filesystem>
#include <string>
#include <string_view>
#include <variant>

namespace troupe::download {

/// A model on a hub: "org/name[@revision][:file]". `file` chooses among the
/// .gguf files of a repository: a name, or a part of one such as "Q4_K_M".
struct hub_reference {
  std::string id; ///< "org/name", or a bare name
  std::string revision = "main";
  std::string file; ///< empty = the rule of file_choice.hpp

  bool operator==(const hub_reference&) const = default;
};

/// All objects below a prefix: "s3://[anonymous@]bucket/prefix[:file]", or
/// gs://. A prefix that ends with ".gguf" is that object.
struct bucket_reference {
  bool is_google = false;
  bool anonymous = false;
  std::string bucket;
  std::string prefix; ///< without slashes at its ends; may be empty
  std::string file;   ///< as of hub_reference

  bool operator==(const bucket_reference&) const = default;
};

/// A path stands for itself.
using model_reference =
    std::variant<std::filesystem::path, hub_reference, bucket_reference>;

/// Reads what a user calls a model. A path is what begins with "/", "." or "~",
/// or ends with ".gguf" and has no colon. Errors: another scheme, a malformed
/// id, bucket, revision or file, each in a sentence.
result<model_reference> parse_model_reference(std::string_view text);

std::string to_string(const model_reference&);

/// True if `name` is a relative path of at most 1024 bytes that stays where it
/// is put: no empty part, "." or "..", no backslash, no control character.
bool is_safe_name(std::string_view name);

} // namespace troupe::download
