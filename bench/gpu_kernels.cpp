// One operation of the GPU's backend, of a shape of one's choice, for who
// counts what its kernels do (bench/gpu_kernels.py):
//
//   bench_gpu_kernels linear TYPE OUTPUTS COLS ROWS [--gated] [--normed]
//   bench_gpu_kernels experts TYPE EXPERTS CHOSEN COLS INNER ROWS
//   bench_gpu_kernels attention HEADS KV_HEADS HEAD_DIM CONTEXT ROWS [--prompt]
//
// TYPE: bf16, f16, f32, e4m3. Gated: half of the outputs are gates. An
// attention's rows are outputs, each the last position of a sequence of its
// own, or the last ones of one prompt. The numbers are all alike: the kernels
// do the same for any; rows choose experts in turn.

#include "engine/ops/backend.hpp"
#include "engine/ops/cuda_module.hpp"

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

using namespace troupe;

namespace {

constexpr std::int32_t block_tokens = 16;

struct linear_shape {
  std::string type = "bf16";
  std::int64_t outputs = 0, cols = 0, rows = 0;
  bool is_gated = false;
  bool is_normed = false;
};

struct mixture_shape {
  std::string type = "bf16";
  ops::mixture_params how;
  std::int64_t rows = 0;
};

struct attention_shape {
  std::int32_t heads = 0, kv_heads = 0, head_dim = 0, context = 0, rows = 0;
  bool is_prompt = false;
};

ops::matrix_view view_of(const std::string& type, std::int64_t rows,
                         std::int64_t cols,
                         const std::vector<std::byte>& bytes) {
  ops::matrix_view out;
  out.type = type == "f32"   ? ops::element_type::f32
             : type == "f16" ? ops::element_type::f16
                             : ops::element_type::bf16;
  out.rows = rows;
  out.cols = cols;
  out.bytes = bytes;
  out.as_e4m3 = type == "e4m3";
  return out;
}

std::vector<std::byte> zeros_of(const std::string& type, std::int64_t count) {
  return std::vector<std::byte>(
      static_cast<std::size_t>(count * (type == "f32" ? 4 : 2)));
}

void multiply(ops::backend& by, const linear_shape& of) {
  const auto zeros = zeros_of(of.type, of.outputs * of.cols);
  const auto view = view_of(of.type, of.outputs, of.cols, zeros);
  auto weight = by.load({&view, 1}).value();
  auto x = by.upload(
      std::vector<float>(static_cast<std::size_t>(of.rows * of.cols)));
  auto y = by.allocate(of.rows * of.outputs);
  auto norm =
      by.upload(std::vector<float>(static_cast<std::size_t>(of.cols), 1));
  ops::joined_steps with;
  with.norm = of.is_normed ? norm.get() : nullptr;
  with.epsilon = 1e-6f;
  if (of.is_gated)
    with.gated = ops::gate::silu;
  by.linear_joined(*weight, x->data(), of.rows, with, y->data());
  std::vector<float> out(1);
  by.download(y->data(), out);
}

void mix(ops::backend& by, const mixture_shape& of) {
  const auto& how = of.how;
  const auto zeros = zeros_of(of.type, how.cols * how.inner);
  const auto up = view_of(of.type, how.inner, how.cols, zeros);
  const std::vector<ops::expert_matrices> all(
      static_cast<std::size_t>(how.experts),
      {up, up, view_of(of.type, how.cols, how.inner, zeros)});
  auto experts = by.load_experts(all).value();
  auto x = by.upload(
      std::vector<float>(static_cast<std::size_t>(of.rows * how.cols)));
  std::vector<float> chosen(static_cast<std::size_t>(of.rows * how.experts));
  for (std::int64_t pair = 0; pair < of.rows * how.chosen; ++pair)
    chosen[static_cast<std::size_t>(pair / how.chosen * how.experts +
                                    pair % how.experts)] = 1;
  auto scores = by.upload(chosen);
  auto y = by.allocate(of.rows * how.cols);
  (void)by.mix_experts(*experts, how, x->data(), scores->data(), of.rows,
                       y->data());
  std::vector<float> out(1);
  by.download(y->data(), out);
}

void attend(ops::backend& by, const attention_shape& of) {
  const auto blocks = (of.context + block_tokens - 1) / block_tokens;
  const auto of_prompt = of.is_prompt ? of.rows : 1; // rows of a sequence
  const auto count = of.rows / of_prompt;
  ops::step_bounds bounds;
  bounds.rows = of.rows;
  bounds.sequences = count;
  bounds.table_entries = std::int64_t{blocks} * count;
  bounds.positions = of.context;
  bounds.kv = {1, of.kv_heads, of.head_dim, block_tokens, blocks * count};
  auto pool = by.make_kv_pool(bounds.kv).value();
  (void)by.prepare(bounds).value();
  std::vector<std::vector<std::int32_t>> lists;
  std::vector<std::span<const std::int32_t>> tables;
  std::vector<std::int32_t> positions, sequences;
  for (std::int32_t s = 0; s < count; ++s) {
    lists.emplace_back();
    for (std::int32_t b = 0; b < blocks; ++b)
      lists.back().push_back(s * blocks + b);
    for (auto r = of_prompt; r > 0; --r) {
      positions.push_back(of.context - r);
      sequences.push_back(s);
    }
  }
  tables.assign(lists.begin(), lists.end());
  const std::int64_t width = std::int64_t{of.heads} * of.head_dim;
  const auto stride = width + 2 * std::int64_t{of.kv_heads} * of.head_dim;
  auto qkv =
      by.upload(std::vector<float>(static_cast<std::size_t>(of.rows * stride)));
  auto out = by.allocate(of.rows * width);
  ops::attention_params how;
  how.heads = of.heads;
  const ops::batch_view batch{positions, sequences, tables};
  by.attention(qkv->data(), how, batch, 0, *pool, out->data());
  std::vector<float> one(1);
  by.download(out->data(), one);
}

} // namespace

