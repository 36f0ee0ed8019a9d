#pragma once

#include "actors/protocol/request_record.hpp"
#include "actors/protocol/routing_table.hpp"
#include "actors/protocol/token_batch.hpp"
#include "actors/replica/block_list.hpp"
#include "actors/replica/work_by_router.hpp"
#include "engine/engine.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace troupe::replica {

using clock = std::chrono::steady_clock;

struct session_limits {
  std::uint32_t routers_max = 1024;
  /// Choices of all routers together; 0 = `choices_bound`.
  std::uint32_t choices_max = 0;

  static constexpr std::uint32_t choices_bound = 65'536;
  /// With those that were told to end and leave with the engine's next step.
  static constexpr std::uint32_t living_bound = 2 * choices_bound;
};

// What the shell does for the table, in order.
struct submit_choice {
  engine::request request;
};
struct cancel_choice {
  std::uint64_t engine_id = 0;
};
struct send_tokens {
  std::uint64_t router = 0; ///< incarnation
  protocol::token_batch batch;
  /// The protocol version to encode it for.
  std::uint32_t version = protocol::protocol_version;
};
using session_command = std::variant<submit_choice, cancel_choice, send_tokens>;
using session_commands = std::vector<session_command>;

/// Which choices of which routers run in this replica: the replica without its
/// engine, its messages and its clock. Ids towards the engine are the table's
/// own, never used again; (router, record id) is known to routers only.
class session_table {
public:
  /// `version` is the protocol version that the replica speaks.
  session_table(std::string replica, std::uint64_t incarnation,
                session_limits limits,
                std::uint32_t version = protocol::protocol_version);

  /// A router opens a session. Its choices of an older session of the same
  /// incarnation are cancelled, and it hears so over the connection that it had
  /// for them: it may have meant another replica, which listened here before,
  /// or have meant this session to be older than that one, and still count on
  /// them. Errors: a
  /// protocol version more than one apart, too many routers.
  result<session_commands> attach(std::uint64_t router, std::uint32_t version);

  /// What is said to who sent an encoded request_record for a router that has
  /// no session over this connection: over none, or over another one.
  /// Connections may be lost and made anew in ways that the two ends see in
  /// different orders; without a word the router would wait for ever. Nothing
  /// if the record's id cannot be read.
  std::optional<protocol::token_batch>
  without_session(codec::bytes_view record) const;

  /// Starts the choice of an encoded request_record, or refuses it with an
  /// error to its router (if the id can be read). A router without a session
  /// gets no answer.
  session_commands generate(std::uint64_t router, codec::bytes_view record,
                            clock::time_point now);

  /// The router will hear of the choice once more, as cancelled.
  session_commands cancel(std::uint64_t router, std::uint64_t id);

  /// Cancels all choices of a router that is gone.
  session_commands router_gone(std::uint64_t router);

  /// The router is told of all blocks in the prefix cache now, and of changes
  /// from then on; or no longer. One without a session gets no answer.
  session_commands follow_blocks(std::uint64_t router, bool wanted);

  /// Hands the outputs of one engine step out: one batch per router, also to
  /// one that is only to hear of what others have here.
  session_commands step(engine::step_result&&);

  /// Ends choices whose deadline has passed.
  session_commands tick(clock::time_point now);

  /// Changes session_limits::choices_max; choices that are there stay.
  void limit_choices(std::uint32_t choices_max);

  /// Whether the engine takes choices now; otherwise they are refused with
  /// errc::unavailable and `why`. At first: "the replica is loading".
  void open();
  void close(std::string why);

  /// Choices that the engine still has.
  std::size_t running() const {
    return choices_.size();
  }

private:
  struct choice {
    std::uint64_t router = 0; ///< 0 = nobody waits for it any more
    std::uint64_t id = 0;
    clock::time_point deadline = clock::time_point::max();
    bool late = false;    ///< cancelled because of its deadline
    bool leaving = false; ///< told to end; no longer counted
    /// Of the work of its router: to compute before its next token, and all.
    std::uint64_t given = 0;
    std::uint64_t tokens = 0;
  };

  using record_key = std::pair<std::uint64_t, std::uint64_t>;

  void leave(choice&);
  result<void> admit(std::uint64_t router,
                     const protocol::request_record&) const;
  session_commands refuse(std::uint64_t router, std::uint64_t id,
                          const error& why);
  send_tokens to_router(std::uint64_t router,
                        std::vector<protocol::choice_tokens>);
  void tell_misled(session_commands&);
  void note_first_token(choice&);
  std::vector<protocol::choice_tokens> ends_of(std::uint64_t router) const;
  session_commands abandon(std::uint64_t router);
  protocol::choice_tokens to_tokens(engine::output&&, const choice&) const;

  std::string replica_;
  std::uint64_t incarnation_;
  session_limits limits_;
  std::uint32_t version_;
  std::string closed_because_ = "the replica is loading";
  bool open_ = false;
  std::uint64_t last_step_ = 0;
  std::uint32_t waiting_ = 0;     ///< in the engine, after that step
  std::uint32_t few_rows_us_ = 0; ///< as engine::stats says
  std::uint32_t many_rows_us_ = 0;
  std::uint64_t next_engine_id_ = 1;
  std::map<std::uint64_t, choice> choices_; ///< by engine id
  std::size_t leaving_ = 0;                 ///< of choices_
  std::map<record_key, std::uint64_t> engine_ids_;
  /// That have a session, with the protocol version to write for them.
  std::map<std::uint64_t, std::uint32_t> routers_;
  block_list blocks_;
  work_by_router work_;
};

} // namespace troupe::replica
