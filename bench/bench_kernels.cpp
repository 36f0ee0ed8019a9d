// Speed of the CPU kernels on the shape of SmolLM2-135M with random weights:
// forward passes of decode and prefill, in turns with readings of memory, since
// the machine's own speed changes by the second.
//
//   bench_kernels [--threads N] [--seconds S] [--layer-type q4_1] [--only NAME]

#include "bench/measuring.hpp"
#include "engine/ops/cpu/cpu_backend.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sys/mman.h>
#include <thread>

using namespace troupe;
using namespace troupe::ops;
using namespace troupe::bench;

namespace {

constexpr std::int64_t hidden = 576, ffn = 1536, vocabulary = 49152;
constexpr std::int32_t layers = 30, heads = 9, kv_heads = 3, head_dim = 64;
constexpr std::int64_t qkv_width = (heads + 2 * kv_heads) * head_dim;
constexpr std::int32_t block_tokens = 16;

struct layer_weights {
  std::unique_ptr<weight> qkv, output, gate_up, down;
};

struct model {
  backend& ops;
  std::vector<layer_weights> layer;
  std::unique_ptr<weight> head;
  std::unique_ptr<buffer> norm;
  std::int64_t bytes = 0;
  element_type type; ///< of layers

  model(backend& b, element_type of) : ops(b), type(of) {
    for (int i = 0; i < layers; ++i)
      layer.push_back(
          {make(type, {qkv_width}, hidden), make(type, {hidden}, hidden),
           make(type, {ffn, ffn}, hidden), make(type, {hidden}, ffn)});
    head = make(element_type::q8_0, {vocabulary}, hidden);
    norm = ops.upload(std::vector<float>(ffn, 1.0f));
  }

  std::unique_ptr<weight> make(element_type type,
                               const std::vector<std::int64_t>& parts,
                               std::int64_t cols) {
    std::vector<std::vector<std::byte>> raw;
    std::vector<matrix_view> views;
    for (const auto rows : parts)
      raw.push_back(random_bytes(type, rows * cols));
    for (std::size_t i = 0; i < parts.size(); ++i)
      views.push_back({type, parts[i], cols, raw[i]});
    auto made = ops.load(views).value();
    bytes += made->bytes();
    return made;
  }
};

/// Buffers, pool and tables for steps of up to `rows` rows.
struct session {
  model& m;
  std::unique_ptr<kv_pool> pool;
  std::unique_ptr<buffer> x, normed, qkv, attended, gate_up, gated, logits;
  std::vector<std::vector<std::int32_t>> tables;
  std::map<std::string, double> time;

  session(model& from, std::int64_t rows, std::int32_t sequences,
          std::int32_t context)
      : m(from) {
    const auto blocks = (context + block_tokens - 1) / block_tokens;
    pool = m.ops
               .make_kv_pool({layers, kv_heads, head_dim, block_tokens,
                              blocks * sequences, m.type == element_type::bf16})
               .value();
    for (std::int32_t s = 0; s < sequences; ++s)
      for (std::int32_t b = 0; b < blocks; ++b)
        (b == 0 ? tables.emplace_back() : tables[s]).push_back(s * blocks + b);
    x = m.ops.allocate(rows * hidden);
    normed = m.ops.allocate(rows * hidden);
    qkv = m.ops.allocate(rows * qkv_width);
    attended = m.ops.allocate(rows * hidden);
    gate_up = m.ops.allocate(rows * 2 * ffn);
    gated = m.ops.allocate(rows * ffn);
    logits = m.ops.allocate(rows * vocabulary);
  }

  template <class F>
  void timed(const char* name, F f) {
    const double start = now();
    f();
    time[name] += now() - start;
  }

  void step(const std::vector<std::int32_t>& positions,
            const std::vector<std::int32_t>& sequences,
            const std::vector<std::int32_t>& logit_rows) {
    auto& ops = m.ops;
    const auto rows = static_cast<std::int64_t>(positions.size());
    const std::vector<std::span<const std::int32_t>> spans(tables.begin(),
                                                           tables.end());
    const batch_view batch{positions, sequences, spans};
    rope_params rope;
    rope.dims = head_dim;
    const attention_params how{
        .heads = heads,
        .scale = 1.0f / std::sqrt(static_cast<float>(head_dim))};
    timed("embed", [&] { ops.embed(*m.head, sequences, x->data()); });
    for (std::int32_t i = 0; i < layers; ++i) {
      auto& w = m.layer[i];
      timed("norm", [&] {
        ops.rms_norm(x->data(), *m.norm, 1e-5f, rows, hidden, normed->data());
      });
      timed("qkv", [&] {
        ops.linear(*w.qkv, normed->data(), rows, qkv->data(), false);
      });
      timed("rope", [&] {
        ops.rope_and_store(qkv->data(), heads, rope, batch, i, *pool);
      });
      timed("attention", [&] {
        ops.attention(qkv->data(), how, batch, i, *pool, attended->data());
      });
      timed("output", [&] {
        ops.linear(*w.output, attended->data(), rows, x->data(), true);
      });
      timed("norm", [&] {
        ops.rms_norm(x->data(), *m.norm, 1e-5f, rows, hidden, normed->data());
      });
      timed("gate_up", [&] {
        joined_steps with;
        with.gated = gate::silu;
        with.products = gate_up->data();
        ops.linear_joined(*w.gate_up, normed->data(), rows, with,
                          gated->data());
      });
      timed("down",
            [&] { ops.linear(*w.down, gated->data(), rows, x->data(), true); });
    }
    timed("head", [&] {
      ops.gather_rows(x->data(), logit_rows, hidden, attended->data());
      ops.rms_norm(attended->data(), *m.norm, 1e-5f, logit_rows.size(), hidden,
                   normed->data());
      ops.linear(*m.head, normed->data(), logit_rows.size(), logits->data(),
                 false);
    });
  }

