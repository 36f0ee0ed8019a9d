#pragma once

#include "engine/codec/error.hpp"
#include "engine/codec/tagged.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace troupe::node_agent {

/// What the processes of replicas leave for each other before they are
/// connected: words under keys, by the incarnation of their start.
class rank_meetings {
public:
  static constexpr std::size_t keys_max = 1024;        ///< of a replica
  static constexpr std::size_t bytes_max = 256u << 10; ///< of a word
  static constexpr std::size_t waiting_max = 1024;     ///< of a replica

  using answer = std::function<void(result<codec::bytes>)>;

  void open(std::uint64_t incarnation);

  /// Who waits there hears that the replica has ended.
  void close(std::uint64_t incarnation);

  /// Whoever waits for it gets it. Errors: not open; a key that has a word
  /// already; too much.
  result<void> put(std::uint64_t incarnation, const std::string& key,
                   codec::bytes word);

  /// Calls back, at once or when the word is there.
  void get(std::uint64_t incarnation, const std::string& key, answer done);

private:
  struct meeting {
    std::map<std::string, codec::bytes> words;
    std::multimap<std::string, answer> waiting;
  };

  std::map<std::uint64_t, meeting> meetings_;
};

} // namespace troupe::node_agent
