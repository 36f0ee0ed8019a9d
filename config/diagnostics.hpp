#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::config {

/// Where in which file a value stands; lines and columns count from 1, 0 = the
/// file as a whole.
struct position {
  std::string file;
  int line = 0;
  int column = 0;
};

/// One finding about a configuration.
struct diagnostic {
  enum class kind {
    error, ///< the file is refused
    note,  ///< accepted, with a meaning that the user should know
  };

  kind what = kind::error;
  position where;
  std::string path; ///< "applications[0].args.llm_configs[1].engine_kwargs"
  std::string message;
};

/// All findings of one pass. Bounded: past
/// `findings_max` only the count goes on.
class diagnostics {
public:
  static constexpr std::size_t findings_max = 200;

  void error(position, std::string path, std::string message);
  void note(position, std::string path, std::string message);

  /// Brings the findings into the order of file, line and column.
  void sort();

  bool has_errors() const {
    return errors_ != 0;
  }

  std::size_t error_count() const {
    return errors_;
  }

  const std::vector<diagnostic>& all() const {
    return all_;
  }

private:
  void add(diagnostic);

  std::vector<diagnostic> all_;
  std::size_t errors_ = 0;
};

/// "file.yaml:12:7", or the file alone.
std::string to_string(const position&);

/// "file.yaml:12:7: applications[0].name: must not be empty".
std::string to_string(const diagnostic&);

/// The candidate that `word` probably means: within two edits (one for words
/// of up to four letters); empty if none is that near.
std::string_view nearest(std::string_view word,
                         const std::vector<std::string_view>& candidates);

} // namespace troupe::config
