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

/// What a draw knows of the logits that a block looked at.
struct draw_part {
  float most;
  std::int32_t first; ///< id that has it
  std::int32_t bad;   ///< 1: some logit is no number, or plus infinity
};

/// How far the search for a border is (`draw_pass::settle`).
struct border_state {
  std::uint64_t known = 0;  ///< of the rank, its first digits
  std::uint64_t before = 0; ///< what better ranks than these weigh
  std::uint64_t goal = 0;
};

/// What a draw's kernels leave each other of a row, in the device's memory.
struct draw_note {
  static constexpr int parts_max = 64;
  static constexpr int digit_bits = 8;
  static constexpr int bins = 1 << digit_bits;
  static constexpr int digits = 7;

  draw_part parts[2][parts_max];
  border_state borders[3 * digits]; ///< before each pass
  std::uint64_t top_k_last;
  std::uint64_t best[ops::draw_row::best_max]; ///< ranks, in any order
  std::uint64_t best_count;
  double log_sum; ///< of a row that is scored, and its greatest
  float max;
  std::int32_t is_good;
  /// Passes take turns: one counts, one was counted before, one is cleared.
  std::uint64_t counted[3][bins];
};

/// Draws a token of each row of logits (block_y). Everything that decides on a
/// token is the CPU sampler's arithmetic (engine/sampling/draw_math.hpp) in its
/// order, or sums of whole numbers, so both draw the same. A row is looked at
/// in passes, one kernel each, by several blocks (block_x) that have a part of
/// it; between them stands its `draw_note`. Weights are computed anew where
/// they are needed: for wide vocabularies they would take more memory than the
/// logits.
struct draw_pass {
  static constexpr bool collective = true;
  static constexpr unsigned threads = 512;
  /// Of a row: runs of its weights fit into shared memory.
  static constexpr std::int64_t cols_max = 1 << 20;
  /// Of a part at least, so that there is something to do.
  static constexpr std::int64_t part_cols_least = 512;

  float* logits;
  std::int64_t cols;
  std::int64_t part_cols; ///< whole runs, but for the last part's
  std::int32_t parts;
  const ops::draw_row* rows;
  const ops::logit_change* changes;
  float* raw; ///< as many as `changes`: what was there before
  const std::uint32_t* masks;
  draw_note* notes;
  double* run_sums; ///< [rows][runs]
  std::int32_t* ids;
  float* logprobs;
  std::int32_t* best_ids; ///< [rows][best_max]
  float* best_logprobs;

  using word = std::uint64_t;

  /// Logits as they are, or as they were changed.
  enum class stage : std::uint8_t { scored, drawn };
  /// Of what may be drawn, or of the best log-probabilities.
  enum class border : std::uint8_t { top_k, top_p, best };

  static constexpr int digit_bits = draw_note::digit_bits;
  static constexpr int bins = draw_note::bins;
  static constexpr int digits = draw_note::digits;
  static constexpr int bin_groups = 32;
  static constexpr int control_words = 4;

  static std::size_t shared_floats(std::int64_t cols) {
    const std::int64_t runs = runs_of(cols);
    const std::int64_t work = runs > bins ? runs : bins;
    const std::int64_t words = work + bin_groups + control_words + threads;
    return static_cast<std::size_t>(words) * 2 + threads / warp_size;
  }

  /// Parts of whole runs, of so many at least `part_cols_least`.
  static std::int64_t part_cols_for(std::int64_t cols, std::int64_t wanted) {
    const std::int64_t most = cols / part_cols_least;
    std::int64_t parts =
        wanted < draw_note::parts_max ? wanted : draw_note::parts_max;
    parts = parts < most ? parts : most;
    const std::int64_t runs = runs_of(cols);
    return parts < 2 ? runs * sampling::run_size
                     : (runs + parts - 1) / parts * sampling::run_size;
  }

