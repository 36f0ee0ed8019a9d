#include "engine/engine_core.hpp"
#include "tests/unit/ranks/parallel_model.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <random>

using namespace troupe;
using namespace troupe::test;

// Steps of models over ranks as graphs, and submitted ahead, give what others
// give. The devices are late: nothing is done before somebody waits, or is to
// wait for another rank.

namespace {

constexpr model::decoder_limits few{24, 12, 4, 60, 6, 40};

/// Ranks on emulated devices, and what became of them.
struct watched_ranks {
  using change = std::function<void(std::int32_t, cuda::emulated_options&)>;

  explicit watched_ranks(int size, const change& change_options = {})
      : usage(static_cast<std::size_t>(size)),
        group(std::make_shared<ops::thread_group>(size)) {
    kind = {"watched", false, [=, this](std::int32_t, const backend_maker&) {
              std::vector<one_rank> out;
              for (std::int32_t r = 0; r < size; ++r) {
                cuda::emulated_options how{.usage = &usage[r], .is_late = true};
                if (change_options)
                  change_options(r, how);
                auto made = cuda::make_emulated_rank(group, r, how);
                out.push_back({std::move(made.backend), std::move(made.ranks)});
              }
              return out;
            }};
  }

  parallel_model load(const std::string& family) const {
    return load_parallel(family_file(family), static_cast<int>(usage.size()), 0,
                         make_cpu, kind, few);
  }

  template <class F>
  std::size_t sum(F f) const {
    std::size_t out = 0;
    for (const auto& one : usage)
      out += f(one);
    return out;
  }
  std::size_t allocations() const {
    return sum([](auto& one) { return one.allocations; });
  }

  std::vector<cuda::emulated_usage> usage;
  std::shared_ptr<ops::thread_group> group;
  rank_kind kind;
};

void apart(std::int32_t, cuda::emulated_options& how) {
  how.has_peers = false;
}

void last_has_no_graphs(std::int32_t rank, cuda::emulated_options& how) {
  how.has_no_graphs = rank == 1;
}

std::vector<fed_sequence> sequences(std::mt19937& random) {
  std::vector<fed_sequence> out;
  for (std::int32_t i = 0; i < 3; ++i) {
    auto& one = out.emplace_back();
    for (int n = 0; n < 7; ++n)
      one.ids.push_back(static_cast<token_id>(random() % 90));
    one.table = {3 * i, 59 - i, 3 * i + 1};
  }
  return out;
}

/// All in steps of one token of some of them.
void feed_some(engine::model_runner& runner, std::vector<fed_sequence>& all,
               std::mt19937& random) {
  const auto is_done = [](auto& one) { return one.done == one.ids.size(); };
  while (!std::all_of(all.begin(), all.end(), is_done)) {
    std::vector<portion> step;
    for (auto& one : all)
      if (!is_done(one) && random() % 4 > 0)
        step.push_back({&one, 1});
    if (!step.empty())
      feed(runner, step);
  }
}

} // namespace

TEST_CASE("steps over ranks that repeat are graphs on all ranks, with the bits "
          "of those that are not",
          "[emulated]") {
  for (int size : {2, 4})
    for (const std::string name : {"llama", "gemma2"}) {
      if (size == 4 && name == "gemma2")
        continue; // takes its time
      INFO(name << ", " << size << " ranks");
      watched_ranks together{size}, one_without{size, last_has_no_graphs},
          without{size, apart};
      std::vector<std::vector<float>> expected;
      for (auto* ranks : {&without, &together, &one_without}) {
        if (size == 4 && ranks == &one_without)
          continue; // takes its time
        auto model = ranks->load(name);
        REQUIRE(model.decoder != nullptr);
        std::mt19937 random{5};
        auto all = sequences(random);
        auto whole = all;
        for (auto& one : whole)
          feed_alone(*model.decoder, one, 12);
        const auto before = ranks->allocations();
        feed_some(*model.decoder, all, random);
        CHECK(ranks->allocations() == before);
        std::vector<std::vector<float>> logits;
        for (std::size_t i = 0; i < all.size(); ++i) {
          CHECK((all[i].logits == whole[i].logits));
          logits.insert(logits.end(), all[i].logits.begin(),
                        all[i].logits.end());
        }
        if (ranks == &without)
          expected = logits;
        CHECK((logits == expected));
      }
      for (std::size_t r = 0; r < together.usage.size(); ++r) {
        INFO("rank " << r);
        CHECK(without.usage[r].captures == 0); // the host waits in them
        CHECK(together.usage[r].captures == together.usage[0].captures);
        CHECK(together.usage[r].captures >= 2);
        CHECK(together.usage[r].replays == together.usage[0].replays);
        CHECK(together.usage[r].replays > 3);
        if (size == 2)
          CHECK((one_without.usage[r].captures == 0) == (r == 1));
      }
    }
}

