#include "cuda/emulated_backend.hpp"
#include "engine/engine_core.hpp"
#include "engine/ops/cpu/sizing_backend.hpp"
#include "engine/ops/dense_layout.hpp"
#include "tests/unit/cuda/random_floats.hpp"
#include "tests/unit/model/feeding.hpp"
#include "tests/unit/model/reference_file.hpp"

#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>
#include <unistd.h>

using namespace troupe;
using namespace troupe::test;
using ops::library_kind;
using ops::row_role;

namespace fs = std::filesystem;

// Products by a library: the emulated device has one whose fastest algorithm
// must not be taken, and whose good one pays for prompts.

namespace {

/// A store of keys and values in whose place the trials have room.
constexpr model::decoder_limits limits{24, 12, 4, 30'000, 6, 40};

struct folder {
  fs::path path = fs::temp_directory_path() /
                  ("troupe-library-" + std::to_string(::getpid()));
  folder() {
    fs::remove_all(path);
  }
  ~folder() {
    fs::remove_all(path);
  }
};

/// A weight of ones and the like in 16 bits.
struct matrix {
  library_kind kind; ///< as what a GPU is to keep it
  std::int64_t outputs, cols;
  std::vector<std::uint16_t> bits;

  matrix() : matrix(library_kind::bf16, 64, 48) {
    // nop
  }
  matrix(library_kind kept, std::int64_t o, std::int64_t c)
      : kind(kept), outputs(o), cols(c) {
    const int one = kind == library_kind::f16 ? 0x3c00 : 0x3f80;
    for (std::int64_t i = 0; i < outputs * cols; ++i)
      bits.push_back(static_cast<std::uint16_t>(one + i * 37 % 97));
  }
  ops::matrix_view view() const {
    ops::matrix_view out{kind == library_kind::f16 ? ops::element_type::f16
                                                   : ops::element_type::bf16,
                         outputs, cols, std::as_bytes(std::span{bits})};
    out.as_e4m3 = kind == library_kind::e4m3;
    return out;
  }
};

struct loaded_matrix {
  std::unique_ptr<cuda::emulated_usage> usage =
      std::make_unique<cuda::emulated_usage>();
  std::unique_ptr<ops::backend> backend;
  std::unique_ptr<ops::weight> weight;
  std::size_t trials = 0; ///< products that the choice took

  /// `rounded`: of numbers that are bf16 already. All are times `factor`.
  std::vector<float> product(std::int64_t rows, row_role role, bool add,
                             bool rounded = false, float factor = 1) {
    std::vector<float> x(static_cast<std::size_t>(rows * weight->cols()));
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = (static_cast<float>(i % 31) * 0.0317f - 0.4f) * factor;
      if (rounded)
        x[i] = cuda::to_float(cuda::to_bf16(x[i]));
    }
    auto in = backend->upload(x);
    std::vector<float> out(static_cast<std::size_t>(rows * weight->rows()), 2);
    auto to = backend->upload(out);
    backend->linear(*weight, in->data(), rows, to->data(), add, role);
    backend->download(to->data(), out);
    return out;
  }
};

loaded_matrix load(cuda::emulated_options how, const fs::path& cache = {},
                   std::int32_t kv_blocks = 1000, const matrix& m = {}) {
  loaded_matrix out;
  how.usage = out.usage.get();
  out.backend = cuda::make_emulated_backend(how, cache);
  const auto view = m.view();
  out.weight = out.backend->load({&view, 1}).value();
  ops::step_bounds bounds;
  bounds.rows = 300;
  bounds.sequences = 1;
  bounds.kv = {1, 1, 64, 16, kv_blocks};
  REQUIRE(out.backend->prepare(bounds).has_value());
  out.trials = out.usage->products;
  return out;
}

/// The engine's choices on such a device.
class library_runner {
public:
  library_runner()
      : loaded_(load_model(
            path,
            cuda::make_emulated_backend({.usage = &usage, .has_library = true}),
            limits)) {
    // nop
  }

