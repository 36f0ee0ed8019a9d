#include "actors/protocol/request_record.hpp"

#include "actors/protocol/record_layout.hpp"

#include <algorithm>

namespace troupe::protocol {

template <>
struct layout<sampling_params> {
  using r = sampling_params;
  static constexpr std::string_view name = "sampling_params";
  static constexpr auto fields = std::tuple{
      number(1, &r::temperature),
      number(2, &r::top_p),
      number(3, &r::top_k),
      number(4, &r::min_p),
      number(5, &r::frequency_penalty),
      number(6, &r::presence_penalty),
      number(7, &r::repetition_penalty),
      number(8, &r::logit_bias),
      number(9, &r::seed),
      number(10, &r::choice),
      number(11, &r::max_tokens),
      number(12, &r::min_tokens),
      number(13, &r::stop_token_ids),
      number(14, &r::ignore_eos),
      number(15, &r::logprobs),
      number(16, &r::prompt_logprobs),
  };
};

template <>
struct layout<request_record> {
  using r = request_record;
  static constexpr std::string_view name = "request_record";
  static constexpr auto fields = std::tuple{
      number(1, &r::id),
      number(2, &r::request_id),
      number(3, &r::model),
      number(4, &r::prompt),
      number(5, &r::output),
      number(6, &r::params),
      number(7, &r::priority),
      number(8, &r::deadline_ms),
      droppable_since(2, 9, &r::alone),
      droppable_since(4, 10, &r::second_text),
  };
};

std::uint64_t tokens_given(const request_record& of) {
  return of.prompt.size() + of.output.size();
}

std::uint64_t tokens_to_do(const request_record& of) {
  auto drawn = std::min<std::uint64_t>(of.output.size(), of.params.max_tokens);
  return tokens_given(of) +
         std::min<std::uint64_t>(of.params.max_tokens - drawn,
                                 expected_output_max);
}

codec::bytes encode(const request_record& from, std::uint32_t version) {
  return encode_record(from, version);
}

result<request_record> decode_request_record(codec::bytes_view from,
                                             std::uint32_t version) {
  return decode_record<request_record>(from, version);
}

} // namespace troupe::protocol
