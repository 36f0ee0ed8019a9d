#include "engine/model/hugging_face/config_json.hpp"
#include "engine/model/hugging_face/directory.hpp"
#include "engine/model/model_config.hpp"
#include "engine/weights/gguf.hpp"

#include "tests/unit/model/zero_model.hpp"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

using namespace troupe;
using namespace troupe::test;
namespace fs = std::filesystem;
namespace hf = troupe::model::hugging_face;

namespace {

result<model::model_config> read(const gguf_builder& builder) {
  auto bytes = builder.build();
  auto file = weights::gguf_file::parse(as_bytes(bytes), "zero.gguf");
  REQUIRE(file.has_value());
  return model::read_model_config(**file);
}

template <class T>
void refused(const result<T>& what, errc code, const std::string& words) {
  INFO(words);
  REQUIRE(!what);
  CHECK_THAT(what.error().message, Catch::Contains(words));
  CHECK(what.error().code == code);
}

/// A file of zeros that scores.
gguf_builder scoring_model(const std::string& name) {
  auto out = zero_model(name);
  out.u32(name + ".pooling_type", 4);
  out.f32_tensor("cls.weight", {16, 16});
  out.f32_tensor("cls.bias", {16});
  out.f32_tensor("cls.output.weight", {16, 1});
  out.f32_tensor("cls.output.bias", {1});
  if (name == "modern-bert")
    out.f32_tensor("cls.norm.weight", {16});
  return out;
}

std::string modern(const std::string& more) {
  return R"({"model_type": "modernbert", "hidden_size": 32,
    "num_attention_heads": 2, "num_hidden_layers": 3, "vocab_size": 9,
    "intermediate_size": 8, "max_position_embeddings": 64,
    "local_attention": 8)" +
         more + "}";
}

std::string bert_score(const std::string& more) {
  return R"({"model_type": "bert",
    "architectures": ["BertForSequenceClassification"], "hidden_size": 32,
    "num_attention_heads": 2, "num_hidden_layers": 3, "vocab_size": 9,
    "intermediate_size": 8, "max_position_embeddings": 64)" +
         more + "}";
}

constexpr auto one_label = R"(, "id2label": {"0": "a"})";

/// A copy of a tiny model whose files a test changes.
class copied_model {
public:
  explicit copied_model(const std::string& name = "bert-embedding")
      : path_(fs::temp_directory_path() /
              ("troupe-encoder-" + std::to_string(::getpid()))) {
    fs::remove_all(path_);
    fs::copy(fs::path{TROUPE_SOURCE_DIR} / "tests/reference/encoders" / name,
             path_, fs::copy_options::recursive);
  }
  ~copied_model() {
    fs::remove_all(path_);
  }
  void write(const std::string& name, const std::string& text) {
    std::ofstream{path_ / name, std::ios::binary} << text;
  }
  void remove(const std::string& name) {
    fs::remove(path_ / name);
  }
  result<model::model_config> read() {
    auto file = hf::open_directory(path_);
    if (!file)
      return file.error();
    return model::read_model_config(**file);
  }

private:
  fs::path path_;
};

std::string modules(const std::string& second, const std::string& third) {
  return R"([{"type": "sentence_transformers.models.Transformer", "path": ""},
    {"type": "sentence_transformers.models.)" +
         second + R"(", "path": "1_Pooling"})" + third + "]";
}

} // namespace

TEST_CASE("GGUF's poolings are read, others are refused") {
  using enum model::pooling::rows;
  const auto with = [](std::uint32_t type) {
    return read(zero_model("bert").u32("bert.pooling_type", type));
  };
  CHECK(with(1)->pooling.of == mean);
  CHECK(with(2)->pooling.of == first);
  CHECK(with(3)->pooling.of == last);
  CHECK(read(zero_model("bert"))->pooling.of == mean);
  CHECK(with(1)->pooling.normalised);
  refused(with(0), errc::unsupported, "pooling_type' is 0");
  refused(with(5), errc::unsupported, "pooling_type' is 5");
  refused(read(zero_model("bert").boolean("bert.attention.causal", true)),
          errc::unsupported, "attention.causal");
}

TEST_CASE("a decoder is pooled if its file says how") {
  const auto with = [](std::uint32_t type) {
    return read(zero_model("qwen3").u32("qwen3.pooling_type", type));
  };
  CHECK_FALSE(read(zero_model("qwen3"))->pooled);
  CHECK_FALSE(with(0)->pooled);
  CHECK(with(3)->pooled);
  CHECK(with(3)->pooling.of == model::pooling::rows::last);
  refused(with(4), errc::unsupported, "pooling_type' is 4");
  copied_model model{"qwen3-embedding"};
  CHECK(model.read()->pooled);
  CHECK(model.read()->attention_of(0).ahead == 0);
  model.remove("modules.json");
  refused(model.read(), errc::unsupported, "a class that draws no tokens");
}