  std::size_t planned() const {
    auto file = model::open_checkpoint(path);
    auto sizes = ops::cpu::make_sizing_backend(ops::cpu::kept_by::gpu);
    auto size = model::decoder_size(**file, loaded_.config, *sizes, limits);
    REQUIRE(size.has_value());
    return size->weights + size->kv_cache + size->workspace +
           ops::gpu_workspace_bytes;
  }

  engine::model_runner& runner() {
    return *loaded_.decoder;
  }

  const fs::path path = reference_folder() / "families/llama.gguf";
  cuda::emulated_usage usage;

private:
  loaded_model loaded_;
};

/// How far the reference's logits are from those of prompt positions, whose
/// products read rows rounded to bf16.
float worst_of_prompt(engine::model_runner& runner) {
  const auto reference = read_reference("families/llama.ref");
  const auto& expected = reference.sequences.front();
  engine::step_plan plan;
  plan.tables = {{9, 0, 7}};
  for (std::int32_t i = 0; i < 12; ++i) {
    plan.tokens.push_back(expected.ids[static_cast<std::size_t>(i)]);
    plan.positions.push_back(i);
    plan.sequences.push_back(0);
    plan.logit_rows.push_back(i);
  }
  plan.prompt_rows = 12;
  runner.submit(plan);
  const auto logits = runner.collect();
  const auto width = static_cast<std::size_t>(runner.vocabulary());
  float worst = 0;
  for (std::size_t i = 0; i < 12 * reference.top_k; ++i) {
    const auto at = i / reference.top_k * width +
                    static_cast<std::size_t>(expected.best[i]);
    worst = std::max(worst, std::abs(logits[at] - expected.logits[i]));
  }
  CHECK(worst > 1e-4f); // it is rounded
  return worst;
}

engine::engine_core::config config_of(std::uint32_t rows) {
  engine::engine_core::config c;
  c.bounds = {.max_num_seqs = 6,
              .max_num_batched_tokens = rows,
              .max_scored_rows = 6,
              .block_size = 4};
  c.kv_blocks = 60;
  c.max_model_len = 40;
  c.max_waiting = 100;
  return c;
}

engine::request ask(std::uint64_t id, std::vector<token_id> prompt) {
  engine::request r;
  r.id = id;
  r.prompt = std::move(prompt);
  r.params.max_tokens = 6;
  r.params.seed = id;
  r.params.logprobs = 3;
  r.params.prompt_logprobs = 1;
  r.params.ignore_eos = true;
  return r;
}

struct answer {
  std::vector<token_id> tokens;
  std::vector<std::vector<candidate>> logprobs, of_prompt;
  bool operator==(const answer&) const = default;
};

answer answer_to(engine::engine_core& core, std::uint64_t id) {
  answer out;
  while (core.living() > 0)
    for (auto& news : core.step().outputs)
      if (news.id == id) {
        out.tokens.insert(out.tokens.end(), news.tokens.begin(),
                          news.tokens.end());
        for (auto& one : news.logprobs)
          out.logprobs.push_back(one);
        for (auto& one : news.prompt_logprobs)
          out.of_prompt.push_back(one);
      }
  return out;
}

} // namespace