namespace {

/// Whether tokens are drawn on the device, and steps submitted ahead.
class rank_steps final : public engine::model_runner {
public:
  rank_steps(model::rank_runner& by, bool on_device)
      : by_(by), on_device_(on_device) {
    // nop
  }

  void submit(const engine::step_plan& plan) override {
    by_.submit(plan);
  }
  std::span<const float> collect() override {
    return by_.collect();
  }
  bool draws() const override {
    return on_device_;
  }
  bool runs_ahead() const override {
    return on_device_ && by_.runs_ahead();
  }
  void submit_drawn(const engine::step_plan& plan,
                    const ops::draw_plan& draws) override {
    by_.submit_drawn(plan, draws);
  }
  std::span<const ops::drawn_row> collect_drawn() override {
    return by_.collect_drawn();
  }
  std::span<const float> logits_of(std::size_t row) override {
    return by_.logits_of(row);
  }
  std::int32_t vocabulary() const override {
    return by_.vocabulary();
  }
  std::uint64_t weight_bytes_read() const override {
    return by_.weight_bytes_read();
  }

private:
  model::rank_runner& by_;
  bool on_device_;
};

engine::engine_core::config small_engine() {
  engine::engine_core::config c;
  c.bounds = {.max_num_seqs = 6,
              .max_num_batched_tokens = 24,
              .max_scored_rows = 6,
              .block_size = 4};
  c.kv_blocks = 60;
  c.max_model_len = 40;
  c.max_waiting = 100;
  c.eos_ids = {3};
  return c;
}

/// They end one after the other.
std::vector<engine::request> requests(std::int32_t vocabulary) {
  std::mt19937 random{17};
  std::vector<engine::request> out;
  for (std::uint64_t id = 0; id < 6; ++id) {
    engine::request r;
    r.id = id;
    for (auto i = 1 + random() % 6; i > 0; --i)
      r.prompt.push_back(static_cast<token_id>(random() % vocabulary));
    r.params.max_tokens = 6 + 2 * static_cast<std::uint32_t>(id);
    r.params.seed = random();
    r.params.temperature = id % 3 == 0 ? 0.0f : 1.5f;
    r.params.top_p = id % 2 == 0 ? 0.8f : 1.0f;
    r.params.logprobs = id % 2 == 0 ? 3 : -1;
    if (id == 4)
      r.params.logit_bias = {{5, 2.5f}, {6, -3}};
    out.push_back(std::move(r));
  }
  return out;
}

struct answer {
  std::vector<token_id> tokens;
  std::vector<float> logprobs;
  engine::finish_reason finish = engine::finish_reason::none;

  bool operator==(const answer&) const = default;
};

std::map<std::uint64_t, answer> answers(model::rank_runner& by, bool on_device,
                                        engine::stats& after) {
  rank_steps runner{by, on_device};
  engine::engine_core core{small_engine(), runner};
  for (const auto& one : requests(by.vocabulary()))
    core.submit(one);
  std::map<std::uint64_t, answer> out;
  do {
    for (auto& news : core.step().outputs) {
      auto& to = out[news.id];
      to.tokens.insert(to.tokens.end(), news.tokens.begin(), news.tokens.end());
      for (const auto& position : news.logprobs)
        for (const auto& one : position)
          to.logprobs.push_back(one.logprob);
      to.finish = news.finish;
    }
  } while (core.living() > 0);
  after = core.now();
  return out;
}

} // namespace

