#pragma once

#include "actors/protocol/cluster_status.hpp"

#include <map>
#include <string>

namespace troupe::cli {

/// Tells in the terminal how the models come up: a line per model and phase,
/// and while it loads bytes that count up in place if the output is a terminal.
class progress {
public:
  explicit progress(bool terminal) : terminal_(terminal) {
    // nop
  }

  void show(const protocol::cluster_status&);

  /// No model is still on its way: each is ready, pending or given up.
  static bool settled(const protocol::cluster_status&);

private:
  void line(const std::string& model, const std::string& text);
  void moving(const std::string& text);

  bool terminal_;
  bool unfinished_ = false; ///< a moving line stands in the terminal
  std::map<std::string, std::string> shown_; ///< by model: the last line
};

} // namespace troupe::cli
