#pragma once

#include "actors/controller/scaling.hpp"
#include "actors/protocol/node_messages.hpp"
#include "engine/codec/error.hpp"
#include "engine/codec/tagged.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace troupe::controller {

/// A deployment as it was stored.
struct stored_deployment {
  std::uint64_t version = 0; ///< 1, 2, ...
  codec::bytes record;
};

/// What the head must not forget, in one SQLite file (mode 0600). A write is on
/// disk when the call returns; a failed one leaves the file as it was. One
/// process at a time; one thread.
class state_store {
public:
  /// Opens or makes the file; its folder exists. An error if it is no store, of
  /// a newer version, or in use by another process.
  static result<std::unique_ptr<state_store>>
  open(const std::filesystem::path& file);

  virtual ~state_store() = default;

  /// Stores the record as the newest deployment and gives its version; a record
  /// equal to the newest keeps that one's.
  virtual result<std::uint64_t> save(codec::bytes_view record) = 0;

  /// The newest deployment, if there is one.
  virtual result<std::optional<stored_deployment>> latest() = 0;

  /// Raises the head's epoch and gives it: 1, 2, ... Once per start of a head.
  virtual result<std::uint64_t> next_epoch() = 0;

  /// The nodes to wait for after a restart.
  virtual result<void> remember_nodes(const std::vector<std::string>&) = 0;
  virtual result<std::vector<std::string>> remembered_nodes() = 0;

  /// How many replicas scaled models are to have after a restart.
  virtual result<void> remember_targets(const std::vector<scale_target>&) = 0;
  virtual result<std::vector<scale_target>> remembered_targets() = 0;

  /// The nodes that the provider was or is about to be asked for.
  virtual result<void>
  remember_asked(const std::vector<protocol::asked_node>&) = 0;
  virtual result<std::vector<protocol::asked_node>> asked_nodes() = 0;
};

} // namespace troupe::controller
