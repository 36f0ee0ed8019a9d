#pragma once

#include "router/http/server.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

namespace troupe::http {

class session;
struct response_frame;
struct session_context;

/// The sending half of a connection: the answer in work and the bytes that wait
/// for the socket. Any thread. Replies hold it, not the connection: it survives
/// that (and the io_context), and does nothing then.
///
/// No callback of the user's runs, or is destroyed, under the mutex.
class outbox {
public:
  /// What a request asks of its answer.
  struct request_traits {
    int minor_version = 1;
    bool head_only = false; ///< the method is HEAD
    bool close = false;     ///< no further request behind it
  };

  /// What is left to do when an answer is out.
  struct ending {
    bool close = false;
    bool reset = false; ///< only a reset says that the end is missing
  };

  /// What the user wants to hear of an answer; either may be empty.
  struct listeners {
    std::function<void()> gone;
    std::function<void()> room;
  };

  outbox(std::shared_ptr<session_context>, std::weak_ptr<session>);

  // The connection's calls.

  /// Begins the next answer and returns its serial; 0 if all is over. `take`
  /// is called soon: nothing will ask for it.
  std::uint64_t begin(const request_traits&);

  /// An answer of the layer's own, behind which the connection closes.
  void refuse(const request_traits&, int status, std::string_view sentence);

  /// "100 Continue".
  void invite_body();

  /// Says the next byte of an answer that is not known yet: all begin alike.
  /// Who has closed the connection answers it with a reset. False if there is
  /// none left, or the answer has begun.
  bool say_next_byte();

  /// Moves what is to be sent into the two empty strings, `body` behind
  /// `bytes`. True if the answer ends with it (or has ended before).
  bool take(std::string& bytes, std::string& body);

  /// The socket is full, `unsent_bytes` of what was taken are left; `take` is
  /// called when it has room again.
  void blocked(std::size_t unsent_bytes);

  /// Who waited for room, if there is some now.
  std::function<void()> room_found();

  ending end();

  /// The connection is over; `gone` is to be told.
  listeners connection_closed();

  /// Ends everything at once, also the connection, soon.
  void kill();

  // The reply's calls. `serial` names the request; those of an answer that has
  // ended are ignored.

  void respond(std::uint64_t serial, int status, const header_list& headers,
               std::string body);
  void start_stream(std::uint64_t serial, int status,
                    const header_list& headers);
  bool write(std::uint64_t serial, std::string_view bytes);
  bool has_room();
  void on_room(std::uint64_t serial, std::function<void()>);
  void finish(std::uint64_t serial);
  void abort(std::uint64_t serial);
  void on_client_gone(std::uint64_t serial, std::function<void()>);

  /// The last reference is gone: 500 if nothing was answered, abort in mid
  /// stream.
  void dropped(std::uint64_t serial);

private:
  enum class phase { none, awaited, streaming, ended };

  struct answer_state {
    std::uint64_t serial = 0;
    phase at = phase::none;
    int minor_version = 1;
    bool body_wanted = true; ///< false for HEAD, 204, 304
    bool close = false;
    bool truncated = false; ///< a stream that was not finished
    std::size_t said = 0;   ///< bytes of its head, by `say_next_byte`
    listeners heard_by;
  };

  // All under the mutex.
  bool is_at(std::uint64_t serial, phase) const;
  void new_answer(const request_traits&);
  bool closes_behind_answer();
  void encode_head(int status, const header_list& headers,
                   const response_frame& frame);
  void encode_whole(int status, const header_list& headers, std::string body);
  bool room_left() const;
  listeners end_answer();
  listeners die();
  void want_flush();

  std::mutex mutex_;
  std::shared_ptr<session_context> context_; ///< null once dead
  std::weak_ptr<session> session_;
  answer_state answer_;
  std::string bytes_;
  std::string body_;              ///< a long body behind them, not copied
  std::size_t sending_bytes_ = 0; ///< taken, but not with the kernel yet
  bool flush_due_ = false;        ///< `take` will be called anyway
};

} // namespace troupe::http
