#include "engine/model/hugging_face/quantization_config.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace troupe::model::hugging_face {

namespace {

namespace dom = simdjson::dom;
using weights::printable;

error refused(const json_fields& fields, std::string_view key,
              std::string_view said) {
  return fields.wrong(key,
                      fmt::format("is '{}': not supported", printable(said)),
                      errc::unsupported);
}

/// A text that has to be one of `allowed`; missing is fine.
result<void> only(const json_fields& fields, std::string_view key,
                  std::initializer_list<std::string_view> allowed) {
  if (!fields.has(key))
    return {};
  auto said = fields.text(key);
  if (!said)
    return said.error();
  if (std::find(allowed.begin(), allowed.end(), *said) == allowed.end())
    return refused(fields, key, *said);
  return {};
}

result<void> only_bits(const json_fields& fields, std::string_view key,
                       std::int64_t wanted) {
  auto bits = fields.whole(key, 1, 64);
  if (!bits)
    return bits.error();
  if (*bits != wanted)
    return refused(fields, key, std::to_string(*bits));
  return {};
}

result<quantization> awq(const json_fields& fields) {
  if (auto done = only_bits(fields, "bits", 4); !done)
    return done.error();
  if (auto done = only(fields, "version", {"gemm"}); !done)
    return done.error();
  return quantization{packing::awq, "awq", 0};
}

result<quantization> gptq(const json_fields& fields) {
  if (auto done = only_bits(fields, "bits", 4); !done)
    return done.error();
  for (auto key : {"checkpoint_format", "format"})
    if (auto done = only(fields, key, {"gptq", "gptq_v2"}); !done)
      return done.error();
  if (fields.has("dynamic"))
    return fields.wrong("dynamic", "is not supported", errc::unsupported);
  auto format = fields.text("checkpoint_format", "gptq");
  return quantization{format && *format == "gptq_v2" ? packing::gptq_v2
                                                     : packing::gptq,
                      "gptq", 0};
}

/// The weights of a group of compressed-tensors.
result<void> plain_weights(const json_fields& group) {
  auto fields = group.object("weights");
  if (!fields)
    return fields.error();
  if (auto done = only_bits(*fields, "num_bits", 8); !done)
    return done;
  if (auto done = only(*fields, "type", {"int", "float"}); !done)
    return done;
  if (auto done = only(*fields, "strategy", {"channel", "tensor"}); !done)
    return done;
  auto symmetric = fields->flag("symmetric", true);
  if (!symmetric)
    return symmetric.error();
  if (!*symmetric)
    return refused(*fields, "symmetric", "false");
  return {};
}

result<quantization> compressed_tensors(const json_fields& fields) {
  auto done = only(fields, "format",
                   {"int-quantized", "float-quantized", "naive-quantized"});
  if (!done)
    return done.error();
  if (fields.has("kv_cache_scheme"))
    return fields.wrong("kv_cache_scheme", "is not supported",
                        errc::unsupported);
  if (fields.has("sparsity_config")) {
    auto sparsity = fields.object("sparsity_config");
    if (!sparsity)
      return sparsity.error();
    if (done = only(*sparsity, "format", {"dense"}); !done)
      return done.error();
  }
  auto groups = fields.object("config_groups");
  if (!groups)
    return groups.error();
  for (auto name : groups->keys()) {
    auto group = groups->object(name);
    if (!group)
      return group.error();
    if (done = plain_weights(*group); !done)
      return done.error();
  }
  return quantization{packing::scaled, "compressed-tensors", 0};
}

result<quantization> fp8(const json_fields& fields) {
  if (auto done = only(fields, "fmt", {"e4m3"}); !done)
    return done.error();
  quantization out{packing::scaled, "fp8", 0};
  if (!fields.has("weight_block_size"))
    return out;
  dom::array sides;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  constexpr std::int64_t most = 1 << 16;
  if (fields.at("weight_block_size").get(sides) || sides.size() != 2 ||
      sides.at(0).get(rows) || sides.at(1).get(columns) || rows < 1 ||
      rows > most || rows != columns)
    return fields.wrong("weight_block_size", "is not a square",
                        errc::unsupported);
  out.block = rows;
  return out;
}

} // namespace

result<quantization> read_quantization_config(const json_fields& fields) {
  auto method = fields.text("quant_method");
  if (!method)
    return method.error();
  struct row {
    std::string_view method;
    result<quantization> (*read)(const json_fields&);
  };
  for (auto [name, read] :
       {row{"awq", awq}, row{"gptq", gptq},
        row{"compressed-tensors", compressed_tensors}, row{"fp8", fp8}})
    if (*method == name)
      return read(fields);
  return refused(fields, "quant_method", *method);
}

} // namespace troupe::model::hugging_face