  void print_shares() const {
    double total = 0;
    for (const auto& [name, t] : time)
      total += t;
    std::printf("   ");
    for (const auto& [name, t] : time)
      std::printf(" %s %.0f%%", name.c_str(), 100 * t / total);
    std::printf("\n");
  }
};

struct case_of {
  const char* name;
  std::int32_t sequences; ///< of decode; 0: prefill
  std::int32_t context;   ///< already there; for prefill the rows
};

constexpr case_of cases[] = {
    {"decode-1", 1, 0},     {"decode-1-at-1024", 1, 1024}, {"decode-8", 8, 128},
    {"decode-32", 32, 128}, {"prefill-512", 0, 512},
};

/// Dependent subtractions per second.
double scalar_rate() {
  std::uint64_t n = 100'000'000;
  const double start = now();
  while (n > 0) {
    asm volatile("dec %0" : "+r"(n));
  }
  return 100e6 / (now() - start);
}

/// Bytes per second that `threads` threads read from memory no cache holds;
/// each call reads another part of it.
double read_rate(unsigned threads) {
  constexpr std::size_t words = std::size_t{384} << 17; // 384 MiB
  constexpr std::size_t share = words / 6;
  static const std::uint64_t* memory = [] {
    void* at = std::aligned_alloc(2 << 20, words * 8);
    madvise(at, words * 8, MADV_HUGEPAGE); // as weights have it
    return static_cast<std::uint64_t*>(std::memset(at, 1, words * 8));
  }();
  static std::size_t part = 0;
  const auto* from = memory + part++ % 6 * share;
  std::vector<std::thread> readers;
  const double start = now();
  for (unsigned t = 0; t < threads; ++t)
    readers.emplace_back([=] {
      std::uint64_t sums[8] = {};
      const auto end = share / threads * (t + 1);
      for (auto i = share / threads * t; i + 8 <= end; i += 8)
        for (int k = 0; k < 8; ++k)
          sums[k] += from[i + k];
      for (auto sum : sums)
        asm volatile("" : : "r"(sum));
    });
  for (auto& reader : readers)
    reader.join();
  return share * 8 / (now() - start);
}

/// Steps and readings of memory take turns, so that both see the same machine.
void run_case(model& m, const case_of& c, unsigned threads, double budget) {
  const auto prefill = c.sequences == 0;
  const auto rows = prefill ? c.context : c.sequences;
  constexpr std::int32_t room = 64;
  session s{m, rows, prefill ? 1 : c.sequences, c.context + room};
  std::vector<std::int32_t> positions(rows), owners(rows), wanted;
  for (std::int32_t r = 0; r < rows; ++r) {
    positions[r] = prefill ? r : c.context;
    owners[r] = prefill ? 0 : r;
    if (!prefill || r == rows - 1)
      wanted.push_back(r);
  }
  s.step(positions, owners, wanted);
  s.time.clear();
  const double before = scalar_rate(), end = now() + budget;
  std::vector<double> times, rates, shares;
  while (now() < end || times.size() < 3) {
    rates.push_back(read_rate(threads));
    const auto n = static_cast<std::int32_t>(times.size());
    if (!prefill)
      for (auto& p : positions)
        p = c.context + n % room;
    const double start = now();
    s.step(positions, owners, wanted);
    times.push_back(now() - start);
    shares.push_back(static_cast<double>(m.bytes) / times.back() /
                     rates.back());
  }
  std::printf("%-17s %7.1f tok/s (median step; best %7.1f), memory read %4.1f "
              "GB/s, weights at %.2f of it, %.2f and %.2f G dec/s\n",
              c.name, rows / median(times),
              rows / *std::min_element(times.begin(), times.end()),
              median(rates) / 1e9, median(shares), before / 1e9,
              scalar_rate() / 1e9);
  s.print_shares();
}

} // namespace

int main(int argc, char** argv) {
  int threads = 0;
  double budget = 2;
  std::string only, type_name = "q4_1";
  const std::map<std::string, element_type> types{
      {"f32", element_type::f32},      {"f16", element_type::f16},
      {"bf16", element_type::bf16},    {"q8_0", element_type::q8_0},
      {"q4_0", element_type::q4_0},    {"q4_1", element_type::q4_1},
      {"q5_0", element_type::q5_0},    {"q5_1", element_type::q5_1},
      {"iq4_nl", element_type::iq4_nl}};
  CLI::App app{"Speed of the CPU kernels on the shape of SmolLM2-135M"};
  app.add_option("--threads", threads, "threads of the team; 0: one per core");
  app.add_option("--seconds", budget, "time per case");
  app.add_option("--layer-type", type_name, "type of the layers' weights")
      ->check(CLI::IsMember(types));
  app.add_option("--only", only, "run the case of this name only");
  CLI11_PARSE(app, argc, argv);
  auto ops = cpu::make_backend({threads, {}});
  if (!ops) {
    std::fprintf(stderr, "%s\n", ops.error().message.c_str());
    return 1;
  }
  const unsigned readers =
      threads > 0 ? threads : std::max(1u, std::thread::hardware_concurrency());
  const double start = now();
  model m{**ops, types.at(type_name)};
  std::printf("%s, layers %s, weights %.1f MB, loaded in %.2f s\n",
              (*ops)->description().c_str(), type_name.c_str(),
              static_cast<double>(m.bytes) / 1e6, now() - start);
  for (const auto& c : cases)
    if (only.empty() || only == c.name)
      run_case(m, c, readers, budget);
}