  TROUPE_KERNEL static constexpr std::int64_t runs_of(std::int64_t cols) {
    return (cols + sampling::run_size - 1) / sampling::run_size;
  }

  /// Of `digits`, which find a border.
  TROUPE_KERNEL static constexpr int first_pass(border of) {
    return static_cast<int>(of) * digits;
  }

  /// Of a row: whether it has the stage, and whether it has the border.
  TROUPE_KERNEL static bool is_wanted(const ops::draw_row& how, stage of) {
    return how.by_host == 0 &&
           (of == stage::scored ? how.best >= 0 : how.scored < 0);
  }
  TROUPE_KERNEL bool has_border(const ops::draw_row& how, border of) const {
    if (of == border::best)
      return is_wanted(how, stage::scored) && how.best > 0 && how.best < cols;
    if (!is_wanted(how, stage::drawn) || how.inverse == 0)
      return false;
    return of == border::top_k ? how.top_k > 0 && how.top_k < cols
                               : how.top_p < 1;
  }

protected:
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

  struct id_range {
    std::int64_t begin, end;
  };

  /// What all parts of a row say.
  struct row_summary {
    float max;
    std::int32_t first; ///< id that has it
    bool is_good; ///< no logit is no number or plus infinity, and one is above
                  ///< minus infinity
  };

  /// Smaller is better: higher logits first, then lower ids.
  static constexpr int id_bits = 24;
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

  /// Those of the block's part.
  template <class Threads>
  TROUPE_KERNEL id_range ids_of(Threads& t) const {
    const std::int64_t begin = t.block_x() * part_cols;
    return {begin, begin + part_cols < cols ? begin + part_cols : cols};
  }

  template <class Threads>
  TROUPE_KERNEL row_view view_of(Threads& t, stage of) const {
    const ops::draw_row& how = rows[t.block_y()];
    const bool is_masked = of == stage::drawn && how.mask >= 0;
    return {logits + std::int64_t{t.block_y()} * cols,
            is_masked ? masks + how.mask * ((cols + 31) / 32) : nullptr};
  }

  template <class Threads>
  TROUPE_KERNEL draw_note& note_of(Threads& t) const {
    return notes[t.block_y()];
  }

  template <class Threads>
  TROUPE_KERNEL double* sums_of(Threads& t) const {
    return run_sums + std::int64_t{t.block_y()} * runs_of(cols);
  }

  template <class Threads>
  TROUPE_KERNEL row_summary summary_of(Threads& t, const memory& m,
                                       stage of) const {
    const draw_part* all = note_of(t).parts[static_cast<int>(of)];
    const auto part = static_cast<std::int32_t>(t.index());
    const bool is_there = part < parts; // parts_max <= threads
    const float most = is_there ? all[part].most : -INFINITY;
    const float bad = is_there && all[part].bad != 0 ? 1.0f : 0.0f;
    row_summary out;
    out.max = block_max(t, most, m.scratch);
    out.is_good = block_max(t, bad, m.scratch) == 0 && out.max > -INFINITY;
    const bool has_it = is_there && most == out.max;
    out.first = lowest(t, m, has_it ? all[part].first : cols_max);
    return out;
  }

  /// Of all threads; up to 2^24.
  template <class Threads>
  TROUPE_KERNEL static std::int32_t lowest(Threads& t, const memory& m,
                                           std::int64_t id) {
    return static_cast<std::int32_t>(
        -block_max(t, -static_cast<float>(id), m.scratch));
  }

  // -- borders ----------------------------------------------------------------
  //
  // A border is the rank of the last of the fewest best whose weights together
  // reach a goal. It is found digit by digit from the highest: a pass counts
  // how much the ranks with each next digit weigh.

  TROUPE_KERNEL static border border_of(int pass) {
    return static_cast<border>(pass / digits);
  }

