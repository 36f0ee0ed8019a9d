#include "engine/model/open_checkpoint.hpp"

#include "engine/model/hugging_face/directory_card.hpp"
#include "engine/weights/text_file.hpp"
#include "tests/unit/model/compare_logits.hpp"
#include "tests/unit/model/naive_backend.hpp"
#include "tests/unit/weights/model_directory.hpp"

#include <catch2/catch.hpp>
#include <fmt/format.h>

using namespace troupe;
using namespace troupe::test;

namespace {

const char* const tiny_directories[] = {
    "llama-bf16", "llama-sharded-f16", "llama-f32-linear", "llama-awq",
    "llama-gptq", "llama-int8",        "llama-fp8",        "llama-fp8-blocks"};

/// As for the GGUF files (decoder_test.cpp).
constexpr float tolerance = 1e-4f;

std::filesystem::path tiny(const std::string& name) {
  return reference_folder() / "tiny" / name;
}

/// A copy of a tiny directory in which texts of files can be replaced.
class broken_directory : public model_directory {
public:
  explicit broken_directory(const std::string& name = "llama-bf16") {
    copy_from(tiny(name));
  }

  broken_directory& replace(const std::string& file, const std::string& from,
                            const std::string& to) {
    auto text = *weights::read_text_file(path() / file, 1 << 20);
    auto at = text.find(from);
    REQUIRE(at != std::string::npos);
    write(file, text.replace(at, from.size(), to));
    return *this;
  }

  /// Puts a field into config.json.
  broken_directory& config(const std::string& field) {
    return replace("config.json", "{", "{" + field + ",");
  }

  result<model::model_config> open() const {
    auto file = model::open_checkpoint(path());
    if (!file)
      return file.error();
    return model::read_model_config(**file);
  }

  result<text::model_card> card() const {
    auto config = open();
    if (!config)
      return config.error();
    return model::hugging_face::read_directory_card(path(), path(), *config);
  }
};

template <class T>
void refused(const result<T>& got, errc code, const std::string& words) {
  REQUIRE(!got);
  CHECK_THAT(got.error().message, Catch::Contains(words));
  CHECK(got.error().code == code);
}

void config_refused(const std::string& from, const std::string& to,
                    const std::string& words, errc code = errc::corrupt) {
  broken_directory broken;
  broken.replace("config.json", from, to);
  auto config = broken.open();
  refused(config, code, words);
  CHECK_THAT(config.error().message,
             Catch::StartsWith(broken.path().filename().string() + ": "));
}

} // namespace

TEST_CASE("logits of tiny directories are those of transformers") {
  for (const std::string name : tiny_directories) {
    INFO(name);
    auto model = load_model(tiny(name), make_naive_backend());
    auto reference = read_reference("tiny/" + name + ".ref");
    CHECK(worst_difference(model, reference) < tolerance);
  }
}

TEST_CASE("the two ways of writing rope's parameters say the same") {
  auto today = broken_directory{"llama-f32-linear"}.open();
  broken_directory older{"llama-f32-linear"};
  older.replace("config.json", "\"rope_parameters\"", "\"was\"");
  older.config(R"("rope_theta":10000,"rope_scaling":{"type":"linear",)"
               R"("factor":4.0})");
  auto before = older.open();
  REQUIRE(today.has_value());
  REQUIRE(before.has_value());
  CHECK(today->rope.factors == before->rope.factors);
  CHECK(today->rope.factors == std::vector<float>(12, 4.0f));
  CHECK(today->rope.theta == before->rope.theta);
  CHECK(!today->rope.interleaved);
}

