#include "engine/engine_thread.hpp"

#include "engine/step_fit.hpp"
#include "engine/step_rate.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>
#include <variant>

namespace troupe::engine {

namespace {

struct cancellation {
  std::uint64_t id = 0;
};

struct refusal {
  std::uint64_t id = 0;
  error why;
};

using news = std::variant<request, cancellation, refusal>;

std::unique_ptr<core> make_core(loaded_model& model) {
  if (model.pooler)
    return std::make_unique<pooling_core>(model.pooling, *model.pooler);
  return std::make_unique<engine_core>(model.config, *model.runner);
}

class engine_thread final : public engine {
public:
  explicit engine_thread(loaded_model model)
      : model_(std::move(model)), core_(make_core(model_)), now_(core_->now()) {
  }

  ~engine_thread() override {
    {
      std::lock_guard lock{mutex_};
      is_stopping_ = true;
    }
    has_news_.notify_one();
    if (thread_.joinable())
      thread_.join();
  }

  const text::model_card& card() const override {
    return model_.card;
  }

  const description& about() const override {
    return model_.about;
  }

  void start(std::function<void(step_result&&)> on_step,
             step_watch* watch) override {
    on_step_ = std::move(on_step);
    watch_ = watch;
    thread_ = std::thread{[this] { run(); }};
  }

  void submit(request r) override {
    std::optional<error> fault = core_->find_fault(r);
    std::lock_guard lock{mutex_};
    if (!fault && living_ + arriving_ >= core_->most_living())
      fault = core_->queue_is_full();
    if (fault) {
      tell(refusal{r.id, std::move(*fault)});
      return;
    }
    ++arriving_;
    tell(std::move(r));
  }

  void cancel(std::uint64_t id) override {
    std::lock_guard lock{mutex_};
    tell(cancellation{id});
  }

  stats now() const override {
    std::lock_guard lock{mutex_};
    stats s = now_;
    s.waiting += arriving_;
    return s;
  }

private:
  void tell(news n) {
    inbox_.push_back(std::move(n));
    has_news_.notify_one();
  }

  void run() {
    std::vector<news> taken;
    while (wait_for_work(taken)) {
      for (news& n : taken)
        std::visit([this](auto& what) { take_in(what); }, n);
      taken.clear();
      const stats before = core_->now();
      const auto begin = std::chrono::steady_clock::now();
      step_result result = step();
      time_step(before, result.now, std::chrono::steady_clock::now() - begin);
      publish(result.now);
      const bool is_over = !result.failed.empty();
      if (is_over || !result.outputs.empty() || result.now.steps > before.steps)
        on_step_(std::move(result));
      if (is_over)
        return;
    }
  }

  step_result step() {
    try {
      return core_->step(watch_);
    } catch (const ops::rank_lost& why) {
      step_result out;
      out.now = now_;
      out.failed = why.what();
      return out;
    }
  }

  /// Sleeps while there is nothing to do; false when it is time to stop.
  bool wait_for_work(std::vector<news>& taken) {
    std::unique_lock lock{mutex_};
    has_news_.wait(lock, [this] {
      return is_stopping_ || !inbox_.empty() || core_->living() > 0;
    });
    std::swap(taken, inbox_);
    living_ += std::exchange(arriving_, 0);
    return !is_stopping_;
  }

  /// The first step is no measure: it touches what was never touched.
  void time_step(const stats& before, stats& now,
                 std::chrono::steady_clock::duration time) {
    if (before.steps > 0 && now.steps > before.steps) {
      longest_step_ = std::max(longest_step_, time);
      rate_.step(rows(now) - rows(before), time);
      fit_.step(rows(now) - rows(before), time);
    }
    now.longest_step_ms = longest_step_ms();
    now.tokens_per_second = rate_.per_second();
    now.few_rows_us = fit_.few_rows_us();
    now.many_rows_us = fit_.many_rows_us();
  }

  static std::uint64_t rows(const stats& of) {
    return of.prompt_tokens + of.resumed_tokens + of.output_tokens;
  }

  std::uint32_t longest_step_ms() const {
    using std::chrono::milliseconds;
    return static_cast<std::uint32_t>(
        std::chrono::duration_cast<milliseconds>(longest_step_).count());
  }

  void take_in(request& r) {
    core_->submit(std::move(r));
  }

  void take_in(const cancellation& c) {
    core_->cancel(c.id);
  }

  void take_in(refusal& r) {
    core_->refuse(r.id, std::move(r.why));
  }

  void publish(const stats& now) {
    std::lock_guard lock{mutex_};
    now_ = now;
    living_ = core_->living();
  }

  loaded_model model_;
  /// The thread's alone, but for what any thread may call.
  std::unique_ptr<core> core_;
  std::function<void(step_result&&)> on_step_;
  step_watch* watch_ = nullptr;
  // The thread's alone.
  std::chrono::steady_clock::duration longest_step_{};
  step_rate rate_;
  step_fit fit_;
  std::thread thread_;

  mutable std::mutex mutex_;
  std::condition_variable has_news_;
  std::vector<news> inbox_;
  std::uint32_t arriving_ = 0; ///< requests in the inbox
  std::uint32_t living_ = 0;   ///< choices in the core, as the outside counts
  stats now_;
  bool is_stopping_ = false;
};

} // namespace

std::unique_ptr<engine> make_engine(loaded_model model) {
  return std::make_unique<engine_thread>(std::move(model));
}

} // namespace troupe::engine
