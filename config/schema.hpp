#pragma once

#include "config/map_reader.hpp"
#include "config/serve_config.hpp"

#include <filesystem>

// The readers of the schema's parts, one function each; findings go to the
// value's diagnostics. Internal to config/.

namespace troupe::config {

llm_config read_llm_config(const located&);
deployment_config read_deployment_config(const located&);
/// Without `max_replicas` it is `default_max`.
autoscaling_config read_autoscaling_config(const located&,
                                           std::uint32_t default_max);
request_router_config read_request_router(const located&);
engine_kwargs read_engine_kwargs(const located&);

/// Reads accelerator_type, accelerator_config and placement_group_config of the
/// model whose map is `in`. Whether its bundle stands for those of all ranks.
bool read_resources(map_reader& in, llm_config& out);

/// The amount of the resource `name`; nothing, with an error, if either is bad.
std::optional<double> read_resource(const std::string& name,
                                    const located& amount);

/// Why there is no YAML file at that path, a folder, say; empty if there is
/// one.
std::string why_no_file(const std::filesystem::path&);

/// A YAML document; undefined with an error (its position in it) if the file
/// cannot be read, is too large or is not YAML.
located open_yaml(const std::filesystem::path& file, diagnostics&);

/// The same from memory; findings name `name`.
located parse_yaml(const std::string& text, const std::string& name,
                   diagnostics&);

/// JSON writes a character beyond U+FFFF as two escapes (\uD83D\uDE00), which
/// YAML does not know: puts the character there instead.
std::string whole_characters(const std::string& json);

/// A document whose scalars are in normal form (located::replace) as JSON.
std::string to_json(const YAML::Node&);

/// `path` as the file `named_in` means it: relative to that file's folder.
std::filesystem::path beside(const std::string& named_in,
                             const std::string& path);

} // namespace troupe::config
