#pragma once

#include "actors/protocol/token_batch.hpp"
#include "engine/codec/error.hpp"
#include "router/api/openai.hpp"

#include <cstdint>
#include <string>

namespace troupe::router {

/// Makes the bytes of an answer out of the news of a request's choices. Pure:
/// no clock, no sockets, no threads.
class reply_content {
public:
  virtual ~reply_content() = default;

  virtual bool streams() const = 0;

  /// What a stream begins with, before any news is taken: so many parts, each
  /// appended by its own call, in order (a part holds the prompt's ids if they
  /// are asked for).
  virtual std::uint32_t openings() const = 0;
  virtual void open(std::uint32_t part, std::string& frames) const = 0;

  /// Takes the next news of a choice and, when streaming, appends the frames
  /// that it gives. True: the rest of the choice is not wanted (a stop string
  /// completed), so it has to be cancelled. News of an ended choice is dropped.
  /// An error means that the news cannot be true; nothing more may be taken.
  virtual result<bool> take(std::uint32_t choice,
                            const protocol::choice_tokens& news,
                            std::string& frames) = 0;

  /// All choices have ended.
  virtual bool complete() const = 0;

  /// What follows the last choice of a stream.
  virtual std::string closing_frames() const = 0;

  /// The whole answer, when not streaming.
  virtual std::string body() const = 0;

  virtual api::usage usage() const = 0;

  /// What every body repeats.
  virtual api::answer_head& head() = 0;

  virtual std::uint32_t choices() const = 0;

  /// Of a choice that has ended.
  virtual const std::string& finish_reason(std::uint32_t choice) const = 0;
};

} // namespace troupe::router
