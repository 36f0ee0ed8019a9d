#include "engine/engine.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <random>
#include <set>

using namespace troupe;
using namespace troupe::engine;

namespace fs = std::filesystem;

namespace {

const fs::path tiny = fs::path{TROUPE_SOURCE_DIR} / "tests/reference/tiny";
const fs::path real =
    fs::path{TROUPE_SOURCE_DIR} / "models/SmolLM2-135M-Instruct.Q4_1.gguf";

/// Small enough to make a hundred of them.
options small(const fs::path& model) {
  options o;
  o.model = model;
  o.threads = 1;
  o.max_num_batched_tokens = 128;
  o.max_num_seqs = 64;
  o.max_model_len = 96;
  o.kv_cache_bytes = 64 << 20;
  return o;
}

struct reply {
  std::vector<token_id> tokens;
  std::vector<std::vector<candidate>> logprobs;
  std::vector<std::vector<candidate>> prompt_logprobs;
  std::uint32_t cached_tokens = 0;
  finish_reason finish = finish_reason::none;
  std::string message;

  bool same_as(const reply& other) const {
    return tokens == other.tokens && logprobs == other.logprobs &&
           prompt_logprobs == other.prompt_logprobs && finish == other.finish;
  }
};

using replies = std::map<std::uint64_t, reply>;

/// Runs an engine and waits for answers.
class session {
public:
  explicit session(const options& o)
      : engine_(troupe::engine::engine::load(o, {}).value()) {
    engine_->start([this](step_result&& r) { hear(r); });
  }

  void ask(const std::vector<request>& requests) {
    for (const request& r : requests)
      engine_->submit(r);
    std::unique_lock lock{mutex_};
    const bool done = changed_.wait_for(lock, std::chrono::seconds{120}, [&] {
      return std::all_of(requests.begin(), requests.end(),
                         [&](const request& r) {
                           return heard_[r.id].finish != finish_reason::none;
                         });
    });
    if (!done)
      throw std::runtime_error{"no end"};
  }

  void ask_one_by_one(const std::vector<request>& requests) {
    for (const request& r : requests)
      ask({r});
  }

  const replies& heard() const {
    return heard_;
  }