  template <class Threads>
  TROUPE_KERNEL static void clear_bins(Threads& t, word* all) {
    for (int i = static_cast<int>(t.index()); i < bins;
         i += static_cast<int>(t.count()))
      all[i] = 0;
  }

  /// Into bins of shared memory, which are clear.
  template <class Threads, class Weight>
  TROUPE_KERNEL static void count_digit(Threads& t, word* to, const row_view& x,
                                        id_range ids, int digit, word known,
                                        Weight weight) {
    const int shift = digit * digit_bits;
    for (std::int64_t id = ids.begin + t.index(); id < ids.end;
         id += t.count()) {
      const word rank = rank_of(x[id], id);
      if (rank >> (shift + digit_bits) != known)
        continue;
      if (const word w = weight(id); w > 0)
        t.add(to + (rank >> shift & (bins - 1)), w);
    }
    t.sync();
  }

  /// With what was counted of the next digit in `m.work`. `wanted(sum of all
  /// weights)`, no more than that, is the goal if it was the first digit.
  template <class Threads, class Wanted>
  TROUPE_KERNEL static border_state settle(Threads& t, const memory& m,
                                           border_state state, bool is_first,
                                           Wanted wanted) {
    constexpr int of_group = bins / bin_groups;
    if (t.index() < bin_groups) {
      word sum = 0;
      for (int i = 0; i < of_group; ++i)
        sum += m.work[static_cast<int>(t.index()) * of_group + i];
      m.groups[t.index()] = sum;
    }
    t.sync();
    if (t.index() == 0) {
      if (is_first) {
        word all = 0;
        for (int i = 0; i < bin_groups; ++i)
          all += m.groups[i];
        state.goal = wanted(all);
      }
      int group = 0;
      while (state.before + m.groups[group] < state.goal)
        state.before += m.groups[group++];
      int bin = group * of_group;
      while (state.before + m.work[bin] < state.goal)
        state.before += m.work[bin++];
      m.control[0] = state.known << digit_bits | static_cast<word>(bin);
      m.control[1] = state.before;
      m.control[2] = state.goal;
    }
    t.sync();
    const border_state out{m.control[0], m.control[1], m.control[2]};
    t.sync(); // all have read
    return out;
  }

  /// After a pass of a border of this row, as all its blocks have counted.
  template <class Threads>
  TROUPE_KERNEL border_state settled(Threads& t, const memory& m,
                                     int pass) const {
    const ops::draw_row& how = rows[t.block_y()];
    const draw_note& note = note_of(t);
    for (int i = static_cast<int>(t.index()); i < bins;
         i += static_cast<int>(t.count()))
      m.work[i] = note.counted[pass % 3][i];
    t.sync();
    const border of = border_of(pass);
    return settle(t, m, note.borders[pass], pass % digits == 0, [&](word all) {
      return of == border::top_p
                 ? sampling::fixed_share(how.top_p, all)
                 : static_cast<word>(of == border::best ? how.best : how.top_k);
    });
  }

  /// A border, after all its passes; above all, if the row has none.
  template <class Threads>
  TROUPE_KERNEL word found(Threads& t, const memory& m, border of) const {
    return has_border(rows[t.block_y()], of)
               ? settled(t, m, first_pass(of) + digits - 1).known
               : ~word{0};
  }

  /// Of what may be drawn.
  template <class Threads>
  TROUPE_KERNEL word last_of(Threads& t, const memory& m) const {
    const bool has_top_p = has_border(rows[t.block_y()], border::top_p);
    return found(t, m, has_top_p ? border::top_p : border::top_k);
  }

  // -- weights ----------------------------------------------------------------

  TROUPE_KERNEL static double weight_of(const ops::draw_row& how, float logit,
                                        std::int64_t id, float max, word last) {
    if (rank_of(logit, id) > last)
      return 0.0;
    const double w = sampling::weight_of(logit, max, how.inverse);
    return w < how.min_p ? 0.0 : w;
  }

