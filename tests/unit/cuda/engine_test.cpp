#include "cuda/emulated_backend.hpp"
#include "engine/engine_core.hpp"
#include "tests/unit/model/feeding.hpp"
#include "tests/unit/model/reference_file.hpp"

#include <catch2/catch.hpp>

#include <map>
#include <random>

using namespace troupe;
using namespace troupe::engine;

// An engine whose tokens are drawn on the device, and whose steps are submitted
// ahead, gives what one gives whose logits come to the host. The device is
// late: nothing is done before somebody waits.

namespace {

constexpr model::decoder_limits limits{24, 12, 4, 60, 6, 40};

/// A decoder on the emulated GPU that draws there, or is kept from it.
class watched_runner final : public model_runner {
public:
  explicit watched_runner(bool on_device, const std::string& family = "llama")
      : loaded_(test::load_model(
            test::reference_folder() / "families" / (family + ".gguf"),
            cuda::make_emulated_backend({.usage = &usage, .is_late = true}),
            limits)),
        on_device_(on_device) {
    REQUIRE(loaded_.decoder->draws());
  }

  void submit(const step_plan& plan) override {
    loaded_.decoder->submit(plan);
  }
  std::span<const float> collect() override {
    REQUIRE_FALSE(on_device_);
    return loaded_.decoder->collect();
  }
  bool draws() const override {
    return on_device_;
  }
  bool runs_ahead() const override {
    return on_device_ && loaded_.decoder->runs_ahead();
  }
  void submit_drawn(const step_plan& plan,
                    const ops::draw_plan& draws) override {
    drawn += draws.rows.size();
    loaded_.decoder->submit_drawn(plan, draws);
  }
  std::span<const ops::drawn_row> collect_drawn() override {
    return loaded_.decoder->collect_drawn();
  }
  std::span<const float> logits_of(std::size_t row) override {
    ++rows_of_host;
    return loaded_.decoder->logits_of(row);
  }
  std::int32_t vocabulary() const override {
    return loaded_.decoder->vocabulary();
  }
  std::uint64_t weight_bytes_read() const override {
    return loaded_.decoder->weight_bytes_read();
  }
  ops::step_gaps gaps() const override {
    return loaded_.decoder->gaps();
  }

  cuda::emulated_usage usage;
  std::size_t drawn = 0, rows_of_host = 0;

private:
  test::loaded_model loaded_;
  bool on_device_;
};

engine_core::config config_of() {
  engine_core::config c;
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

std::vector<request> requests(std::int32_t vocabulary) {
  std::mt19937 random{17};
  auto one_in = [&](unsigned n) { return random() % n == 0; };
  std::vector<request> out;
  for (std::uint64_t id = 0; id < 9; ++id) {
    request r;
    r.id = id;
    for (auto i = 1 + random() % 6; i > 0; --i)
      r.prompt.push_back(static_cast<token_id>(random() % vocabulary));
    auto& p = r.params;
    p.max_tokens = 5;
    p.seed = random();
    p.temperature = one_in(3) ? 0.0f : 1.5f;
    p.top_k = one_in(3) ? 7 : 0;
    p.top_p = one_in(2) ? 0.8f : 1.0f;
    p.min_p = one_in(3) ? 0.02f : 0.0f;
    p.repetition_penalty = one_in(3) ? 1.3f : 1.0f;
    p.frequency_penalty = one_in(3) ? 0.5f : 0.0f;
    p.min_tokens = one_in(3) ? 5 : 0;
    p.logprobs = one_in(2) ? 4 : -1;
    p.prompt_logprobs = one_in(3) ? 2 : -1;
    if (one_in(3))
      p.logit_bias = {{5, 2.5f}, {6, -3}};
    out.push_back(std::move(r));
  }
  return out;
}

/// All outputs of a choice, in order.
std::map<std::uint64_t, std::vector<output>>
answers(watched_runner& runner, const std::vector<request>& all,
        stats* after = nullptr) {
  engine_core core{config_of(), runner};
  std::map<std::uint64_t, std::vector<output>> out;
  for (const auto& one : all)
    core.submit(one);
  do {
    for (auto& news : core.step().outputs)
      out[news.id].push_back(std::move(news));
  } while (core.living() > 0);
  if (after != nullptr)
    *after = core.now();
  return out;
}

void check_same(std::map<std::uint64_t, std::vector<output>> a,
                std::map<std::uint64_t, std::vector<output>> b) {
  REQUIRE(a.size() == b.size());
  for (const auto& [id, outputs] : a) {
    INFO("choice " << id);
    const auto& others = b[id];
    REQUIRE(outputs.size() == others.size());
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      CHECK(outputs[i].finish == others[i].finish);
      CHECK(outputs[i].message == others[i].message);
      CHECK(outputs[i].tokens == others[i].tokens);
      CHECK((outputs[i].logprobs == others[i].logprobs));
      CHECK((outputs[i].prompt_logprobs == others[i].prompt_logprobs));
    }
  }
}

} // namespace

TEST_CASE("an engine gives the same whether the device draws or the host") {
  watched_runner device{true}, host{false};
  const auto all = requests(device.vocabulary());
  const auto before = device.usage.allocations;
  check_same(answers(device, all), answers(host, all));
  CHECK(device.drawn > 40);
  CHECK(device.rows_of_host == 0);
  CHECK(device.usage.allocations == before);
  CHECK(host.drawn == 0);
}

TEST_CASE("rows that the device does not draw come to the host one by one") {
  watched_runner device{true}, host{false};
  auto all = requests(device.vocabulary());
  all.resize(5);
  all[1].params.logit_bias = {{5, 2}, {5, 2}};
  all[2].params.logprobs = 40;
  all[3].params.prompt_logprobs = 40;
  all[3].prompt.resize(5, 7);
  check_same(answers(device, all), answers(host, all));
  CHECK(device.rows_of_host >= 14); // two choices, and the other's prompt
  CHECK(device.rows_of_host < device.drawn);
}

TEST_CASE(
    "steps that are submitted ahead give the same, as graphs, and take no "
    "memory") {
  for (const std::string family : {"llama", "qwen3moe"}) {
    INFO(family);
    watched_runner device{true, family}, host{false, family};
    auto all = requests(device.vocabulary());
    all.resize(5);
    std::uint32_t tokens = 6;
    for (auto& one : all) // they end one after the other
      one.params.max_tokens = tokens += 2;
    // Some count tokens.
    all[0].params.repetition_penalty = 1.4f;
    all[1].params.frequency_penalty = 0.7f;
    // Some token that is drawn somewhere ends the others.
    watched_runner first{false, family};
    const auto undisturbed = answers(first, all);
    all[4].params.stop_token_ids = {undisturbed.at(4).at(3).tokens.at(0)};
    const auto before = device.usage.allocations;
    stats now;
    check_same(answers(device, all, &now), answers(host, all));
    CHECK(device.usage.allocations == before);
    CHECK(device.rows_of_host == 0);
    CHECK(now.steps_ahead > 10);
    CHECK(device.usage.captures >= 3);
    CHECK(device.usage.replays >= 5);
  }
}

TEST_CASE("between a step's last kernel and the next one's first stand what "
          "was drawn and the next lists alone") {
  watched_runner device{true};
  std::vector<request> all(1);
  all[0].prompt = {5, 6, 7};
  all[0].params.max_tokens = 10;
  all[0].params.ignore_eos = true;
  stats now;
  answers(device, all, &now);
  CHECK(now.steps_ahead == 9);
  CHECK(now.device_gaps == 9);
  CHECK(now.device_gap_seconds == Approx(9 * 2e-6)); // two copies
}
