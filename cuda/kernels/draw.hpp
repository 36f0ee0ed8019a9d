#pragma once

#include "cuda/kernels/numbers.hpp"
#include "engine/ops/draw.hpp"
#include "engine/sampling/draw_math.hpp"

namespace troupe::cuda {

/// Gives each row's change that waits for a token (ops::logit_change::id) the
/// token that was drawn: it is added to the change that the id has already, or
/// becomes its change. A block per row.
struct name_drawn_kernel {
  static constexpr bool collective = true;
  static constexpr std::size_t shared_floats = 1;
  const ops::draw_row* rows;
  ops::logit_change* changes;
  const std::int32_t* drawn; ///< below 0: none, and nobody wants the row

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const ops::draw_row& how = rows[t.block_y()];
    ops::logit_change* all = changes + how.first_change;
    if (how.changes == 0 || all[how.changes - 1].id >= 0)
      return; // all threads
    const ops::logit_change waits = all[how.changes - 1];
    const std::int32_t id = drawn[-1 - waits.id];
    auto* is_found = reinterpret_cast<std::uint32_t*>(t.shared());
    if (t.index() == 0)
      *is_found = 0;
    t.sync(); // all have read the one that waits
    const auto step = static_cast<std::int32_t>(t.count());
    for (auto i = static_cast<std::int32_t>(t.index()); i < how.changes - 1;
         i += step)
      if (all[i].id == id) { // of one thread at most
        all[i].what |= waits.what;
        all[i].times += waits.times;
        *is_found = 1;
      }
    t.sync();
    if (t.index() == 0 && *is_found == 0)
      all[how.changes - 1].id = id;
  }
};

/// Draws a token of each row of logits; a block per row (block_y). Everything
/// that decides on a token is the CPU sampler's arithmetic
/// (engine/sampling/draw_math.hpp) in its order, or sums of whole numbers, so
/// both draw the same. Weights are computed anew where they are needed: for
/// wide vocabularies they would take more memory than the logits.
struct draw_kernel {
  static constexpr bool collective = true;
  static constexpr unsigned threads = 512;
  /// Of a row: runs of its weights fit into shared memory.
  static constexpr std::int64_t cols_max = 1 << 20;

  float* logits;
  std::int64_t cols;
  const ops::draw_row* rows;
  const ops::logit_change* changes;
  float* raw; ///< as many as `changes`: what was there before
  const std::uint32_t* masks;
  std::int32_t* ids;
  float* logprobs;
  std::int32_t* best_ids; ///< [rows][best_max]
  float* best_logprobs;

  using word = std::uint64_t;

  static constexpr int digit_bits = 11;
  static constexpr int bins = 1 << digit_bits;
  static constexpr int bin_groups = 32;
  static constexpr int control_words = 4;

  static std::size_t shared_floats(std::int64_t cols) {
    const std::int64_t runs = runs_of(cols);
    const std::int64_t work = runs > bins ? runs : bins;
    const std::int64_t words = work + bin_groups + control_words + threads;
    return static_cast<std::size_t>(words) * 2 + threads / warp_size;
  }

  /// Shared memory of the block.
  struct memory {
    word* work; ///< bins of weights, sums of runs (as doubles), ranks
    word* groups;
    word* control; ///< what thread 0 tells the others
    double* lanes; ///< one per thread
    float* scratch;

    TROUPE_KERNEL double* sums() const {
      return reinterpret_cast<double*>(work);
    }
    TROUPE_KERNEL double* told() const {
      return reinterpret_cast<double*>(control);
    }
  };

  /// A row of logits; what is not allowed counts as minus infinity.
  struct row_view {
    float* at;
    const std::uint32_t* mask; ///< may be null

    TROUPE_KERNEL float operator[](std::int64_t id) const {
      const bool allowed = mask == nullptr || (mask[id / 32] >> id % 32 & 1u);
      return allowed ? at[id] : -INFINITY;
    }
  };

  /// Smaller is better: higher logits first, then lower ids.
  static constexpr int id_bits = 23;
  static constexpr int digits = 5; // of 32 + id_bits bits
  static_assert(digits * digit_bits == 32 + id_bits);

