#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace troupe::client {

/// What the requests of a conversation have in common.
struct conversation_settings {
  std::string model;
  std::string system;       ///< none if empty
  double temperature = -1;  ///< below 0 = the service's
  long long max_tokens = 0; ///< 0 = the service's
};

/// The turns of a conversation with a model.
class conversation {
public:
  explicit conversation(conversation_settings settings)
      : settings_(std::move(settings)) {
    // nop
  }

  conversation_settings& settings() {
    return settings_;
  }

  /// The body of a streamed chat completion with all turns so far and `said`
  /// as the next one.
  std::string request_for(std::string_view said) const;

  /// A turn of the user's and what came back, be it only a part.
  void keep(std::string said, std::string answered);

  /// Forgets all turns.
  void clear();

private:
  struct turn {
    std::string said;
    std::string answered;
  };

  conversation_settings settings_;
  std::vector<turn> turns_;
};

/// The new text in an event of a streamed chat completion; empty if it has
/// none. An event that tells of an error gives its sentence in `failure`.
std::string text_of_event(std::string_view data, std::string& failure);

} // namespace troupe::client
