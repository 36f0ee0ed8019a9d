// A service without HTTP and without actors: loads a model, continues a prompt
// and prints the text as it comes.
//
//   local_engine MODEL.gguf PROMPT [TOKENS]
//
// Links troupe_engine alone. Exit status: 0 = well, 1 = failed, 2 = usage.

#include "engine/engine.hpp"
#include "engine/text/detokenizer.hpp"
#include "engine/text/tokenizer.hpp"

#include <charconv>
#include <condition_variable>
#include <deque>
#include <iostream>
#include <mutex>
#include <string>
#include <string_view>

using namespace troupe;

namespace {

/// What the engine's thread hands to the main thread. The callback of a step
/// must be quick, so it only puts the news down here.
class news_queue {
public:
  void put(engine::step_result&& step) {
    {
      std::lock_guard guard{mutex_};
      for (auto& one : step.outputs)
        news_.push_back(std::move(one));
    }
    changed_.notify_one();
  }

  engine::output take() {
    std::unique_lock guard{mutex_};
    changed_.wait(guard, [this] { return !news_.empty(); });
    auto out = std::move(news_.front());
    news_.pop_front();
    return out;
  }

private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<engine::output> news_;
};

/// The ids of a prompt, begun as the model wants prompts to begin.
std::vector<token_id> ids_of(const text::tokenizer& tokenizer,
                             std::string_view prompt) {
  std::vector<token_id> out;
  if (tokenizer.data().add_bos)
    out.push_back(tokenizer.data().bos);
  tokenizer.encode(prompt, false, out);
  return out;
}

/// Prints one choice until its end.
result<void> print_choice(news_queue& news, text::detokenizer& text) {
  while (true) {
    auto step = news.take();
    std::string out;
    for (auto id : step.tokens)
      text.push(id, out);
    if (step.finish != engine::finish_reason::none)
      text.finish(out);
    std::cout << out << std::flush;
    if (step.finish == engine::finish_reason::error)
      return error{step.code, step.message};
    if (step.finish != engine::finish_reason::none)
      return {};
  }
}

result<void> run(const std::string& model, std::string_view prompt,
                 std::uint32_t tokens) {
  engine::options options;
  options.model = model;
  options.kv_cache_bytes = 256u << 20; // one sequence needs no more
  auto loaded = engine::engine::load(
      options, [](std::uint64_t, std::uint64_t) { /* bytes done, in all */ });
  if (!loaded)
    return loaded.error();

  // The text side comes from the model card; behind it there are ids only.
  auto tokenizer = text::tokenizer::make((*loaded)->card().tokenizer);
  if (!tokenizer)
    return tokenizer.error();

  news_queue news; // the engine ends first: nobody calls back into nothing
  auto engine = std::move(*loaded);
  engine->start([&](engine::step_result&& step) { news.put(std::move(step)); });

  engine::request request;
  request.id = 1;
  request.prompt = ids_of(**tokenizer, prompt);
  request.params.temperature = 0; // greedy; no seed is needed
  request.params.max_tokens = tokens;
  engine->submit(std::move(request));

  text::detokenizer text{*tokenizer, true};
  auto done = print_choice(news, text);
  std::cout << '\n';
  auto now = engine->now();
  std::cerr << engine->about().device << ": " << now.output_tokens
            << " tokens in " << now.steps << " steps\n";
  return done;
}

} // namespace

int main(int argc, char** argv) {
  std::uint32_t tokens = 64;
  auto ok = argc == 3 || argc == 4;
  if (argc == 4) {
    std::string_view given{argv[3]};
    auto read = std::from_chars(given.begin(), given.end(), tokens);
    ok = read.ec == std::errc{} && read.ptr == given.end() && tokens > 0;
  }
  if (!ok) {
    std::cerr << "usage: local_engine MODEL.gguf PROMPT [TOKENS]\n";
    return 2;
  }
  if (auto done = run(argv[1], argv[2], tokens); !done) {
    std::cerr << "local_engine: " << done.error().message << '\n';
    return 1;
  }
}
