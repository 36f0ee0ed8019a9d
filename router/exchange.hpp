#pragma once

#include "router/api/openai.hpp"
#include "router/http/server.hpp"
#include "router/metrics.hpp"
#include "router/tenants.hpp"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::router {

/// Counts generation requests between their admission and the end of their
/// answer. Any thread.
///
/// Where places are shared by several groups (tenants, models), each is told
/// when it `has_enough`.
class admission {
public:
  explicit admission(std::size_t max) : max_(max) {
    // nop
  }

  /// Whoever is inside stays.
  void set_max(std::size_t max);

  /// Holds one of the places until destroyed.
  class ticket {
  public:
    ticket() = default;
    explicit ticket(std::shared_ptr<admission> from) : from_(std::move(from)) {
      // nop
    }
    ticket(ticket&&) = default;
    ticket& operator=(ticket&& other) {
      release();
      from_ = std::move(other.from_);
      groups_ = std::move(other.groups_);
      return *this;
    }
    ~ticket() {
      release();
    }

    void release();

    /// It counts for this group too; false if that has enough.
    bool join(const std::string& group);

    explicit operator bool() const {
      return from_ != nullptr;
    }

  private:
    std::shared_ptr<admission> from_;
    std::vector<std::string> groups_;
  };

  /// An empty ticket when all places are taken.
  static ticket enter(const std::shared_ptr<admission>&);

  std::size_t inside() const;

  /// Waits until nobody is inside; false if that took longer.
  bool wait_empty(std::chrono::milliseconds at_most);

private:
  mutable std::mutex mutex_;
  std::size_t max_;
  std::condition_variable empty_;
  std::size_t inside_ = 0;
  std::map<std::string, std::size_t> groups_; ///< their places; none of 0
};

/// What a client is told when its answer took longer than the time limit.
api::api_error time_limit_passed();

/// One HTTP request and its answer: the request id on whatever is answered, one
/// end, and the books on it. Used by one thread at a time.
class exchange {
public:
  struct context {
    std::string request_id;
    std::string method;
    std::string target;     ///< as sent, for the log
    std::string_view route; ///< one of ours or "other"
    std::shared_ptr<metrics> counters;
    bool access_log = false;
    std::string user; ///< as the client named it; empty = not
    std::shared_ptr<tenant_account> account; ///< whose it is
  };

  exchange(std::shared_ptr<http::reply>, context);

  /// Unanswered: counted as a 500, which the server then sends.
  ~exchange();

  const std::string& request_id() const {
    return context_.request_id;
  }

  std::chrono::steady_clock::time_point arrived() const {
    return arrived_;
  }

  double seconds() const;

  /// OpenAI's `user` field, for the access log.
  void set_user(std::string user) {
    context_.user = std::move(user);
  }

  void set_route(std::string_view route) {
    context_.route = route;
  }

  /// It is asked again and again: that all is well is no news for the log.
  void set_poll() {
    is_poll_ = true;
  }

  /// The place that this request takes, given back when its answer ends.
  void hold(admission::ticket ticket) {
    ticket_ = std::move(ticket);
  }

  /// See admission::ticket.
  bool join(const std::string& group) {
    return ticket_.join(group);
  }

  const std::shared_ptr<tenant_account>& account() const {
    return context_.account;
  }

  void set_account(std::shared_ptr<tenant_account> account) {
    context_.account = std::move(account);
  }

  void respond(int status, std::string_view content_type, std::string body,
               http::header_list more = {});

  /// OpenAI's error body; 503 tells the client to come back later.
  void fail(const api::api_error&, http::header_list more = {});

  // A stream of server-sent events.
  void begin_stream();
  bool streaming() const {
    return streaming_;
  }
  bool write(std::string frames) {
    return reply_->write(std::move(frames));
  }
  bool has_room() const {
    return reply_->has_room();
  }
  void on_room(std::function<void()> then) {
    reply_->on_room(std::move(then));
  }
  void finish();

  /// Cuts the stream, so that nobody takes it for whole. `status` is for the
  /// books.
  void abort(int status);

  /// The client has left: there is nobody to answer.
  void abandon();

  void on_client_gone(std::function<void()> then) {
    reply_->on_client_gone(std::move(then));
  }

private:
  void ended(int status);
  void settle(int status); ///< before the answer is sent
  void log(int status) const;
  void add_limits(http::header_list&) const;

  std::shared_ptr<http::reply> reply_;
  context context_;
  std::chrono::steady_clock::time_point arrived_;
  admission::ticket ticket_;
  bool streaming_ = false;
  bool is_poll_ = false;
  bool ended_ = false;
};

} // namespace troupe::router