  /// The sum of all weights, in the CPU's order: run after run. Leaves what it
  /// is after each run in `m.sums()`.
  template <class Threads>
  TROUPE_KERNEL double total(Threads& t, const memory& m) const {
    const std::int64_t runs = runs_of(cols);
    const double* sums = sums_of(t);
    for (std::int64_t run = t.index(); run < runs; run += t.count())
      m.sums()[run] = sums[run];
    t.sync();
    if (t.index() == 0) {
      double all = 0;
      for (std::int64_t run = 0; run < runs; ++run)
        m.sums()[run] = all += m.sums()[run];
      m.told()[0] = all;
    }
    t.sync();
    const double out = m.told()[0];
    t.sync();
    return out;
  }
};

/// The first pass of a stage.
struct largest_kernel : draw_pass {
  stage of;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    if (!is_wanted(rows[t.block_y()], of))
      return; // all threads
    const memory m = memory_of(t);
    draw_note& note = note_of(t);
    if (t.block_x() == 0) {
      for (auto& bins_of_pass : note.counted)
        clear_bins(t, bins_of_pass);
      if (t.index() == 0)
        note.best_count = 0;
    }
    const row_view x = view_of(t, of);
    const auto [begin, end] = ids_of(t);
    float most = -INFINITY, bad = 0;
    std::int64_t first = cols_max;
    for (std::int64_t id = begin + t.index(); id < end; id += t.count()) {
      const float logit = x[id];
      if (logit > most) {
        most = logit;
        first = id;
      }
      bad = logit < INFINITY ? bad : 1.0f;
    }
    draw_part out;
    out.most = block_max(t, most, m.scratch);
    out.bad = block_max(t, bad, m.scratch) > 0 ? 1 : 0;
    out.first = lowest(t, m, most == out.most ? first : cols_max);
    if (t.index() == 0)
      note.parts[static_cast<int>(of)][t.block_x()] = out;
  }
};

/// One of the passes of the borders.
struct border_kernel : draw_pass {
  std::int32_t pass;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const ops::draw_row& how = rows[t.block_y()];
    const border of = border_of(pass);
    const bool is_first = pass % digits == 0;
    if (!has_border(how, of))
      return; // all threads
    const stage from = of == border::best ? stage::scored : stage::drawn;
    const memory m = memory_of(t);
    const row_summary row = summary_of(t, m, from);
    if (!row.is_good)
      return;
    draw_note& note = note_of(t);
    word last = ~word{0};
    if (of == border::top_p)
      last = is_first ? found(t, m, border::top_k) : note.top_k_last;
    border_state state;
    if (!is_first)
      state = settled(t, m, pass - 1);
    if (t.block_x() == 0) {
      clear_bins(t, note.counted[(pass + 1) % 3]);
      if (t.index() == 0) {
        note.borders[pass] = state;
        if (of == border::top_p && is_first)
          note.top_k_last = last;
      }
    }
    clear_bins(t, m.work);
    t.sync();
    const row_view x = view_of(t, from);
    count_digit(t, m.work, x, ids_of(t), digits - 1 - pass % digits,
                state.known, [&](std::int64_t id) {
                  return of != border::top_p
                             ? word{1}
                             : sampling::fixed_weight(
                                   weight_of(how, x[id], id, row.max, last));
                });
    for (int i = static_cast<int>(t.index()); i < bins;
         i += static_cast<int>(t.count()))
      if (m.work[i] > 0)
        t.add(note.counted[pass % 3] + i, m.work[i]);
  }
};