TEST_CASE("a library's algorithm is taken where it pays, and keeps rows") {
  auto own = load({});
  auto with = load({.has_library = true});
  CHECK(own.trials == 0);
  CHECK(with.trials > 0);
  CHECK_FALSE(own.backend->has_roles());
  CHECK(with.backend->has_roles());
  CHECK(own.backend->arithmetic() != with.backend->arithmetic());
  for (bool add : {false, true}) {
    const auto prompt = with.product(300, row_role::prompt, add);
    const auto output = with.product(300, row_role::output, add);
    // Few rows do not pay: outputs are our own kernel's.
    CHECK((output == own.product(300, row_role::output, add)));
    CHECK((prompt != output));
    for (std::size_t i = 0; i < prompt.size(); ++i)
      REQUIRE(prompt[i] == Approx(output[i]).epsilon(0.01).margin(0.02));
    // But for the rounding of what it reads it is the same product.
    CHECK((prompt == with.product(300, row_role::prompt, add, true)));
    const auto exact = own.product(300, row_role::output, add, true);
    for (std::size_t i = 0; i < prompt.size(); ++i)
      REQUIRE(prompt[i] == Approx(exact[i]).epsilon(1e-5).margin(1e-5));
    for (std::int64_t rows : {1, 16, 17, 255}) {
      const auto some = with.product(rows, row_role::prompt, add);
      CHECK(std::equal(some.begin(), some.end(), prompt.begin()));
    }
  }
}

