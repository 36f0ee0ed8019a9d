// One operation of the GPU's backend, of a shape of one's choice, for who
// counts what its kernels do, or measures them (bench/gpu_kernels.py):
//
//   bench_gpu_kernels [--measure [--chosen]] OPERATION
//
// with OPERATION
//
//   linear TYPE OUTPUTS COLS ROWS [--gated] [--normed] [--prompt]
//   experts TYPE EXPERTS CHOSEN COLS INNER ROWS
//   attention HEADS KV_HEADS HEAD_DIM CONTEXT ROWS [--prompt]
//
// Without --measure it is run once. With it steps of many such operations run,
// where the rows are outputs as a graph, and the microseconds of one are
// printed as JSON, with its part of what a step takes beside its calls; weights
// (but for experts'), keys and values are more than a cache holds. --chosen:
// products are made as the trial between our own and a library's says, else by
// our own.
//
// TYPE: bf16, f16, f32, e4m3. Gated: half of the outputs are gates. An
// attention's rows are outputs, each the last position of a sequence of its
// own, or the last ones of one prompt. Numbers are random, since zeros let
// a GPU run faster, but for keys and values, which are 0. Rows choose experts
// in turn.

#include "bench/measuring.hpp"
#include "engine/ops/backend.hpp"
#include "engine/ops/cuda_module.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

using namespace troupe;

namespace {

constexpr std::int32_t block_tokens = 16;

/// What is asked for beside the operation.
struct wishes {
  bool measures = false;
  bool takes_chosen = false;

  /// How often what an operation reads has to be there, so that no cache holds
  /// all of it.
  std::int64_t copies_of(std::int64_t bytes) const {
    constexpr std::int64_t more_than_caches = 256 << 20, most = 200;
    return measures ? std::min(more_than_caches / bytes + 2, most) : 1;
  }
};

/// The rows of a step, and where their keys and values are.
class step {
public:
  /// Rows that are each the last of a sequence of so many positions, or the
  /// last ones of one sequence.
  step(std::int32_t rows, std::int32_t context, bool is_prompt)
      : rows_(rows), context_(context), is_prompt_(is_prompt), ids_(rows) {
    const auto of_sequence = is_prompt ? rows : 1;
    for (std::int32_t s = 0; s < sequences(); ++s) {
      lists_.emplace_back();
      for (std::int32_t b = 0; b < blocks_of_sequence(); ++b)
        lists_.back().push_back(s * blocks_of_sequence() + b);
      for (auto r = of_sequence; r > 0; --r) {
        positions_.push_back(context - r);
        sequences_.push_back(s);
      }
    }
    tables_.assign(lists_.begin(), lists_.end());
  }

  std::int32_t blocks() const {
    return sequences() * blocks_of_sequence();
  }

  ops::batch_view batch() const {
    return {positions_, sequences_, tables_};
  }

  ops::step_bounds bounds() const {
    ops::step_bounds out;
    out.rows = rows_;
    out.sequences = sequences();
    out.table_entries = blocks();
    out.positions = context_;
    return out;
  }

  /// Makes `calls` as an engine's step does.
  void run(ops::backend& by, const std::function<void()>& calls) const {
    ops::step_input in;
    in.ids = ids_;
    in.batch = batch();
    in.repeats = !is_prompt_;
    by.run_step(in, calls);
  }

private:
  std::int32_t sequences() const {
    return is_prompt_ ? 1 : rows_;
  }
  std::int32_t blocks_of_sequence() const {
    return (context_ + block_tokens - 1) / block_tokens;
  }