  troupe::engine::engine& what() {
    return *engine_;
  }

private:
  void hear(step_result& r) {
    std::lock_guard lock{mutex_};
    for (output& o : r.outputs) {
      reply& to = heard_[o.id];
      if (to.tokens.empty()) {
        to.cached_tokens = o.cached_tokens;
        to.prompt_logprobs = o.prompt_logprobs;
      }
      to.tokens.insert(to.tokens.end(), o.tokens.begin(), o.tokens.end());
      to.logprobs.insert(to.logprobs.end(), o.logprobs.begin(),
                         o.logprobs.end());
      to.finish = o.finish;
      to.message = o.message;
    }
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  replies heard_;
  std::unique_ptr<troupe::engine::engine> engine_; ///< ends first
};

/// Requests of all kinds; some prompts begin alike.
std::vector<request> mixture(std::size_t count, std::int32_t vocabulary) {
  std::mt19937 random{7};
  std::vector<token_id> common;
  for (int i = 0; i < 40; ++i)
    common.push_back(static_cast<token_id>(random() % vocabulary));
  std::vector<request> all;
  for (std::size_t i = 0; i < count; ++i) {
    request r;
    r.id = i + 1;
    r.prompt.assign(common.begin(), common.begin() + random() % 40);
    for (std::uint32_t n = 1 + random() % 20; n > 0; --n)
      r.prompt.push_back(static_cast<token_id>(random() % vocabulary));
    r.params.max_tokens = 4 + random() % 20;
    r.params.seed = random();
    r.params.temperature = i % 3 == 0 ? 0.0f : 0.8f;
    r.params.top_p = i % 4 == 0 ? 0.9f : 1.0f;
    r.params.repetition_penalty = i % 5 == 0 ? 1.2f : 1.0f;
    r.params.logprobs = i % 2 == 0 ? 2 : -1;
    r.params.prompt_logprobs = i % 7 == 0 ? 1 : -1;
    r.params.ignore_eos = i % 2 == 0;
    all.push_back(r);
  }
  return all;
}

void check_same(const replies& got, const replies& expected) {
  REQUIRE(got.size() == expected.size());
  for (const auto& [id, reply] : expected) {
    INFO("id " << id << " " << reply.message << got.at(id).message);
    CHECK(reply.finish != finish_reason::error);
    CHECK(got.at(id).same_as(reply));
  }
}

/// Alone, whole and uncached on one thread: what all else is compared with.
replies baseline(options o, const std::vector<request>& requests) {
  o.enable_prefix_caching = false;
  session s{o};
  s.ask_one_by_one(requests);
  return s.heard();
}

void check_every_way(const options& o, const std::vector<request>& requests,
                     const replies& expected) {
  SECTION("together") {
    session s{o};
    s.ask(requests);
    check_same(s.heard(), expected);
  }
  SECTION("together on two threads") {
    options two = o;
    two.threads = 2;
    session s{two};
    s.ask(requests);
    check_same(s.heard(), expected);
  }
  SECTION("in small batches and chunks") {
    options narrow = o;
    narrow.max_num_batched_tokens = 7;
    narrow.max_num_seqs = 3;
    session s{narrow};
    s.ask(requests);
    check_same(s.heard(), expected);
  }
  SECTION("from the cache") {
    session s{o};
    s.ask_one_by_one(requests);
    std::vector<request> again = requests;
    std::uint32_t cached = 0;
    for (request& r : again)
      r.id += 1000;
    s.ask(again);
    replies second;
    for (const auto& [id, reply] : s.heard())
      if (id > 1000) {
        second[id - 1000] = reply;
        cached += reply.cached_tokens;
      }
    CHECK(cached > 0);
    check_same(second, expected);
  }
  SECTION("with preemption") {
    options tight = o;
    tight.kv_cache_bytes = session{o}.what().about().kv_cache_bytes /
                           session{o}.what().about().kv_blocks * (96 / 16 + 3);
    session s{tight};
    s.ask(requests);
    CHECK(s.what().now().preemptions > 0);
    check_same(s.heard(), expected);
  }
}

std::string failure(const options& o) {
  auto made = troupe::engine::engine::load(o, {});
  return made ? "" : made.error().message;
}

/// A folder that is gone afterwards.
class scratch_folder {
public:
  scratch_folder()
      : path_(fs::temp_directory_path() /
              ("troupe-engine-" + std::to_string(std::random_device{}()))) {
    fs::create_directories(path_);
  }

  ~scratch_folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }

  void write(const std::string& name, const std::string& text) const {
    std::ofstream{path_ / name} << text;
  }

  const fs::path& path() const {
    return path_;
  }

private:
  fs::path path_;
};

} // namespace

TEST_CASE("small models give the same tokens in every way of running them") {
  const char* name =
      GENERATE("f32-tied.gguf", "bf16-llama3.gguf", "q4_0-untied.gguf",
               "q4_1-linear.gguf", "q8_0-mha.gguf");
  INFO(name);
  const options o = small(tiny / name);
  const auto vocabulary =
      static_cast<std::int32_t>(session{o}.what().card().vocabulary_size);
  const auto requests = mixture(64, vocabulary);
  check_every_way(o, requests, baseline(o, requests));
}

TEST_CASE("the real model gives the same tokens in every way of running it") {
  if (!fs::exists(real)) {
    if (std::getenv("TROUPE_REQUIRE_MODEL"))
      FAIL("TROUPE_REQUIRE_MODEL is set, but the weights are not there");
    WARN("skipped: models/SmolLM2-135M-Instruct.Q4_1.gguf is not there");
    return;
  }
  const auto requests = mixture(8, 49152);
  static const replies expected = baseline(small(real), requests);
  check_every_way(small(real), requests, expected);
}

TEST_CASE("a loaded engine says what it is") {
  options o = small(tiny / "q8_0-mha.gguf");
  std::uint64_t done = 0, total = 0;
  const auto e =
      troupe::engine::engine::load(o, [&](std::uint64_t d, std::uint64_t t) {
        CHECK(d >= done);
        done = d;
        total = t;
      }).value();
  CHECK(done > 0);
  CHECK(done == total);
  CHECK(e->about().arithmetic_class.size() == 16);
  CHECK(e->about().device.substr(0, 5) == "cpu: ");
  CHECK(e->about().weight_bytes > 0);
  CHECK(e->about().kv_cache_bytes > 0);
  CHECK(e->about().kv_blocks * 16 >= 96);
  CHECK(e->about().max_num_seqs == 64);
  CHECK(e->card().max_model_len == 96);
  CHECK(e->card().eos_ids.size() > 0);
  CHECK(e->now().kv_blocks_total == e->about().kv_blocks);
}