TEST_CASE("so it is with weights in f16 and e4m3, which are multiplied in "
          "pieces") {
  for (auto kind : {library_kind::f16, library_kind::e4m3}) {
    INFO("kind " << static_cast<int>(kind));
    const matrix m{kind, 2056, 16}; // two pieces of 1032 and 1024
    auto own = load({}, {}, 200'000, m);
    auto with = load({.has_library = true}, {}, 200'000, m);
    CHECK(with.trials > 0);
    REQUIRE(with.backend->has_roles());
    const auto allocations = with.usage->allocations;
    for (bool add : {false, true}) {
      const auto prompt = with.product(33, row_role::prompt, add);
      const auto output = own.product(33, row_role::prompt, add);
      CHECK((with.product(33, row_role::output, add) == output));
      CHECK((prompt != output));
      // Rows have eight bits, or eleven.
      const double near = kind == library_kind::f16 ? 1e-3 : 8e-3;
      for (std::size_t i = 0; i < prompt.size(); ++i)
        REQUIRE(prompt[i] == Approx(output[i]).epsilon(near).margin(near));
      // bf16 has no more bits than either of them.
      const auto rounded = with.product(33, row_role::prompt, add, true);
      const auto exact = own.product(33, row_role::prompt, add, true);
      for (std::size_t i = 0; i < exact.size(); ++i)
        REQUIRE(rounded[i] == Approx(exact[i]).epsilon(1e-5).margin(1e-4));
      for (std::int64_t rows : {1, 16, 32}) {
        const auto some = with.product(rows, row_role::prompt, add);
        CHECK(std::equal(some.begin(), some.end(), prompt.begin()));
      }
    }
    // No row is too large or too small for 16 bits.
    for (const float factor : {0x1p100f, 0x1p-100f}) {
      auto expected = with.product(3, row_role::prompt, false);
      for (auto& y : expected)
        y *= factor;
      CHECK((with.product(3, row_role::prompt, false, false, factor) ==
             expected));
    }
    // What `product` uploads and no more.
    CHECK(with.usage->allocations - allocations == 2 * (2 * 6 + 2 * 2));
  }
}

TEST_CASE(
    "rows that were rounded where they were made are those that a product "
    "reads, until they are written") {
  constexpr std::int64_t rows = 70;
  auto with =
      load({.blocks_wanted = GENERATE(0, 1'000'000), .has_library = true});
  auto& gpu = *with.backend;
  const auto cols = with.weight->cols(), outputs = with.weight->rows();
  std::vector<float> numbers(static_cast<std::size_t>(rows * 2 * cols));
  for (std::size_t i = 0; i < numbers.size(); ++i)
    numbers[i] = static_cast<float>(i % 37) * 0.0271f - 0.5f;
  auto from = gpu.upload(numbers);
  auto ones = gpu.upload(std::vector<float>(static_cast<std::size_t>(cols), 1));
  auto made = gpu.allocate(rows * cols);
  auto y = gpu.allocate(rows * outputs);
  const auto product = [&](const float* x, std::int64_t count) {
    gpu.linear(*with.weight, x, count, y->data(), false, row_role::prompt);
    std::vector<float> out(static_cast<std::size_t>(count * outputs));
    gpu.download(y->data(), out);
    return out;
  };
  // The product of some rows of `made`, and that of the same rows, which nobody
  // but the product can have rounded.
  const auto is_right = [&](std::int64_t first, std::int64_t count) {
    const auto got = product(made->data() + first * cols, count);
    std::vector<float> x(static_cast<std::size_t>(rows * cols));
    gpu.download(made->data(), x);
    return got == product(gpu.upload(x)->data() + first * cols, count);
  };
  const auto norm = [&] {
    gpu.rms_norm(from->data(), *ones, 1e-6f, rows, cols, made->data());
  };
  const auto launches = [&](auto work) {
    const auto before = with.usage->launches;
    work();
    return with.usage->launches - before;
  };
  SECTION("by a norm") {
    norm();
    CHECK(launches([&] { product(made->data(), rows); }) == 0);
    CHECK(is_right(0, rows));
    norm();
    CHECK(launches([&] { product(made->data() + 5 * cols, 9); }) == 0);
    CHECK(is_right(5, 9));
  }
  SECTION("by a gate") {
    gpu.gelu_mul(from->data(), rows, cols, made->data());
    CHECK(launches([&] { product(made->data(), rows); }) == 0);
    CHECK(is_right(0, rows));
  }
  SECTION("by attention") {
    // Of one sequence, or each of its own and in two parts.
    const bool are_alone = GENERATE(false, true);
    constexpr std::int32_t heads = 3, d = 16, stored = 300;
    constexpr std::int64_t stride = 5 * d;
    std::vector<std::int32_t> positions(stored), sequences(stored, 0), table;
    for (std::int32_t p = 0; p < stored; ++p)
      positions[p] = p;
    for (std::int32_t i = 0; i * 16 < stored; ++i)
      table.push_back(i);
    const std::vector<std::span<const std::int32_t>> tables(stored, table);
    auto pool = gpu.make_kv_pool({1, 1, d, 16, 19}).value();
    const auto qkv = gpu.upload(random_floats(stored * stride, 3));
    ops::rope_params none;
    none.dims = 0;
    gpu.rope_and_store(qkv->data(), heads, none, {positions, sequences, tables},
                       0, *pool);
    if (are_alone)
      for (std::int32_t r = 0; r < stored; ++r)
        sequences[r] = r;
    const auto last = [&](const std::vector<std::int32_t>& list) {
      return std::span{list}.last(rows);
    };
    gpu.attention(
        qkv->data() + (stored - rows) * stride, {heads, 0.3f, 0, 0, 0},
        {last(positions), last(sequences), tables}, 0, *pool, made->data());
    CHECK(launches([&] { product(made->data(), rows); }) == 0);
    CHECK(is_right(0, rows));
  }
  SECTION("other rows are rounded by the product") {
    norm();
    CHECK(launches([&] { product(from->data(), rows); }) == 1);
    CHECK(is_right(0, rows));
  }
  SECTION("not after they were written") {
    norm();
    gpu.scale(made->data(), 3, rows, cols);
    CHECK(is_right(0, rows));
    norm();
    gpu.linear(*with.weight, from->data(), 1, made->data() + 2, false,
               row_role::output);
    CHECK(is_right(0, rows));
    norm();
    gpu.linear(*with.weight, from->data(), 1, made->data() + 2, false,
               row_role::prompt);
    CHECK(is_right(0, rows));
  }
}

TEST_CASE("factors of rows for weights in f16 are nobody else's") {
  const matrix halves{library_kind::f16, 2056, 16};
  const matrix small{library_kind::e4m3, 2056, 16};
  auto alone = load({.has_library = true}, {}, 200'000, small);
  const auto expected = alone.product(5, row_role::prompt, false);
  auto both = load({.has_library = true}, {}, 200'000, small);
  const auto view = halves.view();
  auto other = both.backend->load({&view, 1}).value();
  ops::step_bounds bounds;
  bounds.rows = 300;
  bounds.sequences = 1;
  bounds.kv = {1, 1, 64, 16, 200'000};
  REQUIRE(both.backend->prepare(bounds).has_value());
  // Rows of which each leaves another factor.
  std::swap(other, both.weight);
  both.product(5, row_role::prompt, false, false, 0x1p20f);
  std::swap(other, both.weight);
  CHECK((both.product(5, row_role::prompt, false) == expected));
}

TEST_CASE("what was chosen is not searched for again, unless the file is "
          "broken") {
  folder here;
  const auto first = load({.has_library = true}, here.path);
  CHECK(first.trials > 0);
  const auto again = load({.has_library = true}, here.path);
  CHECK(again.trials == 0);
  CHECK(again.backend->arithmetic() == first.backend->arithmetic());
  const auto file = fs::directory_iterator {
    here.path
    } -> path();
  std::ofstream{file, std::ios::app} << "x";
  const auto broken = load({.has_library = true}, here.path);
  CHECK(broken.trials > 0);
  CHECK(broken.backend->arithmetic() == first.backend->arithmetic());
  CHECK(load({.has_library = true}, here.path).trials == 0);
}

TEST_CASE("what needs more room to try than the plan has is our own, and not "
          "kept") {
  folder here;
  // A trial of this shape takes 1.1 MB, a block 4 KiB.
  const auto tight = load({.has_library = true}, here.path, 200);
  CHECK(tight.trials == 0);
  CHECK_FALSE(tight.backend->has_roles());
  CHECK(load({.has_library = true}, here.path, 300).trials > 0);
}

TEST_CASE("with an arithmetic per role an engine gives the same in chunks, in "
          "company, resumed and from the cache") {
  library_runner library;
  auto& runner = library.runner();
  REQUIRE(runner.has_roles());
  CHECK(library.usage.bytes == library.planned());
  CHECK(library.usage.bytes_most == library.usage.bytes); // trials and all
  const auto allocations = library.usage.allocations;
  CHECK(worst_of_prompt(runner) < 0.15f); // seen: 0.09, of up to 7.4
  const std::vector<token_id> prompt{5, 9, 31, 7, 7, 12, 80, 3, 44};
  engine::engine_core whole{config_of(24), runner};
  whole.submit(ask(1, prompt));
  const auto expected = answer_to(whole, 1);
  REQUIRE(expected.tokens.size() == 6);
  REQUIRE(expected.of_prompt.size() == prompt.size());

  engine::engine_core chunked{config_of(2), runner};
  chunked.submit(ask(1, prompt));
  CHECK(answer_to(chunked, 1) == expected);

  engine::engine_core crowd{config_of(7), runner};
  crowd.submit(ask(2, {1, 2, 3}));
  crowd.step();
  crowd.submit(ask(3, {prompt.begin(), prompt.begin() + 5}));
  crowd.submit(ask(1, prompt));
  CHECK(answer_to(crowd, 1) == expected);

  // From what the cache has, and after another engine had drawn three.
  for (bool resumed : {false, true}) {
    auto r = ask(4 + resumed, prompt);
    r.params.seed = 1;
    r.params.prompt_logprobs = -1;
    auto rest = expected;
    rest.of_prompt.clear();
    if (resumed) {
      r.resume.assign(expected.tokens.begin(), expected.tokens.begin() + 3);
      rest.tokens.erase(rest.tokens.begin(), rest.tokens.begin() + 3);
      rest.logprobs.erase(rest.logprobs.begin(), rest.logprobs.begin() + 3);
    }
    engine::engine_core other{config_of(24), runner};
    other.submit(r);
    CHECK(answer_to(other, r.id) == rest);
    whole.submit(r);
    CHECK(answer_to(whole, r.id) == rest);
  }
  CHECK(library.usage.allocations == allocations);
}