TEST_CASE("a head of scores has to be whole and to have one label") {
  for (const std::string name : {"bert", "modern-bert"}) {
    const auto whole = scoring_model(name);
    const auto config = read(whole);
    INFO((config ? std::string{} : config.error().message));
    REQUIRE(config.has_value());
    CHECK(config->pooling.has_head);
    CHECK(config->pooling.biased_head);
    CHECK(config->pooling.sigmoid);
    CHECK_FALSE(config->pooling.normalised);
    for (const std::string tensor :
         {"cls.weight", "cls.output.weight", "cls.output.bias"}) {
      auto without = whole;
      without.tensor(tensor).name = "something_else";
      refused(read(without), errc::corrupt, "'" + tensor + "' is missing");
    }
    auto more = whole;
    more.strings(name + ".classifier.output_labels", {"a", "b"});
    refused(read(more), errc::unsupported, "names 2 labels");
    auto two = whole;
    two.tensor("cls.output.weight").shape = {16, 2};
    two.tensor("cls.output.weight").data.assign(128, '\0');
    refused(read(two), errc::corrupt, "has the shape");
  }
  auto unused = scoring_model("bert");
  refused(read(unused.u32("bert.pooling_type", 1)), errc::unsupported, "'cls.");
}

TEST_CASE("an encoder's tables have to fit its numbers") {
  auto brief = zero_model("bert");
  brief.u32("bert.context_length", 65);
  refused(read(brief), errc::corrupt, "the table of positions has 64 rows");
  auto types = zero_model("bert");
  types.tensor("token_types.weight").shape = {8, 4};
  refused(read(types), errc::corrupt, "'token_types.weight' has the shape");
}

TEST_CASE("windows of ModernBERT lie on both sides, but in every third layer") {
  auto file = zero_model("modern-bert");
  auto config = read(file.u32("modern-bert.attention.sliding_window", 10));
  REQUIRE(config.has_value());
  for (std::int32_t layer = 0; layer < 7; ++layer) {
    const bool whole = layer % 3 == 0;
    CHECK(config->attention_of(layer).window == (whole ? 0 : 6));
    CHECK(config->attention_of(layer).ahead == (whole ? ops::all_ahead : 5));
  }
}