int main(int argc, char** argv) {
  CLI::App app{"One operation on a GPU"};
  linear_shape linear;
  attention_shape attention;
  auto* multiplies = app.add_subcommand("linear", "A product with a weight");
  multiplies->add_option("TYPE", linear.type)
      ->required()
      ->check(CLI::IsMember({"bf16", "f16", "f32", "e4m3"}));
  multiplies->add_option("OUTPUTS", linear.outputs)->required();
  multiplies->add_option("COLS", linear.cols)->required();
  multiplies->add_option("ROWS", linear.rows)->required();
  multiplies->add_flag("--gated", linear.is_gated);
  multiplies->add_flag("--normed", linear.is_normed);
  mixture_shape mixture;
  auto* mixes = app.add_subcommand("experts", "A layer's mixture");
  mixes->add_option("TYPE", mixture.type)
      ->required()
      ->check(CLI::IsMember({"bf16", "f16", "f32", "e4m3"}));
  mixes->add_option("EXPERTS", mixture.how.experts)->required();
  mixes->add_option("CHOSEN", mixture.how.chosen)->required();
  mixes->add_option("COLS", mixture.how.cols)->required();
  mixes->add_option("INNER", mixture.how.inner)->required();
  mixes->add_option("ROWS", mixture.rows)->required();
  auto* attends = app.add_subcommand("attention", "Attention of outputs");
  attends->add_option("HEADS", attention.heads)->required();
  attends->add_option("KV_HEADS", attention.kv_heads)->required();
  attends->add_option("HEAD_DIM", attention.head_dim)->required();
  attends->add_option("CONTEXT", attention.context)->required();
  attends->add_option("ROWS", attention.rows)->required();
  attends->add_flag("--prompt", attention.is_prompt);
  app.require_subcommand(1);
  CLI11_PARSE(app, argc, argv);
  auto device = ops::open_cuda({});
  if (!device) {
    std::fprintf(stderr, "%s\n", device.error().message.c_str());
    return 1;
  }
  if (multiplies->parsed())
    multiply(*device->backend, linear);
  else if (mixes->parsed())
    mix(*device->backend, mixture);
  else
    attend(*device->backend, attention);
  return 0;
}
