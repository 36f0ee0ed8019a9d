#include "engine/model/hugging_face/module_names.hpp"

#include <catch2/catch.hpp>

using namespace troupe::model::hugging_face;

namespace {

family sample() {
  family out;
  out.modules = {
      {"model.layers.*.input_layernorm", "blk.*.attn_norm", change::plus_one},
      {"model.layers.*.mlp.experts.*.up_proj", "blk.*.ffn_up_exps"},
      {"model.layers.*.rotary", ""}};
  return out;
}

std::string to(std::string_view module) {
  auto name = name_module(sample(), module);
  return name ? name->to : "nothing";
}

} // namespace

TEST_CASE("modules are named by the rows of the family, then the common ones") {
  CHECK(to("model.embed_tokens") == "token_embd");
  CHECK(to("model.layers.0.self_attn.q_proj") == "blk.0.attn_q");
  CHECK(to("model.layers.123.mlp.down_proj") == "blk.123.ffn_down");
  CHECK(to("model.layers.7.rotary") == "");
  auto norm = name_module(sample(), "model.layers.1.input_layernorm");
  REQUIRE(norm);
  CHECK(norm->how == change::plus_one);
  CHECK(norm->in_stack == -1);
}

TEST_CASE("a second number is a place in a stack") {
  auto expert = name_module(sample(), "model.layers.3.mlp.experts.12.up_proj");
  REQUIRE(expert);
  CHECK(expert->to == "blk.3.ffn_up_exps");
  CHECK(expert->in_stack == 12);
}

TEST_CASE("what is no module of the family has no name") {
  for (auto module :
       {"", "model", "model.embed_tokens.x", "model.layers..input_layernorm",
        "model.layers.x.input_layernorm", "model.layers.01.input_layernorm",
        "model.layers.-1.input_layernorm",
        "model.layers.1234567.input_layernorm",
        "model.layers.1.mlp.experts..up_proj", "model.layers.1.mlp"})
    CHECK(to(module) == "nothing");
}