/// The sums of runs.
struct weigh_kernel : draw_pass {
  stage of;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    using sampling::run_lanes;
    using sampling::run_size;
    const ops::draw_row& how = rows[t.block_y()];
    if (!is_wanted(how, of) || (of == stage::drawn && how.inverse == 0))
      return; // all threads
    const memory m = memory_of(t);
    const row_summary row = summary_of(t, m, of);
    if (!row.is_good)
      return;
    const word last = of == stage::drawn ? last_of(t, m) : ~word{0};
    const row_view x = view_of(t, of);
    const std::int64_t begin = t.block_x() * part_cols / run_size;
    const std::int64_t runs = runs_of(cols);
    const std::int64_t end = begin + part_cols / run_size < runs
                                 ? begin + part_cols / run_size
                                 : runs;
    const int lane = static_cast<int>(t.index()) % run_lanes;
    for (std::int64_t first = begin; first < end;
         first += t.count() / run_lanes) {
      const std::int64_t run = first + t.index() / run_lanes;
      double sum = 0;
      if (run < end)
        for (int i = lane; i < run_size; i += run_lanes)
          if (const std::int64_t id = run * run_size + i; id < cols)
            sum += of == stage::scored
                       ? sampling::weight_of(x[id], row.max, 1.0)
                       : weight_of(how, x[id], id, row.max, last);
      m.lanes[t.index()] = sum;
      t.sync();
      if (lane == 0 && run < end)
        sums_of(t)[run] = sampling::sum_of_lanes(m.lanes + t.index());
      t.sync();
    }
  }
};

/// The ranks of the best, after the passes of their border.
struct collect_kernel : draw_pass {
  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const ops::draw_row& how = rows[t.block_y()];
    if (!is_wanted(how, stage::scored) || how.best == 0)
      return; // all threads
    const memory m = memory_of(t);
    if (!summary_of(t, m, stage::scored).is_good)
      return;
    const word last = found(t, m, border::best);
    const row_view x = view_of(t, stage::scored);
    draw_note& note = note_of(t);
    const auto [begin, end] = ids_of(t);
    for (std::int64_t id = begin + t.index(); id < end; id += t.count())
      if (const word rank = rank_of(x[id], id); rank <= last)
        note.best[t.add(&note.best_count, 1)] = rank;
  }
};

/// Ends the stage of raw logits: the best log-probabilities, and what it takes
/// for others. A block per row.
struct score_kernel : draw_pass {
  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const ops::draw_row& how = rows[t.block_y()];
    if (!is_wanted(how, stage::scored))
      return; // all threads
    const memory m = memory_of(t);
    const row_summary row = summary_of(t, m, stage::scored);
    double log_sum = 0;
    if (row.is_good) {
      log_sum = sampling::fixed_log(total(t, m));
      if (how.best > 0)
        write_best(t, row.max, log_sum);
    }
    if (t.index() != 0)
      return;
    draw_note& note = note_of(t);
    note.is_good = row.is_good ? 1 : 0;
    note.max = row.max;
    note.log_sum = log_sum;
  }

private:
  /// In order.
  template <class Threads>
  TROUPE_KERNEL void write_best(Threads& t, float max, double log_sum) const {
    const row_view x = view_of(t, stage::scored);
    const draw_note& note = note_of(t);
    const int count = static_cast<int>(note.best_count);
    const int first = static_cast<int>(t.block_y()) * ops::draw_row::best_max;
    for (int i = static_cast<int>(t.index()); i < count;
         i += static_cast<int>(t.count())) {
      int place = 0;
      for (int j = 0; j < count; ++j)
        place += note.best[j] < note.best[i] ? 1 : 0;
      const std::int32_t id = id_of(note.best[i]);
      best_ids[first + place] = id;
      best_logprobs[first + place] = sampling::logprob_of(x[id], max, log_sum);
    }
  }
};

/// Changes the logits of a row that is drawn; each id is changed once. A block
/// per row.
struct change_logits_kernel : draw_pass {
  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const ops::draw_row& how = rows[t.block_y()];
    if (!is_wanted(how, stage::drawn))
      return;
    const ops::logit_change* change = changes + how.first_change;
    const row_view row = view_of(t, stage::scored);
    for (auto i = static_cast<std::int32_t>(t.index()); i < how.changes;
         i += static_cast<std::int32_t>(t.count())) {
      if (change[i].id < 0)
        continue; // another one has it
      float& logit = row.at[change[i].id];
      raw[how.first_change + i] = logit;
      logit = changed(logit, change[i], how);
    }
  }

