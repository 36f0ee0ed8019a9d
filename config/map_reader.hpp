#pragma once

#include "config/diagnostics.hpp"
#include "config/serve_config.hpp"

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace troupe::config {

/// A YAML value with its file and key path, and where findings about it go.
struct located {
  YAML::Node node;
  std::string file;
  std::string path;
  diagnostics* findings = nullptr;
  position absent = {}; ///< where to point if there is no node: its map
  purpose read_for = purpose::run;

  position where() const;
  void error(std::string message) const;
  void note(std::string message) const;
  bool present() const; ///< defined and not null

  /// Puts the normal form of a value in its place (a number as JSON has it, a
  /// file's contents for its name), for to_json.
  void replace(const std::string& text) const;
};

/// Bounds of a number, both included.
struct bounds {
  double low;
  double high;
};

/// Reads the keys of one map, each typed and checked; a key that nobody asked
/// for is an error with a suggestion when the reader goes away. A null value
/// counts as absent.
class map_reader {
public:
  /// Anything but a map is an error (and reads as empty).
  explicit map_reader(located value);
  map_reader(const map_reader&) = delete;
  map_reader& operator=(const map_reader&) = delete;
  ~map_reader();

  /// Marks `key` as known and returns its value.
  located take(std::string_view key);

  std::optional<std::string> text(std::string_view key);
  std::optional<bool> boolean(std::string_view key);
  std::optional<std::int64_t> integer(std::string_view key, bounds);
  std::optional<double> number(std::string_view key, bounds);

  /// One of `allowed`, spelled exactly.
  std::optional<std::string>
  choice(std::string_view key, std::initializer_list<std::string_view> allowed);

  /// A valid key of Ray's that is not built: an error by name if it is there.
  void refuse(std::string_view key, std::string_view why);
  void refuse(std::string_view key);
  void refuse(std::initializer_list<std::string_view> keys);

  /// Accepts `key` only with this value, which is what happens anyway.
  void only(std::string_view key, bool value, std::string_view otherwise);

  /// The elements of a list; anything else is an error.
  std::vector<located> list(std::string_view key);

  const located& whole() const {
    return value_;
  }

private:
  located value_;
  std::vector<std::string_view> known_;
};

// Scalars by themselves, with the error on a mismatch.
std::optional<std::string> read_text(const located&);
std::optional<bool> read_boolean(const located&);
std::optional<std::int64_t> read_integer(const located&, bounds);
std::optional<double> read_number(const located&, bounds);

} // namespace troupe::config
