#pragma once

#include <string>
#include <vector>

namespace troupe::ops {

/// Where ranks learn each other's addresses before they are connected: each
/// sees the words of all. Any thread.
class rank_meeting {
public:
  virtual ~rank_meeting() = default;

  /// Once per key. Throws std::runtime_error.
  virtual void put(const std::string& key, const std::vector<char>& word) = 0;

  /// Waits until somebody has put it. Throws std::runtime_error if nobody will.
  virtual std::vector<char> get(const std::string& key) = 0;
};

} // namespace troupe::ops