TEST_CASE("an engine over ranks gives the same whether the host draws, the "
          "devices, or these ahead",
          "[emulated]") {
  for (int size : {2, 4}) {
    INFO(size << " ranks");
    watched_ranks together{size}, one_without{size, last_has_no_graphs},
        without{size, apart};
    std::map<std::uint64_t, answer> expected;
    engine::stats now;
    if (size == 2) {
      auto model = without.load("llama");
      expected = answers(*model.decoder, false, now);
      CHECK(expected.size() == 6);
      CHECK((answers(*model.decoder, true, now) == expected));
      CHECK(now.steps_ahead == 0); // they would wait for each other
    }
    for (auto* ranks : {&together, &one_without}) {
      if (size == 4 && ranks == &one_without)
        continue; // takes its time
      auto model = ranks->load("llama");
      const auto by_host = answers(*model.decoder, false, now);
      if (expected.empty())
        expected = by_host;
      CHECK((by_host == expected));
      CHECK(now.steps_ahead == 0);
      const auto before = ranks->allocations();
      CHECK((answers(*model.decoder, true, now) == expected));
      CHECK(now.steps_ahead > 8);
      CHECK(ranks->allocations() == before);
      CHECK(ranks->usage[0].replays > 4);
    }
  }
  auto nccl =
      load_parallel(family_file("llama"), 2, 0, make_cpu, made_up_nccl(), few);
  engine::stats now;
  auto by_nccl = answers(*nccl.decoder, true, now);
  CHECK(now.steps_ahead > 8);
  auto host = load_parallel(family_file("llama"), 2, 0, make_cpu,
                            emulated_devices_apart(), few);
  CHECK((by_nccl == answers(*host.decoder, false, now)));
}

namespace {

/// Rank 1 does what `disturb` does before each kernel, once `begins` is set;
/// gives what rank 0's engine throws then, in the middle of steps ahead.
std::string thrown_by(const std::function<void()>& disturb,
                      const std::function<void(ops::thread_group&)>& watch) {
  std::atomic<bool> begins = false;
  watched_ranks ranks{2, [&](std::int32_t rank, cuda::emulated_options& how) {
                        if (rank == 1)
                          how.before_kernel = [&] {
                            if (begins)
                              disturb();
                          };
                      }};
  auto file = model::open_checkpoint(family_file("llama"));
  auto config = model::read_model_config(**file, 0);
  auto both = ranks.kind.make(2, make_cpu);
  auto make = [&](std::size_t rank) {
    return model::decoder::make(**file, *config, *both[rank].backend, few, {},
                                both[rank].ranks.get())
        .value();
  };
  auto other = make(1);
  auto first = make(0);
  std::thread follows{[&] {
    try {
      model::follow(*other, *both[1].ranks).value();
    } catch (const std::exception& why) {
      ranks.group->end(std::string{"rank 1: "} + why.what());
    }
  }};
  std::thread watches{[&] { watch(*ranks.group); }};
  std::string out;
  {
    model::rank_runner runner{std::move(first), *both[0].ranks};
    engine::engine_core core{small_engine(), runner};
    for (const auto& one : requests(runner.vocabulary()))
      core.submit(one);
    try {
      for (int step = 0; core.living() > 0; ++step) {
        if (step == 4) {
          CHECK(core.now().steps_ahead > 0);
          begins = true;
        }
        core.step();
      }
    } catch (const ops::rank_lost& why) {
      out = why.what();
    }
  }
  follows.join();
  watches.join();
  return out;
}

} // namespace

TEST_CASE(
    "a rank that fails while steps are ahead ends the waits of the others "
    "in their kernels",
    "[emulated]") {
  CHECK(thrown_by([] { throw std::runtime_error{"a step on a GPU failed"}; },
                  [](auto&) {}) == "rank 1: a step on a GPU failed");
}

TEST_CASE("a rank that hangs while steps are ahead is given up, and the waits "
          "in kernels with it",
          "[emulated]") {
  std::atomic<bool> hangs = false, is_over = false;
  CHECK(thrown_by(
            [&] {
              hangs = true;
              while (!is_over)
                std::this_thread::yield();
            },
            [&](ops::thread_group& group) {
              while (!hangs)
                std::this_thread::yield();
              std::this_thread::sleep_for(std::chrono::milliseconds{20});
              group.end("rank 1: it hangs");
              is_over = true;
            }) == "rank 1: it hangs");
}