  std::int32_t rows_, context_;
  bool is_prompt_;
  std::vector<std::int32_t> ids_, positions_, sequences_;
  std::vector<std::vector<std::int32_t>> lists_;
  std::vector<std::span<const std::int32_t>> tables_;
};

/// Waits for all that was asked for.
void wait(ops::backend& by, ops::buffer& out) {
  std::vector<float> one(1);
  by.download(out.data(), one);
}

/// Calls call(copy) once, or measures it: what two more steps take.
void perform(ops::backend& by, const wishes& how, const step& in,
             std::int64_t copies, ops::buffer& out,
             const std::function<void(std::int64_t)>& call) {
  if (!how.measures) {
    call(0);
    return wait(by, out);
  }
  const auto calls = std::max<std::int64_t>(copies, 20);
  const auto seconds_of = [&](int steps) {
    const auto begin = bench::now();
    for (int s = 0; s < steps; ++s)
      in.run(by, [&] {
        for (std::int64_t i = 0; i < calls; ++i)
          call(i % copies);
      });
    wait(by, out);
    return bench::now() - begin;
  };
  seconds_of(2); // loads kernels, makes the graph
  std::vector<double> times;
  for (int i = 0; i < 9; ++i)
    times.push_back((seconds_of(3) - seconds_of(1)) / 2);
  std::printf("{\"us\": %.6g, \"arithmetic\": \"%s\"}\n",
              bench::median(times) / static_cast<double>(calls) * 1e6,
              by.arithmetic().c_str());
}

struct linear_shape {
  std::string type = "bf16";
  std::int64_t outputs = 0, cols = 0, rows = 0;
  bool is_gated = false;
  bool is_normed = false;
  bool is_prompt = false;
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

/// Numbers of a weight, of magnitudes from 1/2 to 1: some at random, again and
/// again.
std::vector<std::byte> numbers_of(const std::string& type, std::int64_t count) {
  constexpr std::size_t some = 1 << 20;
  std::mt19937 random{1};
  std::vector<std::byte> out;
  const auto put = [&](const auto& bits) {
    const auto bytes = std::as_bytes(std::span{&bits, 1});
    out.insert(out.end(), bytes.begin(), bytes.end());
  };
  const auto all = static_cast<std::size_t>(count);
  for (std::size_t i = 0; i < std::min(all, some); ++i) {
    const auto bits = static_cast<std::uint32_t>(random());
    if (type == "f32")
      put((bits & 0x807fffffu) | 0x3f000000u);
    else
      put(static_cast<std::uint16_t>(type == "f16"
                                         ? (bits & 0x83ffu) | 0x3800u
                                         : (bits & 0x807fu) | 0x3f00u));
  }
  const auto made = out.size();
  out.resize(made / std::min(all, some) * all);
  for (auto at = made; at < out.size(); at += made)
    std::copy_n(out.begin(), std::min(made, out.size() - at),
                out.begin() + static_cast<std::ptrdiff_t>(at));
  return out;
}

/// From -1 to 1.
std::vector<float> random_floats(std::int64_t count) {
  std::mt19937 random{2};
  std::vector<float> out(static_cast<std::size_t>(count));
  for (auto& x : out)
    x = static_cast<float>(static_cast<std::int32_t>(random())) * 0x1p-31f;
  return out;
}

void multiply(ops::backend& by, const wishes& how, const linear_shape& of) {
  const auto numbers = numbers_of(of.type, of.outputs * of.cols);
  const auto view = view_of(of.type, of.outputs, of.cols, numbers);
  const auto stored = static_cast<std::int64_t>(numbers.size());
  const auto copies = how.copies_of(of.type == "e4m3" ? stored / 2 : stored);
  std::vector<std::unique_ptr<ops::weight>> weights;
  for (std::int64_t i = 0; i < copies; ++i)
    weights.push_back(by.load({&view, 1}).value());
  auto x = by.upload(random_floats(of.rows * of.cols));
  auto y = by.allocate(of.rows * of.outputs);
  auto normed = by.allocate(of.rows * of.cols);
  auto products = by.allocate(of.rows * of.outputs);
  auto norm =
      by.upload(std::vector<float>(static_cast<std::size_t>(of.cols), 1));
  const step in{static_cast<std::int32_t>(of.rows),
                1 + (of.is_prompt ? static_cast<std::int32_t>(of.rows) : 0),
                of.is_prompt};
  if (how.measures) {
    auto bounds = in.bounds();
    if (how.takes_chosen) // a trial has the memory of keys and values
      bounds.kv = {1, 1, 64, block_tokens, 1 << 20};
    (void)by.prepare(bounds).value();
  }
  ops::joined_steps with;
  with.norm = of.is_normed ? norm.get() : nullptr;
  with.epsilon = 1e-6f;
  with.normed = normed->data();
  with.products = products->data();
  if (of.is_gated)
    with.gated = ops::gate::silu;
  perform(by, how, in, copies, *y, [&](std::int64_t copy) {
    by.linear_joined(*weights[static_cast<std::size_t>(copy)], x->data(),
                     of.rows, with, y->data(),
                     of.is_prompt ? ops::row_role::prompt
                                  : ops::row_role::output);
  });
}

void mix(ops::backend& by, const wishes& wanted, const mixture_shape& of) {
  const auto& how = of.how;
  const auto numbers = numbers_of(of.type, how.cols * how.inner);
  const auto up = view_of(of.type, how.inner, how.cols, numbers);
  const std::vector<ops::expert_matrices> all(
      static_cast<std::size_t>(how.experts),
      {up, up, view_of(of.type, how.cols, how.inner, numbers)});
  auto experts = by.load_experts(all).value();
  auto x = by.upload(random_floats(of.rows * how.cols));
  std::vector<float> chosen(static_cast<std::size_t>(of.rows * how.experts));
  for (std::int64_t pair = 0; pair < of.rows * how.chosen; ++pair)
    chosen[static_cast<std::size_t>(pair / how.chosen * how.experts +
                                    pair % how.experts)] = 1;
  auto scores = by.upload(chosen);
  auto y = by.allocate(of.rows * how.cols);
  const step in{static_cast<std::int32_t>(of.rows), 1, false};
  if (wanted.measures) {
    auto bounds = in.bounds();
    bounds.mixture = how;
    (void)by.prepare(bounds).value();
  }
  perform(by, wanted, in, 1, *y, [&](std::int64_t) {
    (void)by.mix_experts(*experts, how, x->data(), scores->data(), of.rows,
                         y->data());
  });
}

void attend(ops::backend& by, const wishes& wanted, const attention_shape& of) {
  const step in{of.rows, of.context, of.is_prompt};
  constexpr std::int64_t numbers = 2, bytes = 2; // of keys and values, f16
  const auto layers = wanted.copies_of(
      numbers * bytes * of.kv_heads * of.head_dim * block_tokens * in.blocks());
  auto bounds = in.bounds();
  bounds.kv = {static_cast<std::int32_t>(layers), of.kv_heads, of.head_dim,
               block_tokens, in.blocks()};
  auto pool = by.make_kv_pool(bounds.kv).value();
  (void)by.prepare(bounds).value();
  const std::int64_t width = std::int64_t{of.heads} * of.head_dim;
  const auto stride = width + 2 * std::int64_t{of.kv_heads} * of.head_dim;
  auto qkv = by.upload(random_floats(of.rows * stride));
  auto out = by.allocate(of.rows * width);
  ops::attention_params how;
  how.heads = of.heads;
  const auto batch = in.batch();
  perform(by, wanted, in, layers, *out, [&](std::int64_t layer) {
    by.attention(qkv->data(), how, batch, static_cast<std::int32_t>(layer),
                 *pool, out->data());
  });
}

} // namespace

int main(int argc, char** argv) {
  CLI::App app{"One operation on a GPU"};
  wishes wanted;
  linear_shape linear;
  attention_shape attention;
  auto* measures = app.add_flag("--measure", wanted.measures);
  app.add_flag("--chosen", wanted.takes_chosen)->needs(measures);
  auto* multiplies = app.add_subcommand("linear", "A product with a weight");
  multiplies->add_option("TYPE", linear.type)
      ->required()
      ->check(CLI::IsMember({"bf16", "f16", "f32", "e4m3"}));
  multiplies->add_option("OUTPUTS", linear.outputs)->required();
  multiplies->add_option("COLS", linear.cols)->required();
  multiplies->add_option("ROWS", linear.rows)->required();
  multiplies->add_flag("--gated", linear.is_gated);
  multiplies->add_flag("--normed", linear.is_normed);
  multiplies->add_flag("--prompt", linear.is_prompt);
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
    multiply(*device->backend, wanted, linear);
  else if (mixes->parsed())
    mix(*device->backend, wanted, mixture);
  else
    attend(*device->backend, wanted, attention);
  return 0;
}