TEST_CASE(
    "the arithmetic class is that of the weights, not of the way to run") {
  auto class_of = [](const options& o) {
    return troupe::engine::engine::load(o, {})
        .value()
        ->about()
        .arithmetic_class;
  };
  options o = small(tiny / "q8_0-mha.gguf");
  const std::string first = class_of(o);
  o.threads = 2;
  o.max_num_seqs = 3;
  CHECK(class_of(o) == first);
  o.model = tiny / "q4_1-linear.gguf";
  CHECK(class_of(o) != first);
}

TEST_CASE("every weight is read once per step") {
  session s{small(tiny / "q8_0-mha.gguf")};
  const auto requests =
      mixture(20, static_cast<int>(s.what().card().vocabulary_size));
  s.ask(requests);
  const stats now = s.what().now();
  CHECK(now.steps > 0);
  // The table of embeddings is looked up, not multiplied, if it is apart.
  CHECK(now.weight_bytes_read <= now.steps * s.what().about().weight_bytes);
  CHECK(now.weight_bytes_read > now.steps * s.what().about().weight_bytes / 4);
}

TEST_CASE("options that cannot be met are refused by name") {
  const options good = small(tiny / "f32-tied.gguf");
  auto with = [&](auto change) {
    options o = good;
    change(o);
    return failure(o);
  };
  using Catch::Contains;
  CHECK(failure(good) == "");
  CHECK_THAT(with([](options& o) { o.model = "nowhere.gguf"; }),
             Contains("nowhere.gguf"));
  CHECK_THAT(with([](options& o) { o.max_num_seqs = 0; }),
             Contains("max_num_seqs"));
  CHECK_THAT(with([](options& o) { o.max_num_batched_tokens = 1 << 30; }),
             Contains("max_num_batched_tokens"));
  CHECK_THAT(with([](options& o) { o.block_size = 0; }),
             Contains("block_size"));
  CHECK_THAT(with([](options& o) { o.threads = -1; }), Contains("threads"));
  CHECK_THAT(with([](options& o) { o.max_model_len = 1 << 20; }),
             Contains("max_model_len"));
  CHECK_THAT(with([](options& o) { o.kv_cache_bytes = 1; }),
             Contains("kv_cache_memory_bytes"));
  CHECK_THAT(with([](options& o) { o.tokenizer = "nowhere"; }),
             Contains("nowhere"));
  CHECK_THAT(with([](options& o) { o.memory_utilization = 1.5; }),
             Contains("gpu_memory_utilization"));
  CHECK_THAT(with([](options& o) { o.dtype = "float8"; }),
             Contains("dtype: 'float8'"));
  CHECK_THAT(with([](options& o) { o.load_format = "safetensors"; }),
             Contains("load_format"));
  CHECK_THAT(with([](options& o) { o.quantization = "awq"; }),
             Contains("quantised with gguf, not with awq"));
  CHECK(with([](options& o) { o.quantization = "gguf"; }) == "");
}

TEST_CASE("a directory may be asked for by the way it is quantised") {
  auto as = [](const char* name, const char* method) {
    options o = small(tiny / name);
    o.quantization = method;
    o.load_format = "safetensors";
    return failure(o);
  };
  CHECK(as("llama-awq", "awq") == "");
  CHECK(as("llama-int8", "compressed-tensors") == "");
  CHECK_THAT(as("llama-gptq", "awq"),
             Catch::Contains("quantised with gptq, not with awq"));
  CHECK_THAT(as("llama-bf16", "gptq"),
             Catch::Contains("quantised with nothing, not with gptq"));
}

TEST_CASE("a model of floats is quantised when it is loaded") {
  options o = small(tiny / "llama-bf16");
  o.max_model_len = 96;
  session stored{o};
  std::set<std::string> classes{stored.what().about().arithmetic_class};
  const auto stored_bytes = stored.what().about().weight_bytes;
  auto bytes = stored_bytes;
  const auto requests = mixture(8, 268);
  for (const char* method : {"q8_0", "q4_0"}) {
    o.quantization = method;
    session quantised{o};
    CHECK(quantised.what().about().weight_bytes < bytes);
    bytes = quantised.what().about().weight_bytes;
    classes.insert(quantised.what().about().arithmetic_class);
    quantised.ask(requests);
    check_same(quantised.heard(), baseline(o, requests));
  }
  o.quantization = "";
  o.dtype = "float16";
  classes.insert(session{o}.what().about().arithmetic_class);
  CHECK(classes.size() == 4);
  o.dtype = "float32"; // whose products round no inputs
  session wide{o};
  CHECK(wide.what().about().weight_bytes > 1.5 * stored_bytes);
  CHECK_FALSE(classes.contains(wide.what().about().arithmetic_class));
  o.model = tiny / "f32-tied.gguf";
  const auto exact = session{o}.what().about().arithmetic_class;
  o.dtype = "";
  CHECK(session{o}.what().about().arithmetic_class == exact);
}