private:
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
};

/// The end of a draw: the token and its log-probability; the logits are again
/// what they were. A block per row.
struct pick_kernel : draw_pass {
  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const ops::draw_row& how = rows[t.block_y()];
    const memory m = memory_of(t);
    const bool is_drawn = is_wanted(how, stage::drawn);
    std::int32_t id = how.scored;
    if (is_drawn) {
      id = drawn(t, m, how);
      restore(t, how);
    }
    if (t.index() != 0)
      return;
    const draw_note& note = note_of(t);
    const bool is_scored = is_wanted(how, stage::scored);
    const bool is_good =
        how.by_host == 0 && (!is_scored || note.is_good != 0) && id >= 0;
    ids[t.block_y()] = is_good ? id : -1;
    logprobs[t.block_y()] =
        is_good && is_scored
            ? sampling::logprob_of(view_of(t, stage::scored).at[id], note.max,
                                   note.log_sum)
            : 0.0f;
  }

private:
  /// -1 if the row holds what is no number, or if nothing may be drawn.
  template <class Threads>
  TROUPE_KERNEL std::int32_t drawn(Threads& t, const memory& m,
                                   const ops::draw_row& how) const {
    const row_summary row = summary_of(t, m, stage::drawn);
    if (!row.is_good)
      return -1;
    if (how.inverse == 0)
      return row.first;
    const word last = last_of(t, m);
    const row_view x = view_of(t, stage::drawn);
    const double all = total(t, m);
    return pick(
        t, m,
        [&](std::int64_t id) {
          return weight_of(how, x[id], id, row.max, last);
        },
        how.fraction * all);
  }

  template <class Threads>
  TROUPE_KERNEL void restore(Threads& t, const ops::draw_row& how) const {
    const ops::logit_change* change = changes + how.first_change;
    t.sync(); // all have read
    for (auto i = static_cast<std::int32_t>(t.index()); i < how.changes;
         i += static_cast<std::int32_t>(t.count()))
      if (change[i].id >= 0)
        view_of(t, stage::scored).at[change[i].id] = raw[how.first_change + i];
    t.sync();
  }

  /// The id at which the running sum passes `target`, after `total`; never one
  /// of weight 0.
  template <class Threads, class Weight>
  TROUPE_KERNEL std::int32_t pick(Threads& t, const memory& m, Weight weight,
                                  double target) const {
    using sampling::run_size;
    const std::int64_t run = run_of(t, m, target);
    double before = 0;
    if (run > 0)
      before = m.sums()[run - 1];
    else if (run < 0) // rounding: none passes it
      before = m.sums()[runs_of(cols) - 1];
    const std::int64_t first = (run < 0 ? last_run(t) : run) * run_size;
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

  /// The first run after which the sum is above `target`; -1: none.
  template <class Threads>
  TROUPE_KERNEL std::int64_t run_of(Threads& t, const memory& m,
                                    double target) const {
    const std::int64_t runs = runs_of(cols);
    std::int64_t run = t.index();
    while (run < runs && !(m.sums()[run] > target))
      run += t.count();
    run = lowest(t, m, run < runs ? run : cols_max);
    return run < runs ? run : -1;
  }

  /// The last that has a weight; 0: none.
  template <class Threads>
  TROUPE_KERNEL std::int64_t last_run(Threads& t) const {
    std::int64_t run = runs_of(cols) - 1;
    while (run > 0 && sums_of(t)[run] == 0)
      --run;
    return run;
  }
};

static_assert(draw_pass::threads >= sampling::run_size);
static_assert(draw_pass::threads >= draw_note::parts_max);

} // namespace troupe::cuda
