#include "actors/protocol/token_batch.hpp"

#include "actors/protocol/record_layout.hpp"

namespace troupe {

static constexpr errc last_value(errc) {
  return errc::internal;
}

namespace protocol {

static constexpr finish last_value(finish) {
  return finish::error;
}

// Lists of it are one field: its two members lie side by side, without padding.
static_assert(sizeof(token_logprob) == sizeof(token_id) + sizeof(float));

template <>
struct layout<choice_tokens> {
  using r = choice_tokens;
  static constexpr std::string_view name = "choice_tokens";
  static constexpr auto fields = std::tuple{
      number(1, &r::id),
      number(2, &r::tokens),
      number(3, &r::logprobs),
      number(4, &r::prompt_logprobs),
      number(5, &r::cached_tokens),
      number(6, &r::reason),
      number(7, &r::stop_token),
      number(8, &r::code),
      number(9, &r::message),
      droppable_since(4, 10, &r::vector),
  };
};

template <>
struct layout<kv_events> {
  using r = kv_events;
  static constexpr std::string_view name = "kv_events";
  static constexpr auto fields = std::tuple{
      number(1, &r::sequence),   number(2, &r::all),
      number(3, &r::block_size), number(4, &r::stored),
      number(5, &r::dropped),
  };
};

template <>
struct layout<token_batch> {
  using r = token_batch;
  static constexpr std::string_view name = "token_batch";
  static constexpr auto fields = std::tuple{
      number(1, &r::replica),
      number(2, &r::incarnation),
      number(3, &r::step),
      number(4, &r::choices),
      droppable_since(5, 5, &r::blocks),
      droppable_since(6, 6, &r::waiting),
      droppable_since(6, 7, &r::others_tokens),
      droppable_since(6, 8, &r::few_rows_us),
      droppable_since(6, 9, &r::many_rows_us),
      number(10, &r::no_session),
  };
};

codec::bytes encode(const token_batch& from, std::uint32_t version) {
  return encode_record(from, version);
}

result<token_batch> decode_token_batch(codec::bytes_view from,
                                       std::uint32_t version) {
  return decode_record<token_batch>(from, version);
}

} // namespace protocol
} // namespace troupe