TEST_CASE("what config.json says is checked") {
  config_refused("\"model_type\": \"llama\"", "\"model_type\": \"new\\n\"",
                 "(new?)", errc::unsupported);
  config_refused("\"model_type\": \"llama\"", "\"x\": 1",
                 "config.json: model_type is missing");
  config_refused("LlamaForCausalLM", "LlamaForSequenceClassification",
                 "architectures names 'LlamaForSequenceClassification'",
                 errc::unsupported);
  config_refused("{", R"({"auto_map":{"AutoModel":"evil.Model"},)",
                 "which is never run", errc::unsupported);
  config_refused("{", R"({"quantization_config":{"quant_method":"aqlm"},)",
                 "quantization_config.quant_method is 'aqlm'",
                 errc::unsupported);
  config_refused("\"silu\"", "\"gelu\"", "hidden_act is gelu",
                 errc::unsupported);
  config_refused("\"hidden_size\": 64", "\"hidden_size\": 0",
                 "hidden_size is 0");
  config_refused("\"hidden_size\": 64", "\"hidden_size\": 2147483648",
                 "hidden_size is 2147483648");
  config_refused("\"hidden_size\": 64", "\"hidden_size\": \"64\"",
                 "hidden_size is not a whole number");
  config_refused("\"hidden_size\": 64", "\"hidden_size\": 64.5",
                 "hidden_size is not a whole number");
  config_refused("\"hidden_size\": 64", "\"hidden\": 64",
                 "hidden_size is missing");
  config_refused("\"num_hidden_layers\": 2",
                 "\"num_hidden_layers\": 2147483647", "block_count");
  config_refused("\"num_attention_heads\": 4", "\"num_attention_heads\": 3",
                 "head");
  config_refused("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3",
                 "does not divide");
  config_refused("\"vocab_size\": 268", "\"vocab_size\": 267",
                 "the embedding has 268 rows");
  config_refused("\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": NaN",
                 "config.json");
  config_refused("\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": -1",
                 "layer_norm_rms_epsilon");
  config_refused("\"tie_word_embeddings\": true",
                 "\"tie_word_embeddings\": false", "no output layer");
  config_refused("\"tie_word_embeddings\": true", "\"tie_word_embeddings\": 1",
                 "is not a boolean");
  config_refused("{", "{\"hidden_size\": 64,", "'hidden_size' is there twice");
  config_refused("{", "{\"x\":" + std::string(100'000, '['), "config.json");
  config_refused("{", "[", "config.json");
}

TEST_CASE("a rope scaling that is not understood is refused") {
  auto scaling = [](const std::string& fields) {
    broken_directory broken;
    broken.replace("config.json", "\"rope_parameters\"", "\"was\"");
    broken.config("\"rope_scaling\":{" + fields + "}");
    return broken.open();
  };
  refused(scaling(R"("rope_type":"dynamic","factor":4)"), errc::unsupported,
          "rope_scaling.rope_type names a scaling");
  refused(scaling(R"("rope_type":"yarn")"), errc::corrupt,
          "rope_scaling.factor is missing");
  refused(scaling(R"("rope_type":"yarn","factor":4,"truncate":false)"),
          errc::unsupported, "rope_scaling.truncate is false");
  refused(scaling(R"("rope_type":"yarn","factor":4,"mscale":1,)"
                  R"("mscale_all_dim":1)"),
          errc::unsupported, "rope_scaling.mscale is not supported");
  refused(scaling(R"("type":"linear","factor":"NaN")"), errc::corrupt,
          "rope_scaling.factor is not a number");
  refused(scaling(R"("type":"linear","factor":NaN)"), errc::corrupt,
          "config.json");
  refused(scaling(R"("type":"linear","factor":1e999)"), errc::corrupt,
          "config.json");
  refused(scaling(R"("type":"linear","factor":0)"), errc::corrupt,
          "factor is 0, not above 0");
  refused(scaling(R"("type":"linear")"), errc::corrupt, "factor is missing");
  refused(scaling(R"("type":"llama3","factor":8,"low_freq_factor":4,)"
                  R"("high_freq_factor":4,)"
                  R"("original_max_position_embeddings":64)"),
          errc::corrupt, "high_freq_factor is not above");
}

TEST_CASE("YaRN's own scale replaces the usual one") {
  auto scale = [](const std::string& more) {
    broken_directory broken;
    broken.replace("config.json", "\"rope_parameters\"", "\"was\"");
    broken.config(R"("rope_scaling":{"rope_type":"yarn","factor":4)" + more +
                  "}");
    auto config = broken.open();
    REQUIRE(config.has_value());
    return config->rope.scale;
  };
  CHECK(std::abs(scale("") - (1 + 0.1 * std::log(4.0))) < 1e-7);
  CHECK(std::abs(scale(R"(,"attention_factor":0.5)") - 0.5) < 1e-7);
}

TEST_CASE("Gemma 3's ropes may be written in the older way") {
  broken_directory older{"../families/gemma3"};
  older.replace("config.json", "\"rope_parameters\"", "\"was\"");
  older.config(R"("rope_theta":100000.0,"rope_local_base_freq":10000.0,)"
               R"("rope_scaling":{"rope_type":"linear","factor":8.0})");
  auto before = older.open();
  auto today = broken_directory{"../families/gemma3"}.open();
  REQUIRE(before.has_value());
  REQUIRE(today.has_value());
  for (std::int32_t layer : {0, 5}) {
    CHECK(before->rope_of(layer).theta == today->rope_of(layer).theta);
    CHECK(before->rope_of(layer).factors == today->rope_of(layer).factors);
  }
}

TEST_CASE("what a family does not compute is refused by name") {
  auto with = [](const std::string& family, const std::string& from,
                 const std::string& to) {
    return broken_directory{"../families/" + family}
        .replace("config.json", from, to)
        .open();
  };
  const std::string types = "\"layer_types\": [";
  refused(with("gemma3", types + "\n    \"sliding_attention\"",
               types + "\n    \"chunked_attention\""),
          errc::unsupported, "layer_types names 'chunked_attention'");
  refused(with("gemma3", types, types + "\"full_attention\","), errc::corrupt,
          "has 8 entries for 7 layers");
  refused(with("gemma3", "\"attn_logit_softcapping\": null",
               "\"attn_logit_softcapping\": 50.0"),
          errc::unsupported, "attn_logit_softcapping is 50");
  refused(with("gemma3", "gelu_pytorch_tanh", "gelu"), errc::unsupported,
          "hidden_activation is gelu");
  refused(with("gemma3", "\"query_pre_attn_scalar\": 16",
               "\"query_pre_attn_scalar\": 0"),
          errc::corrupt, "query_pre_attn_scalar is 0");
  refused(with("gemma3", "\"use_bidirectional_attention\": false",
               "\"use_bidirectional_attention\": true"),
          errc::unsupported, "use_bidirectional_attention");
  refused(with("gemma2", "\"attn_logit_softcapping\": 5.0",
               "\"attn_logit_softcapping\": null"),
          errc::corrupt, "attn_logit_softcapping is missing");
  refused(with("qwen2", "\"use_sliding_window\": false",
               "\"use_sliding_window\": true"),
          errc::unsupported, "use_sliding_window is true");
  refused(with("smollm3", "\"no_rope_layers\": [\n    1",
               "\"no_rope_layers\": [\n    0"),
          errc::unsupported, "no_rope_layers is not every 4th");
  refused(with("phi3", "\"long_factor\": [", "\"long_factor\": [1.0,"),
          errc::corrupt, "long_factor has 13 numbers, not 12");
  refused(with("phi3", "\"long_factor\": [\n      1.0",
               "\"long_factor\": [\n      0.0"),
          errc::corrupt, "long_factor holds 0");
  refused(with("phi3", "\"partial_rotary_factor\": 0.75",
               "\"partial_rotary_factor\": 1.5"),
          errc::corrupt, "partial_rotary_factor is above 1");
  refused(
      with("qwen3moe", "\"mlp_only_layers\": []", "\"mlp_only_layers\": [1]"),
      errc::unsupported, "mlp_only_layers is [1]");
  refused(with("qwen3moe", "\"num_local_experts\": 8",
               "\"num_local_experts\": 2147483648"),
          errc::corrupt, "num_local_experts is 2147483648");
  refused(
      with("qwen3moe", "\"num_local_experts\": 8", "\"num_local_experts\": 9"),
      errc::corrupt, "shape");
}

TEST_CASE("e4m3 with scales of outputs stays that if it is asked for") {
  using model::hugging_face::e4m3_matrices;
  using ops::element_type;
  const auto type_of = [](const std::filesystem::path& path, e4m3_matrices how,
                          const char* name) {
    auto file = model::open_checkpoint(path, how);
    INFO((file ? std::string{} : file.error().message));
    REQUIRE(file.has_value());
    const auto* found = (*file)->find_tensor(name);
    REQUIRE(found != nullptr);
    CHECK((found->type == element_type::e4m3) ==
          !(*file)->read(*found)->scales.empty());
    return found->type;
  };
  const auto* matrix = "blk.1.ffn_down.weight";
  constexpr auto kept = e4m3_matrices::kept, as_f16 = e4m3_matrices::as_f16;
  CHECK(type_of(tiny("llama-fp8"), kept, matrix) == element_type::e4m3);
  CHECK(type_of(tiny("llama-fp8"), as_f16, matrix) == element_type::f16);
  CHECK(type_of(tiny("llama-fp8"), kept, "token_embd.weight") ==
        element_type::bf16);
  CHECK(type_of(tiny("llama-fp8-blocks"), kept, matrix) == element_type::f16);
  CHECK(type_of(tiny("llama-int8"), kept, matrix) == element_type::q8_0);
  // It is another arithmetic.
  CHECK(model::open_checkpoint(tiny("llama-fp8"), kept)
            .value()
            ->content_hash(1) !=
        model::open_checkpoint(tiny("llama-fp8")).value()->content_hash(1));
  // Nobody looks rows up in e4m3; an output layer is a product as any other.
  broken_directory other{"llama-fp8"};
  other.replace("config.json", "\"tie_word_embeddings\": true",
                "\"tie_word_embeddings\": false");
  const auto fp8 = [](const std::string& module, int from) {
    return fmt::format(
        R"("{0}.weight":{{"dtype":"F8_E4M3","shape":[2,2],)"
        R"("data_offsets":[{1},{2}]}},"{0}.weight_scale":{{"dtype":"F32",)"
        R"("shape":[1],"data_offsets":[{2},{3}]}})",
        module, from, from + 4, from + 8);
  };
  other.write("model.safetensors",
              safetensors_file("{" + fp8("model.embed_tokens", 0) + "," +
                                   fp8("lm_head", 8) + "}",
                               std::string(16, '\1')));
  CHECK(type_of(other.path(), kept, "token_embd.weight") == element_type::f16);
  CHECK(type_of(other.path(), kept, "output.weight") == element_type::e4m3);
}

TEST_CASE("e4m3 with scales of squares of 128 stays that if it is asked for") {
  using model::hugging_face::e4m3_matrices;
  const auto opened = [](int side, e4m3_matrices how) {
    broken_directory one{"llama-fp8-blocks"};
    while (weights::read_text_file(one.path() / "config.json", 1 << 20)
               ->find("48") != std::string::npos)
      one.replace("config.json", "48", std::to_string(side));
    const auto squares = (256 + side - 1) / side;
    const std::string module = "model.layers.0.mlp.up_proj.weight";
    one.write(
        "model.safetensors",
        safetensors_file(
            fmt::format(R"({{"{0}":{{"dtype":"F8_E4M3","shape":[3,256],)"
                        R"("data_offsets":[0,768]}},"{0}_scale_inv":)"
                        R"({{"dtype":"F32","shape":[1,{1}],)"
                        R"("data_offsets":[768,{2}]}}}})",
                        module, squares, 768 + 4 * squares),
            std::string(static_cast<std::size_t>(768 + 4 * squares), '\1')));
    return model::open_checkpoint(one.path(), how).value();
  };
  const auto* name = "blk.0.ffn_up.weight";
  const auto kept = opened(128, e4m3_matrices::kept);
  const auto* matrix = kept->find_tensor(name);
  CHECK(matrix->type == ops::element_type::e4m3);
  CHECK(matrix->row_scales == 2);
  CHECK(matrix->matrix().row_scales == 2);
  CHECK(kept->read(*matrix)->scales.size() == 6);
  CHECK(kept->read(*matrix)->bytes().size() == 768);
  for (const auto& widened :
       {opened(128, e4m3_matrices::as_f16), opened(64, e4m3_matrices::kept)}) {
    const auto* other = widened->find_tensor(name);
    CHECK(other->type == ops::element_type::f16);
    CHECK(widened->read(*other)->scales.empty());
  }
}

TEST_CASE("what is no number in a checkpoint in fp8 is refused by the file's "
          "name of it") {
  constexpr auto kept = model::hugging_face::e4m3_matrices::kept;
  const std::string module = "model.layers.0.self_attn.k_proj.weight";
  broken_directory one{"llama-fp8"};
  const auto opened = [&](const std::string& elements, float scale) {
    auto bytes = elements;
    bytes.append(reinterpret_cast<const char*>(&scale), sizeof scale);
    one.write("model.safetensors",
              safetensors_file(
                  fmt::format(R"({{"{0}":{{"dtype":"F8_E4M3","shape":[2,2],)"
                              R"("data_offsets":[0,4]}},"{0}_scale":)"
                              R"({{"dtype":"F32","shape":[1],)"
                              R"("data_offsets":[4,8]}}}})",
                              module),
                  bytes));
    return model::open_checkpoint(one.path(), kept);
  };
  const auto read = [&](const std::string& elements) {
    const auto file = opened(elements, 1).value();
    return file->read(*file->find_tensor("blk.0.attn_k.weight"));
  };
  CHECK(read("1234").has_value());
  refused(read("123\x7f"), errc::corrupt,
          one.path().filename().string() + ": tensor '" + module +
              "' has an element that is not a number");
  refused(opened("1234", INFINITY), errc::corrupt,
          "tensor '" + module + "_scale' has a scale that is not finite");
}

TEST_CASE("a quantisation that is not understood is refused by name") {
  auto with = [](const char* name, const std::string& from,
                 const std::string& to) {
    return broken_directory{name}.replace("config.json", from, to).open();
  };
  refused(with("llama-awq", "\"bits\": 4", "\"bits\": 3"), errc::unsupported,
          "quantization_config.bits is '3'");
  refused(with("llama-awq", "\"bits\": 4", "\"bit\": 4"), errc::corrupt,
          "bits is missing");
  refused(with("llama-awq", "gemm", "gemv"), errc::unsupported,
          "version is 'gemv'");
  refused(with("llama-awq", "\"awq\"", "\"fp8\""), errc::unsupported,
          "config.json says nothing of it");
  refused(with("llama-gptq", "\"checkpoint_format\": \"gptq\"",
               "\"checkpoint_format\": \"marlin\""),
          errc::unsupported, "checkpoint_format is 'marlin'");
  refused(with("llama-gptq", "\"sym\"", "\"dynamic\": {}, \"sym\""),
          errc::unsupported, "dynamic is not supported");
  refused(with("llama-int8", "int-quantized", "pack-quantized"),
          errc::unsupported, "format is 'pack-quantized'");
  refused(with("llama-int8", "\"kv_cache_scheme\": null",
               "\"kv_cache_scheme\": {}"),
          errc::unsupported, "kv_cache_scheme");
  refused(with("llama-int8", "\"strategy\": \"channel\"",
               "\"strategy\": \"group\""),
          errc::unsupported, "weights.strategy is 'group'");
  refused(with("llama-int8", "\"config_groups\"", "\"groups\""), errc::corrupt,
          "config_groups is missing");
  refused(with("llama-fp8-blocks", "\"e4m3\"", "\"e5m2\""), errc::unsupported,
          "fmt is 'e5m2'");
  refused(with("llama-fp8-blocks", "48", "47"), errc::unsupported,
          "is not a square");
  refused(with("llama-bf16", "{", R"({"quantization_config":[],)"),
          errc::corrupt, "quantization_config is not an object");
}

TEST_CASE("tensors that the family does not have are refused by name") {
  auto rename = [](const std::string& from, const std::string& to) {
    REQUIRE(from.size() == to.size());
    broken_directory broken;
    broken.replace("model.safetensors", from, to);
    return broken.open();
  };
  refused(rename("layers.0.mlp.up_proj", "layers.0.mlp.up_pro2"),
          errc::unsupported, "tensor 'model.layers.0.mlp.up_pro2.weight'");
  refused(rename("layers.0.mlp.up_proj.weight", "layers.0.mlp.up_proj.weighs"),
          errc::unsupported, "is not supported");
  refused(rename("layers.0.mlp.up_proj.weight", "layers.7.mlp.up_proj.weight"),
          errc::corrupt, "blk.0.ffn_up.weight' is missing");
  refused(rename("model.layers.0.mlp.up_proj", "model.layers.00.mlp.u_proj"),
          errc::unsupported, "has no meaning");
}

TEST_CASE("a directory's content decides its hash") {
  auto hash = [](const broken_directory& one) {
    auto file = model::open_checkpoint(one.path());
    REQUIRE(file.has_value());
    return (*file)->content_hash(2);
  };
  broken_directory plain, commented, other_norm, other_weight;
  commented.config("\"comment\":1");
  other_norm.replace("config.json", "1e-05", "2e-05");
  auto bytes = *weights::read_text_file(
      other_weight.path() / "model.safetensors", 1 << 20);
  bytes.back() ^= 1;
  other_weight.write("model.safetensors", bytes);
  CHECK(hash(plain) == hash(broken_directory{}));
  CHECK(hash(plain) == hash(commented));
  CHECK(hash(plain) != hash(other_norm));
  CHECK(hash(plain) != hash(other_weight));
}

TEST_CASE("a directory's card has its ends, its template and its sampling") {
  broken_directory plain;
  auto card = plain.card();
  REQUIRE(card.has_value());
  CHECK(card->architecture == "llama");
  CHECK(card->max_model_len == 256);
  CHECK(card->vocabulary_size == 268);
  CHECK(card->eos_ids == std::vector<text::token_id>{0, 2});
  CHECK(card->tokenizer.bos == 1);
  CHECK(!card->tokenizer.add_bos);
  CHECK_THAT(card->chat_template, Catch::Contains("<|im_start|>"));
  CHECK(card->defaults.temperature == 0.6f);
  CHECK(card->defaults.top_p == 0.95f);
  CHECK(card->defaults.top_k == 20);
  CHECK(!card->defaults.min_p);
  CHECK(text::decode_model_card(text::encode(*card)).value() == *card);
  plain.write("chat_template.json", R"({"chat_template":"{{ 1 }}"})");
  CHECK(plain.card()->chat_template == "{{ 1 }}");
  plain.write("chat_template.jinja", "{{ 2 }}");
  CHECK(plain.card()->chat_template == "{{ 2 }}");
}

TEST_CASE("a list of templates gives the one named default") {
  broken_directory named;
  named.write("tokenizer_config.json",
              R"({"chat_template":[{"name":"tool_use","template":"{{ 1 }}"},)"
              R"({"name":"default","template":"{{ 2 }}"}],)"
              R"("bos_token":{"content":"<|im_end|>"},"add_bos_token":true})");
  auto card = named.card();
  REQUIRE(card.has_value());
  CHECK(card->chat_template == "{{ 2 }}");
  CHECK(card->tokenizer.bos == 2);
  CHECK(card->tokenizer.add_bos);
}

TEST_CASE("without generation_config.json the ends are config.json's") {
  broken_directory bare;
  std::filesystem::remove(bare.path() / "generation_config.json");
  bare.replace("config.json", "\"eos_token_id\": 0", "\"eos_token_id\": 5");
  auto card = bare.card();
  REQUIRE(card.has_value());
  CHECK(card->eos_ids == std::vector<text::token_id>{0, 5});
  CHECK(!card->defaults.temperature);
}

TEST_CASE("what the other files of a directory say is checked") {
  auto with = [](const std::string& file, const std::string& content) {
    broken_directory broken;
    broken.write(file, content);
    return broken.card();
  };
  const std::string generation = "generation_config.json";
  refused(with(generation, "[1]"), errc::corrupt, "not an object");
  refused(with(generation, R"({"eos_token_id":268})"), errc::corrupt,
          "eos_token_id is not an id of the vocabulary");
  refused(with(generation, R"({"eos_token_id":[0,"2"]})"), errc::corrupt,
          "eos_token_id");
  refused(with(generation, R"({"temperature":-1})"), errc::corrupt,
          "temperature is -1, not from 0 to 2");
  refused(with(generation, R"({"top_k":"20"})"), errc::corrupt,
          "top_k is not a whole number");
  refused(with("tokenizer_config.json", "{"), errc::corrupt,
          "tokenizer_config.json");
  refused(with("tokenizer_config.json", R"({"eos_token":"<none>"})"),
          errc::corrupt, "eos_token is not in the vocabulary");
  refused(with("tokenizer.json", "{"), errc::corrupt, "tokenizer.json");
  broken_directory large;
  std::filesystem::resize_file(large.path() / "tokenizer.json", 500u << 20);
  refused(large.card(), errc::limit, "tokenizer.json: larger than");
  broken_directory sentence_piece;
  std::filesystem::rename(sentence_piece.path() / "tokenizer.json",
                          sentence_piece.path() / "tokenizer.model");
  refused(sentence_piece.card(), errc::unsupported,
          "tokenizer.model: not read");
}
