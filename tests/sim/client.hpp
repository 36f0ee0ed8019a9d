#pragma once

#include "tests/sim/deployer.hpp"
#include "tests/sim/ledger.hpp"
#include "tests/sim/node_process.hpp"
#include "tests/sim/router_shell.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace troupe::sim {

/// What a client asks for.
struct client_request {
  std::uint64_t number = 0;
  std::string model;
  std::uint32_t choices = 1;
  std::vector<token_id> prompt;
  sampling_params params;
  std::uint64_t deadline_ms = 0;
  bool poison = false;
  bool at_rest = false; ///< nothing goes wrong any more: it must be answered
};

/// How requests ended, over a run.
struct outcome_counts {
  std::size_t submitted = 0;
  std::size_t whole = 0;     ///< all their tokens
  std::size_t cancelled = 0; ///< by their client
  std::size_t router_died = 0;
  std::size_t guilty = 0;
  std::size_t no_replica = 0;  ///< for 30 s
  std::size_t unexplained = 0; ///< three replicas lost before the first token
  std::size_t model_gone = 0;
  std::size_t late = 0; ///< past their deadline
  std::size_t tokens = 0;

  void add(const outcome_counts&);
};

/// One client with one request. It knows the right tokens and takes nothing
/// else (I2), exactly one end (I1), and as many tokens as it is told of (I6).
class client : public answer_sink {
public:
  /// `was_deleted`: whether a model was not wanted at any time since then.
  using deletion_check =
      std::function<bool(const std::string& model, instant since)>;

  client(world&, const ledger&, node_process& router, client_request,
         deletion_check);

  void submit();
  /// Leaves, or wants no more of one choice.
  void cancel();
  void cancel_choice(std::uint32_t choice);

  void on_tokens(std::uint32_t choice, const protocol::choice_tokens&) override;
  void on_failed(const error&) override;
  void on_released() override;

  /// Nothing is to be expected any more: it ended, or its router is dead.
  bool done() const {
    return released_ || !router_.alive();
  }
  const node_process& router() const {
    return router_;
  }
  std::string name() const {
    return "request " + std::to_string(request_.number);
  }
  /// What of it has not ended.
  std::string state() const;
  /// Checks what can be checked at the end; counts it.
  void close(outcome_counts&) const;

private:
  enum class fate { open, whole, cancelled, failed };
  enum class failure {
    none,
    guilty,
    no_replica,
    unexplained,
    model_gone,
    late
  };

  struct choice_state {
    std::vector<token_id> right;
    std::size_t received = 0;
    fate end = fate::open;
  };

  [[noreturn]] void wrong(const std::string& invariant, const std::string&);
  failure judge(const error&) const;
  bool any_unexplained() const;
  bool all_ended() const;

  world& world_;
  const ledger& ledger_;
  node_process& router_;
  client_request request_;
  deletion_check was_deleted_;
  std::string request_id_;
  std::vector<choice_state> choices_;
  instant submitted_{0};
  nanoseconds leapt_before_{0};
  bool cancelled_ = false;
  bool released_ = false;
  failure failure_ = failure::none;
};

} // namespace troupe::sim
