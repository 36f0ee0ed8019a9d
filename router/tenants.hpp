#pragma once

#include "actors/protocol/load_messages.hpp"
#include "actors/protocol/routing_table.hpp"
#include "router/api/openai.hpp"
#include "router/http/server.hpp"
#include "router/policy/rate_limit.hpp"
#include "router/request_guard.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace troupe::router {

/// The books of who bears an API key: how much it may have, and has had. Any
/// thread.
class tenant_account {
public:
  using time_point = std::chrono::steady_clock::time_point;

  explicit tenant_account(const protocol::tenant& who);

  const std::string& name() const {
    return name_;
  }

  /// What it may do from now on.
  void change(const protocol::tenant&, time_point now);

  double weight() const;
  std::int32_t priority() const; ///< the most urgent it may ask for
  /// That it may have at one replica at once; 0 = no limit.
  std::uint32_t choices_per_replica() const;

  // Takes one request, or so many tokens of prompts; or says why not.
  std::optional<api::api_error> take_request(time_point now);
  std::optional<api::api_error> take_prompt(std::uint64_t tokens,
                                            time_point now);

  /// Tokens of an answer.
  void charge(std::uint64_t tokens, time_point now);

  /// What it has had through all other routers, in the same life as the word
  /// before or in another one, which says where to count from.
  void used_elsewhere(const protocol::tenant_use&, bool same_life,
                      time_point now);

  /// OpenAI's x-ratelimit-* for an answer; nothing without a limit.
  http::header_list headers(time_point now) const;

  bool is_limited() const;

  /// What it has had here.
  protocol::tenant_use used() const;
  std::uint64_t refused() const; ///< requests, for its limits

private:
  const std::string name_;
  mutable std::mutex mutex_;
  double weight_ = 1;
  std::int32_t priority_ = 0;
  std::uint32_t choices_per_replica_ = 0;
  rate_limit requests_;
  rate_limit tokens_;
  protocol::tenant_use used_;
  protocol::tenant_use elsewhere_;
  std::uint64_t refused_ = 0;
};

/// Whose requests are taken. Any thread; without keys there is one tenant,
/// which everybody is.
class tenants {
public:
  tenants();

  /// From now on; who stays keeps its books. A key that no tenant has (an older
  /// controller tells of keys alone) is one of its own.
  void follow(const protocol::router_settings&);

  /// Null: the request bears no valid key.
  std::shared_ptr<tenant_account> find(const http::request&) const;

  /// There is somebody to share with.
  bool several() const;

  std::vector<std::shared_ptr<tenant_account>> all() const;

  /// What those with limits have had here; and what through other routers.
  std::vector<protocol::tenant_use> used() const;
  void used_elsewhere(const protocol::others_load&);

private:
  struct roster {
    api_keys keys{{}};
    std::vector<std::shared_ptr<tenant_account>> accounts; ///< in keys' order
  };

  std::shared_ptr<const roster> now() const;

  mutable std::mutex mutex_;
  std::shared_ptr<const roster> roster_ = std::make_shared<roster>();
  const std::shared_ptr<tenant_account> anybody_;
  std::uint64_t life_ = 0; ///< of the last word on other routers
};

} // namespace troupe::router