TEST_CASE("keys and values are kept as asked, else as the model is") {
  const auto requests = mixture(8, 263);
  for (auto [model, own, other] :
       {std::tuple{"llama-bf16", "bfloat16", "float16"},
        {"f32-tied.gguf", "float16", "bfloat16"}}) {
    INFO(model);
    options o = small(tiny / model);
    o.max_model_len = 96;
    const auto unsaid = session{o}.what().about().arithmetic_class;
    o.kv_cache_dtype = own;
    CHECK(session{o}.what().about().arithmetic_class == unsaid);
    o.kv_cache_dtype = other;
    session changed{o};
    CHECK(changed.what().about().arithmetic_class != unsaid);
    changed.ask(requests);
    check_same(changed.heard(), baseline(o, requests));
  }
}

TEST_CASE("a seed and the makers' sampling are in the card") {
  options o = small(tiny / "llama-bf16");
  o.seed = 9;
  auto defaults = session{o}.what().card().defaults;
  CHECK(defaults.seed == 9u);
  CHECK(defaults.temperature == 0.6f);
  o.generation_defaults = false;
  text::sampling_defaults seed_alone;
  seed_alone.seed = 9;
  CHECK(session{o}.what().card().defaults == seed_alone);
}

TEST_CASE("a chat template can be given") {
  options o = small(tiny / "f32-tied.gguf");
  o.chat_template = "{{ messages[0]['content'] }}";
  CHECK(session{o}.what().card().chat_template == o.chat_template);
}

TEST_CASE("a chat template that is not understood refuses the model") {
  options o = small(tiny / "f32-tied.gguf");
  o.chat_template = "line one\n{% include 'x' %}";
  CHECK_THAT(failure(o), Catch::Contains("2"));
}

TEST_CASE("a tokenizer can be given as a directory or as a file") {
  const scratch_folder folder;
  folder.write("tokenizer.json", R"({
    "version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 4, "content": "<end>", "special": true,
      "single_word": false, "lstrip": false, "rstrip": false,
      "normalized": false}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false,
      "trim_offsets": true, "use_regex": true},
    "post_processor": null,
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "dropout": null, "unk_token": null,
      "continuing_subword_prefix": null, "end_of_word_suffix": null,
      "fuse_unk": false, "byte_fallback": false,
      "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3}, "merges": ["a b"]}})");
  folder.write("tokenizer_config.json",
               R"({"eos_token": {"content": "<end>"}, "bos_token": "c",
                   "add_bos_token": true, "chat_template": "T"})");
  options o = small(tiny / "f32-tied.gguf");
  o.tokenizer = folder.path();
  {
    session s{o};
    const text::model_card& card = s.what().card();
    CHECK(card.tokenizer.vocabulary.size() == 5);
    CHECK(card.tokenizer.eos == 4);
    CHECK(card.tokenizer.bos == 3);
    CHECK(card.tokenizer.add_bos);
    CHECK(card.chat_template == "T");
    CHECK(std::count(card.eos_ids.begin(), card.eos_ids.end(), 4) == 1);
  }
  folder.write("chat_template.jinja", "J");
  CHECK(session{o}.what().card().chat_template == "J");
  o.tokenizer = folder.path() / "tokenizer.json";
  CHECK(session{o}.what().card().chat_template != "J");
  CHECK(session{o}.what().card().tokenizer.vocabulary.size() == 5);
  folder.write("tokenizer_config.json", R"({"eos_token": "<nowhere>"})");
  o.tokenizer = folder.path();
  CHECK_THAT(failure(o), Catch::Contains("eos_token"));
  folder.write("tokenizer_config.json", "{");
  CHECK_THAT(failure(o), Catch::Contains("tokenizer_config.json"));
}