TEST_CASE("ModernBERT's older words for its ropes and layers are read") {
  using weights::metadata_value;
  const auto said =
      hf::read_config_json(modern(R"(, "global_rope_theta": 5000.0,
        "local_rope_theta": 70.0, "global_attn_every_n_layers": 2)"));
  REQUIRE(said.has_value());
  const auto at = [&](const std::string& key) {
    return said->metadata.find("modern-bert." + key)->second;
  };
  CHECK(at("rope.freq_base") == metadata_value{5000.0});
  CHECK(at("rope.freq_base_swa") == metadata_value{70.0});
  CHECK(at("attention.sliding_window_pattern") ==
        metadata_value{std::int64_t{2}});
  const auto silent = hf::read_config_json(modern(""));
  REQUIRE(silent.has_value());
  CHECK(silent->metadata.find("modern-bert.rope.freq_base")->second ==
        metadata_value{160000.0});
  CHECK(silent->tied);
  for (const std::string key : {"norm_bias", "attention_bias", "mlp_bias"})
    refused(hf::read_config_json(modern(", \"" + key + "\": true")),
            errc::unsupported, key);
  refused(hf::read_config_json(modern(R"(, "hidden_activation": "relu")")),
          errc::unsupported, "hidden_activation");
}

TEST_CASE("a model that scores has one label and a known activation") {
  const auto sigmoid_of = [](const std::string& more) {
    auto read = hf::read_config_json(bert_score(one_label + more));
    INFO((read ? std::string{} : read.error().message));
    REQUIRE(read.has_value());
    return std::get<bool>(read->metadata.find("troupe.sigmoid")->second);
  };
  CHECK(sigmoid_of(""));
  CHECK_FALSE(sigmoid_of(
      R"(, "sbert_ce_default_activation_function":
         "torch.nn.modules.linear.Identity")"));
  CHECK_FALSE(sigmoid_of(
      R"(, "sentence_transformers": {"activation_fn":
         "torch.nn.modules.linear.Identity"})"));
  refused(hf::read_config_json(bert_score(
              std::string{one_label} +
              R"(, "sentence_transformers": {"activation_fn": "os.system"})")),
          errc::unsupported, "os.system");
  refused(hf::read_config_json(bert_score("")), errc::unsupported,
          "says 2 labels");
  refused(hf::read_config_json(
              bert_score(R"(, "id2label": {"0": "a", "1": "b", "2": "c"})")),
          errc::unsupported, "id2label says 3 labels");
  CHECK(hf::read_config_json(bert_score(R"(, "num_labels": 1)")).has_value());
}

TEST_CASE("what BERT would compute otherwise is refused by name") {
  for (const auto& [more, words] :
       {std::pair{R"(, "hidden_act": "relu")", "hidden_act"},
        {R"(, "position_embedding_type": "relative_key")",
         "position_embedding_type"},
        {R"(, "is_decoder": true)", "is_decoder"}})
    refused(hf::read_config_json(bert_score(std::string{one_label} + more)),
            errc::unsupported, words);
  refused(
      hf::read_config_json(
          R"({"model_type": "bert", "architectures": ["BertForMaskedLM"]})"),
      errc::unsupported,
      "'BertForMaskedLM', not BertModel or BertForSequenceClassification");
  const std::string roberta =
      R"({"model_type": "roberta", "hidden_size": 32,
    "num_attention_heads": 2, "num_hidden_layers": 3, "vocab_size": 9,
    "intermediate_size": 8, "max_position_embeddings": 2)";
  refused(hf::read_config_json(roberta + "}"), errc::corrupt,
          "leaves none after the padding's");
  refused(hf::read_config_json(roberta + R"(, "pad_token_id": -1})"),
          errc::corrupt, "pad_token_id");
}

TEST_CASE("sentence-transformers' modules are read, others are refused") {
  using enum model::pooling::rows;
  copied_model model;
  REQUIRE(model.read().has_value());
  CHECK(model.read()->pooling.normalised);
  const std::string dense =
      R"(, {"type": "sentence_transformers.models.Dense", "path": "2_Dense"})";
  model.write("modules.json", modules("Pooling", dense));
  refused(model.read(), errc::unsupported, "models.Dense' as number 2");
  model.write("modules.json", modules("WeightedLayerPooling", ""));
  refused(model.read(), errc::unsupported, "WeightedLayerPooling");
  for (const std::string bad :
       {"{}", "[1]", "[", R"([], "modules": [])", R"([], "more": 1)"}) {
    model.write("modules.json", bad);
    refused(model.read(), errc::corrupt, "modules.json");
  }
  model.write("modules.json",
              R"([{"type": "sentence_transformers.models.Transformer"}])");
  refused(model.read(), errc::unsupported, "names no pooling");
  model.write("modules.json",
              R"([{"type": "x.Transformer", "path": ""},
                  {"type": "x.Pooling", "path": "../1_Pooling"}])");
  refused(model.read(), errc::unsupported, "modules.json: type");
  model.write("modules.json", modules("Pooling", ""));
  CHECK_FALSE(model.read()->pooling.normalised);
  const auto config = "1_Pooling/config.json";
  for (auto [text, rows] : {std::pair{R"({"pooling_mode_cls_token": true,
                      "pooling_mode_mean_tokens": false})",
                                      first},
                            {R"({"pooling_mode_lasttoken": true})", last},
                            {R"({"pooling_mode": "mean"})", mean}}) {
    model.write(config, text);
    CHECK(model.read()->pooling.of == rows);
  }
  for (auto [text, words] :
       {std::pair{R"({"pooling_mode_max_tokens": true})", "'max_tokens'"},
        {R"({"pooling_mode_cls_token": true,
             "pooling_mode_mean_tokens": true})",
         "cls_token+mean_tokens"},
        {R"({"pooling_mode": "weightedmean"})", "weightedmean"}}) {
    model.write(config, text);
    refused(model.read(), errc::unsupported, words);
  }
  model.remove(config);
  refused(model.read(), errc::not_found, "1_Pooling/config.json");
}

TEST_CASE("the longest text is what sentence-transformers' files say") {
  copied_model model;
  CHECK(model.read()->context_length == 72);
  const auto name = "sentence_bert_config.json";
  model.write(name, R"({"max_seq_length": 500})");
  CHECK(model.read()->context_length == 80);
  model.write(name, R"({"max_seq_length": null})");
  CHECK(model.read()->context_length == 80);
  for (const std::string bad : {"0", "-1", "\"a\"", "1e3"}) {
    model.write(name, "{\"max_seq_length\": " + bad + "}");
    refused(model.read(), errc::corrupt, "max_seq_length");
  }
  model.write(name, R"({"do_lower_case": true})");
  refused(model.read(), errc::unsupported, "do_lower_case");
  model.remove(name);
  model.remove("modules.json");
  CHECK(model.read()->pooling.of == model::pooling::rows::mean);
  CHECK_FALSE(model.read()->pooling.normalised);
}
