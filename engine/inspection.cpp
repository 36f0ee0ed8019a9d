#include "engine/inspection.hpp"

#include "engine/model_files.hpp"

namespace troupe::engine {

namespace {

std::string type_name(ops::element_type type) {
  using ops::element_type;
  switch (type) {
  case element_type::f32:
    return "f32";
  case element_type::f16:
    return "f16";
  case element_type::bf16:
    return "bf16";
  case element_type::q8_0:
    return "q8_0";
  case element_type::q4_0:
    return "q4_0";
  case element_type::q4_1:
    return "q4_1";
  case element_type::q5_0:
    return "q5_0";
  case element_type::q5_1:
    return "q5_1";
  case element_type::iq4_nl:
    return "iq4_nl";
  case element_type::q4_k:
    return "q4_k";
  case element_type::q5_k:
    return "q5_k";
  case element_type::q6_k:
    return "q6_k";
  case element_type::q3_k:
    return "q3_k";
  case element_type::q2_k:
    return "q2_k";
  case element_type::e4m3:
    return "e4m3";
  }
  return "?";
}

void list_tensors(const weights::checkpoint& file, inspection& out) {
  for (const auto& one : file.tensors())
    out.tensors.push_back(
        {one.name, type_name(one.type), one.shape, one.byte_size()});
  if (auto* said = file.find(weights::quantisation_key))
    if (auto* method = std::get_if<std::string>(said))
      out.quantization = *method;
}

void list_numbers(const model::model_config& from, inspection& out) {
  out.architecture = from.family->name;
  const std::pair<const char*, std::int64_t> all[] = {
      {"context_length", from.context_length},
      {"layers", from.layers},
      {"embedding", from.embedding},
      {"feed_forward", from.feed_forward},
      {"heads", from.heads},
      {"kv_heads", from.kv_heads},
      {"head_dim", from.head_dim},
      {"vocabulary", from.vocabulary},
      {"window", from.window},
      {"experts", from.experts},
      {"experts_used", from.experts_used},
      {"expert_feed_forward", from.expert_feed_forward},
  };
  for (const auto& [name, value] : all)
    if (value > 0)
      out.numbers.emplace_back(name, value);
}

} // namespace

result<inspection> inspect(const options& o, std::uint64_t available_bytes) {
  auto files = open_files(o);
  if (!files)
    return files.error();
  inspection out;
  out.path = files->source;
  out.format = format_of(files->source);
  list_tensors(*files->checkpoint, out);
  auto refuse = [&out](const error& why) {
    out.refusal = why.message;
    return out;
  };
  auto config = model::read_model_config(*files->checkpoint,
                                         static_cast<int>(o.max_model_len));
  if (!config)
    return refuse(config.error());
  list_numbers(*config, out);
  auto card = read_card(o, *files, *config);
  if (!card)
    return refuse(card.error());
  out.card = std::move(*card);
  auto memory = measure(o, available_bytes);
  if (!memory)
    return refuse(memory.error());
  out.memory = *memory;
  out.card->max_model_len = memory->max_model_len;
  return out;
}

} // namespace troupe::engine
