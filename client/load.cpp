#include "client/load.hpp"

#include "client/exchange.hpp"
#include "router/api/json_writer.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <simdjson.h>

#include <array>
#include <csignal>
#include <exception>
#include <random>
#include <string_view>

namespace troupe::client {

namespace {

namespace asio = boost::asio;
using clock = std::chrono::steady_clock;

constexpr std::array<std::string_view, 32> words{
    "the",   "river",   "stone",  "light",  "under", "garden", "paper",
    "wind",  "morning", "small",  "engine", "carry", "silver", "road",
    "hand",  "winter",  "number", "letter", "green", "house",  "voice",
    "north", "glass",   "table",  "summer", "field", "bright", "water",
    "story", "window",  "long",   "music"};

float seconds_between(clock::time_point from, clock::time_point to) {
  return std::chrono::duration<float>(to - from).count();
}

/// Makes requests one after the other; what is random depends on the seed and
/// the request's number alone.
class request_maker {
public:
  explicit request_maker(const load_plan& plan) : plan_(plan) {
    // nop
  }

  call make(std::uint64_t number) const {
    std::mt19937_64 random{plan_.seed * 0x9e3779b97f4a7c15u + number};
    std::string prompt;
    for (std::uint32_t i = 0; i < plan_.prompt_words; ++i)
      prompt.append(i ? " " : "").append(words[random() % words.size()]);
    api::json_writer out;
    out.begin_object().key("model").text(plan_.model);
    out.key("prompt").text(prompt);
    out.key("max_tokens").natural(plan_.max_tokens);
    out.key("ignore_eos").json("true").key("stream").json("true");
    out.key("stream_options").json(R"({"include_usage":true})");
    out.key("seed").natural(random() >> 33);
    out.end_object();
    return {"POST", "/v1/completions", out.take(), plan_.api_key};
  }

private:
  const load_plan& plan_;
};

/// Reads what an event says: text of a choice, and usage at the end.
struct event_reader {
  simdjson::dom::parser parser;

  bool has_text(std::string_view data, load_result& out) {
    simdjson::dom::element event;
    if (parser.parse(data.data(), data.size()).get(event) != simdjson::SUCCESS)
      return false;
    std::uint64_t tokens = 0;
    if (event["usage"]["prompt_tokens"].get(tokens) == simdjson::SUCCESS)
      out.prompt_tokens += tokens;
    if (event["usage"]["completion_tokens"].get(tokens) == simdjson::SUCCESS)
      out.output_tokens += tokens;
    std::string_view text;
    return event["choices"].at(0)["text"].get(text) == simdjson::SUCCESS;
  }
};

class load_run {
public:
  load_run(const load_plan& plan,
           const std::function<void(std::uint64_t)>& on_answer)
      : plan_(plan), make_(plan), on_answer_(on_answer) {
    // nop
  }

  load_result run() {
    began_ = last_ = clock::now();
    interrupt_.async_wait([this](boost::system::error_code cancelled, int) {
      if (cancelled)
        return;
      out_.interrupted = true;
      io_.stop();
    });
    if (plan_.rate > 0)
      spawn(arrivals());
    else
      for (std::uint32_t i = 0; i < plan_.concurrency; ++i)
        spawn(one_after_the_other());
    io_.run();
    out_.seconds = seconds_between(began_, last_);
    return std::move(out_);
  }

private:
  /// The last one to end ends the wait for an interrupt, and so the run.
  void spawn(asio::awaitable<void> what) {
    ++spawned_;
    asio::co_spawn(io_, std::move(what), [this](std::exception_ptr) {
      if (--spawned_ == 0)
        interrupt_.cancel();
    });
  }

  /// False if no request is to begin any more.
  bool goes_on() const {
    return out_.begun + out_.skipped < plan_.requests &&
           (plan_.time_max.count() <= 0 ||
            clock::now() - began_ < plan_.time_max);
  }

  asio::awaitable<void> one_after_the_other() {
    while (goes_on())
      co_await ask();
  }

  asio::awaitable<void> arrivals() {
    std::mt19937_64 random{plan_.seed};
    std::exponential_distribution<double> pause{plan_.rate};
    asio::steady_timer timer{io_};
    // From one planned time to the next, so that no delay adds up.
    auto due = clock::now();
    while (goes_on()) {
      if (under_way_ < plan_.concurrency)
        spawn(ask());
      else
        ++out_.skipped;
      due += std::chrono::duration_cast<clock::duration>(
          std::chrono::duration<double>{pause(random)});
      timer.expires_at(due);
      co_await timer.async_wait(asio::use_awaitable);
    }
  }

  asio::awaitable<void> ask() {
    ++under_way_;
    auto what = make_.make(out_.begun++);
    auto begun = clock::now();
    auto latest = begun;
    std::vector<float> gaps;
    load_result counted;
    float first = 0;
    auto got = co_await exchange(plan_.where, what, [&](std::string_view data) {
      if (!reader_.has_text(data, counted))
        return;
      auto now = clock::now();
      if (latest == begun)
        first = seconds_between(begun, now);
      else
        gaps.push_back(seconds_between(latest, now));
      latest = now;
    });
    last_ = clock::now();
    --under_way_;
    if (got && got->status == 200 && got->done) {
      ++out_.answered;
      out_.first_token.push_back(first);
      out_.whole.push_back(seconds_between(begun, last_));
      if (out_.gaps.size() + gaps.size() <= gaps_max)
        out_.gaps.insert(out_.gaps.end(), gaps.begin(), gaps.end());
      out_.prompt_tokens += counted.prompt_tokens;
      out_.output_tokens += counted.output_tokens;
    } else if (got && (got->status == 429 || got->status == 503)) {
      ++out_.refused;
    } else {
      ++out_.failed;
      if (out_.failure.empty())
        out_.failure = !got                 ? got.error().message
                       : got->status == 200 ? "an answer is cut off"
                                            : reason_of(*got);
    }
    on_answer_(out_.answered + out_.refused + out_.failed);
  }

  const load_plan& plan_;
  request_maker make_;
  const std::function<void(std::uint64_t)>& on_answer_;
  asio::io_context io_{1};
  asio::signal_set interrupt_{io_, SIGINT};
  std::size_t spawned_ = 0; ///< that have not ended
  event_reader reader_;
  std::uint32_t under_way_ = 0;
  clock::time_point began_;
  clock::time_point last_;
  load_result out_;
};

} // namespace

load_result run_load(const load_plan& plan,
                     const std::function<void(std::uint64_t)>& on_answer) {
  return load_run{plan, on_answer}.run();
}

} // namespace troupe::client