  TROUPE_KERNEL static word rank_of(float logit, std::int64_t id) {
    const std::uint32_t bits = bits_of(logit + 0.0f); // zeros have one sign
    const std::uint32_t rising = bits >> 31 ? ~bits : bits | 0x80000000u;
    return word{~rising} << id_bits | static_cast<word>(id);
  }

  TROUPE_KERNEL static std::int32_t id_of(word rank) {
    return static_cast<std::int32_t>(rank & ((word{1} << id_bits) - 1));
  }

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const ops::draw_row& how = rows[t.block_y()];
    float* row = logits + std::int64_t{t.block_y()} * cols;
    const memory m = memory_of(t);
    float max = 0;
    double log_sum = 0;
    bool good = how.by_host == 0;
    if (good && how.best >= 0)
      good = score(t, m, how, row, max, log_sum);
    std::int32_t id = how.scored;
    if (good && id < 0)
      id = draw(t, m, how, row);
    if (t.index() != 0)
      return;
    ids[t.block_y()] = good ? id : -1;
    logprobs[t.block_y()] = good && id >= 0 && how.best >= 0
                                ? sampling::logprob_of(row[id], max, log_sum)
                                : 0.0f;
  }

  TROUPE_KERNEL static constexpr std::int64_t runs_of(std::int64_t cols) {
    return (cols + sampling::run_size - 1) / sampling::run_size;
  }

  template <class Threads>
  TROUPE_KERNEL memory memory_of(Threads& t) const {
    const std::int64_t runs = runs_of(cols);
    memory out;
    out.work = reinterpret_cast<word*>(t.shared());
    out.groups = out.work + (runs > bins ? runs : bins);
    out.control = out.groups + bin_groups;
    out.lanes = reinterpret_cast<double*>(out.control + control_words);
    out.scratch = reinterpret_cast<float*>(out.lanes + t.count());
    return out;
  }

  // -- the raw logits ---------------------------------------------------------

  /// The best log-probabilities, and what it takes for others. False if the row
  /// holds what is no number.
  template <class Threads>
  TROUPE_KERNEL bool score(Threads& t, const memory& m,
                           const ops::draw_row& how, float* row, float& max,
                           double& log_sum) const {
    const row_view x{row, nullptr};
    if (!largest(t, m, x, max))
      return false;
    const float most = max;
    log_sum = sampling::fixed_log(add_up(t, m, [&](std::int64_t id) {
      return sampling::weight_of(x[id], most, 1.0);
    }));
    if (how.best > 0)
      find_best(t, m, how.best, x, most, log_sum);
    return true;
  }

  template <class Threads>
  TROUPE_KERNEL void find_best(Threads& t, const memory& m, std::int32_t wanted,
                               const row_view& x, float max,
                               double log_sum) const {
    const word last = rank_at(t, m, wanted, x);
    if (t.index() == 0)
      m.control[0] = 0;
    t.sync();
    for (std::int64_t id = t.index(); id < cols; id += t.count())
      if (const word rank = rank_of(x[id], id); rank <= last)
        m.work[t.add(m.control, 1)] = rank;
    t.sync();
    const int count = static_cast<int>(m.control[0]);
    const int first = static_cast<int>(t.block_y()) * ops::draw_row::best_max;
    for (int i = static_cast<int>(t.index()); i < count;
         i += static_cast<int>(t.count())) {
      int place = 0;
      for (int j = 0; j < count; ++j)
        place += m.work[j] < m.work[i] ? 1 : 0;
      const std::int32_t id = id_of(m.work[i]);
      best_ids[first + place] = id;
      best_logprobs[first + place] = sampling::logprob_of(x[id], max, log_sum);
    }
    t.sync();
  }

  // -- the draw ---------------------------------------------------------------

  /// -1 if the row holds what is no number, or if nothing may be drawn.
  template <class Threads>
  TROUPE_KERNEL std::int32_t draw(Threads& t, const memory& m,
                                  const ops::draw_row& how, float* row) const {
    const ops::logit_change* change = changes + how.first_change;
    float* before = raw + how.first_change;
    const auto first = static_cast<std::int32_t>(t.index());
    const auto step = static_cast<std::int32_t>(t.count());
    for (std::int32_t i = first; i < how.changes; i += step) {
      if (change[i].id < 0)
        continue; // another one has it
      float& logit = row[change[i].id];
      before[i] = logit;
      logit = changed(logit, change[i], how);
    }
    t.sync();
    const std::int64_t words = (cols + 31) / 32;
    const row_view x{row, how.mask < 0 ? nullptr : masks + how.mask * words};
    const std::int32_t id = draw_of(t, m, how, x);
    t.sync(); // all have read
    for (std::int32_t i = first; i < how.changes; i += step)
      if (change[i].id >= 0)
        row[change[i].id] = before[i];
    t.sync();
    return id;
  }

  TROUPE_KERNEL static float changed(float logit, const ops::logit_change& by,
                                     const ops::draw_row& how) {
    using ops::logit_change;
    if (by.what & logit_change::is_biased)
      logit = sampling::biased(logit, by.bias);
    if (by.what & logit_change::is_repeated)
      logit = sampling::repeated(logit, how.repetition_penalty);
    if (by.what & logit_change::is_penalised)
      logit = sampling::penalised(logit, how.frequency_penalty,
                                  static_cast<float>(by.times),
                                  how.presence_penalty);
    return by.what & logit_change::is_masked ? -INFINITY : logit;
  }

  template <class Threads>
  TROUPE_KERNEL std::int32_t draw_of(Threads& t, const memory& m,
                                     const ops::draw_row& how,
                                     const row_view& x) const {
    float max = 0;
    if (!largest(t, m, x, max))
      return -1;
    if (how.inverse == 0)
      return first_of(t, m, x, max);
    word last = rank_at(t, m, how.top_k, x);
    auto weight = [&](std::int64_t id) {
      const float logit = x[id];
      if (rank_of(logit, id) > last)
        return 0.0;
      const double w = sampling::weight_of(logit, max, how.inverse);
      return w < how.min_p ? 0.0 : w;
    };
    if (how.top_p < 1)
      last = border(
          t, m, x,
          [&](std::int64_t id) { return sampling::fixed_weight(weight(id)); },
          [&](word all) { return sampling::fixed_share(how.top_p, all); });
    const double all = add_up(t, m, weight);
    return pick(t, m, weight, how.fraction * all);
  }

  /// False if a logit is no number or plus infinity, or if none is above minus
  /// infinity.
  template <class Threads>
  TROUPE_KERNEL bool largest(Threads& t, const memory& m, const row_view& x,
                             float& max) const {
    float most = -INFINITY, bad = 0;
    for (std::int64_t id = t.index(); id < cols; id += t.count()) {
      const float logit = x[id];
      most = logit > most ? logit : most;
      bad = logit < INFINITY ? bad : 1.0f;
    }
    max = block_max(t, most, m.scratch);
    return block_max(t, bad, m.scratch) == 0 && max > -INFINITY;
  }

  template <class Threads>
  TROUPE_KERNEL std::int32_t first_of(Threads& t, const memory& m,
                                      const row_view& x, float value) const {
    std::int64_t id = t.index();
    while (id < cols && x[id] != value)
      id += t.count();
    const auto mine = static_cast<float>(id < cols ? id : cols); // exact
    return static_cast<std::int32_t>(-block_max(t, -mine, m.scratch));
  }

  /// The rank of the `count`th best; above all, if count is 0 or all.
  template <class Threads>
  TROUPE_KERNEL word rank_at(Threads& t, const memory& m, std::int32_t count,
                             const row_view& x) const {
    if (count <= 0 || count >= cols)
      return ~word{0};
    return border(
        t, m, x, [](std::int64_t) { return word{1}; },
        [&](word) { return static_cast<word>(count); });
  }

  /// The rank of the last of the fewest best whose weights together reach
  /// `wanted(sum of all weights)`, which is no more than that sum. Digit by
  /// digit from the highest: how much the ranks with each next digit weigh.
  template <class Threads, class Weight, class Wanted>
  TROUPE_KERNEL word border(Threads& t, const memory& m, const row_view& x,
                            Weight weight, Wanted wanted) const {
    word known = 0, before = 0, goal = 0;
    for (int digit = digits - 1; digit >= 0; --digit) {
      const int shift = digit * digit_bits;
      for (int i = static_cast<int>(t.index()); i < bins;
           i += static_cast<int>(t.count()))
        m.work[i] = 0;
      t.sync();
      for (std::int64_t id = t.index(); id < cols; id += t.count()) {
        const word rank = rank_of(x[id], id);
        if (rank >> (shift + digit_bits) != known)
          continue;
        if (const word w = weight(id); w > 0)
          t.add(m.work + (rank >> shift & (bins - 1)), w);
      }
      t.sync();
      constexpr int of_group = bins / bin_groups;
      if (t.index() < bin_groups) {
        word sum = 0;
        for (int i = 0; i < of_group; ++i)
          sum += m.work[static_cast<int>(t.index()) * of_group + i];
        m.groups[t.index()] = sum;
      }
      t.sync();
      if (t.index() == 0) {
        if (digit == digits - 1) {
          word all = 0;
          for (int i = 0; i < bin_groups; ++i)
            all += m.groups[i];
          goal = wanted(all);
        }
        int group = 0;
        while (before + m.groups[group] < goal)
          before += m.groups[group++];
        int bin = group * of_group;
        while (before + m.work[bin] < goal)
          before += m.work[bin++];
        m.control[0] = known << digit_bits | static_cast<word>(bin);
      }
      t.sync();
      known = m.control[0];
    }
    t.sync(); // all have read
    return known;
  }

  /// The sum of all weights, in the CPU's order; leaves the sums of the runs.
  template <class Threads, class Weight>
  TROUPE_KERNEL double add_up(Threads& t, const memory& m,
                              Weight weight) const {
    using sampling::run_lanes;
    using sampling::run_size;
    const std::int64_t runs = runs_of(cols);
    const int lane = static_cast<int>(t.index()) % run_lanes;
    for (std::int64_t first = 0; first < runs; first += t.count() / run_lanes) {
      const std::int64_t run = first + t.index() / run_lanes;
      double sum = 0;
      if (run < runs)
        for (int i = lane; i < run_size; i += run_lanes)
          if (const std::int64_t id = run * run_size + i; id < cols)
            sum += weight(id);
      m.lanes[t.index()] = sum;
      t.sync();
      if (lane == 0 && run < runs)
        m.sums()[run] = sampling::sum_of_lanes(m.lanes + t.index());
      t.sync();
    }
    if (t.index() == 0) {
      double all = 0;
      for (std::int64_t run = 0; run < runs; ++run)
        all += m.sums()[run];
      m.told()[0] = all;
    }
    t.sync();
    const double out = m.told()[0];
    t.sync();
    return out;
  }

  /// The id at which the running sum passes `target`, after `add_up`; never one
  /// of weight 0.
  template <class Threads, class Weight>
  TROUPE_KERNEL std::int32_t pick(Threads& t, const memory& m, Weight weight,
                                  double target) const {
    using sampling::run_size;
    double before = 0;
    if (t.index() == 0) {
      std::int64_t chosen = 0;
      for (std::int64_t run = 0; run < runs_of(cols); ++run) {
        const double sum = m.sums()[run];
        if (sum == 0)
          continue;
        chosen = run;
        if (before + sum > target)
          break;
        before += sum;
      }
      m.control[0] = static_cast<word>(chosen);
    }
    t.sync();
    const std::int64_t first =
        static_cast<std::int64_t>(m.control[0]) * run_size;
    for (int i = static_cast<int>(t.index()); i < run_size;
         i += static_cast<int>(t.count()))
      m.lanes[i] = first + i < cols ? weight(first + i) : 0.0;
    t.sync();
    if (t.index() == 0) {
      std::int64_t chosen = first;
      for (int i = 0; i < run_size; ++i) {
        if (m.lanes[i] == 0)
          continue;
        chosen = first + i;
        before += m.lanes[i];
        if (before > target)
          break;
      }
      m.control[0] = static_cast<word>(chosen);
    }
    t.sync();
    return static_cast<std::int32_t>(m.control[0]);
  }
};

static_assert(draw_kernel::threads >= sampling::run_size);

} // namespace troupe::cuda
