#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::text {

/// Watches the text of one choice for stop strings and holds back what could
/// begin one. The earliest match in the text wins, among equals the longest:
/// the first that is complete, and of those that end there the longest. So a
/// result never depends on how the text was cut into pushes, and no stop waits
/// for text after it. Holds back less than the longest stop string; a push
/// takes time in proportion to its text. Copies share the table of stops.
class stop_strings {
public:
  /// `include`: a match stays in the output. `stops` are not empty strings.
  stop_strings(std::vector<std::string> stops, bool include);

  /// Takes the next text; appends to `out` what is safe to show. Returns the
  /// index of the stop string once one matched: nothing may be pushed after.
  std::optional<std::size_t> push(std::string_view text, std::string& out);

  /// Appends what was held back, at the end of the choice.
  void finish(std::string& out);

private:
  class automaton;

  std::shared_ptr<const automaton> automaton_; ///< null: nothing to look for
  bool include_;
  std::size_t state_ = 0;
  std::string held_;
};

} // namespace troupe::text
