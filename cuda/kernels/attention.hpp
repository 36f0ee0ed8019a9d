#pragma once

#include "cuda/kernels/attention_shape.hpp"

namespace troupe::cuda {

/// What attention is asked for (ops::attention_params), and how it is divided
/// over blocks.
struct attention_work {
  const float* qkv; ///< turned and stored, unless `keeps_own`
  std::int32_t heads;
  float scale;
  float soft_cap;      ///< 0 = none
  std::int32_t window; ///< 0 = none
  std::int32_t ahead;
  rows_view rows;
  /// Of each block_y: (first row, number of rows), all of one sequence.
  const std::int32_t* tiles;
  std::int32_t rows_of_tile = 1; ///< at most
  std::int32_t blocks_of_tile;   ///< for each kv head
  float* out;                    ///< [rows][heads * head_dim]
  bf16* rounded = nullptr;       ///< the same as bf16, unless it is null
  /// Null: block_x is a kv head and a block of the tile, which does all. Else
  /// block_x is these and a part of `parts`: blocks write
  /// [tiles][rows_of_tile][heads][parts] partials, and the last of those that
  /// have the same queries to end adds them up. By the rest of block_x and
  /// tiles they count who has ended.
  float* partials = nullptr;
  std::uint32_t* part_counts = nullptr;
  std::int32_t parts = 1;
  /// Each row is the only one of its sequence: the blocks that see its position
  /// turn and store it first, all alike.
  bool keeps_own = false;
  head_turns turn = {}; ///< nothing, unless `keeps_own`
};

/// Attention of rows and heads over the paged store. A query is a row and a
/// head; those of a tile and a kv head, row after row, are taken 16 at a time
/// as the rows of matrix products. A query's arithmetic depends on positions
/// alone, never on which queries are beside it or on how many warps share them:
///
/// - Spans of positions begin at their multiples. A score is the sum over the
///   head's numbers, 16 after 16. A query's are scaled by a power of two and
///   rounded to f16, as keys are. Scores are in units of which two count 4.
/// - Of a part of `part_positions`, span after span: the sums so far are made
///   relative to the greatest score, then a span's weighted values are added,
///   16 positions after 16. Weights are rounded to f16, also where they are
///   summed up.
/// - Parts, in order, are the whole. So a block may do all of them or one.
///
/// A span of which a query sees nothing changes nothing of it; in one that it
/// sees in part others count 0 (values are finite).
///
/// Keys and values come to shared memory by asynchronous copies, the keys of
/// the next span while this one's are weighted, its values while it is scored.
template <class Kept, int Dims, int Team>
struct attention_kernel {
  static constexpr bool collective = true;
  using shape = attention_shape<Kept, Dims, Team>;
  static constexpr int threads = attention_threads;
  static constexpr bool waits_itself = true;
  static constexpr int blocks_at_once = shape::blocks_at_once;
  static constexpr int span = shape::span;

  attention_work work;
  kv_view<Kept> kv;

  /// Positions, first and last.
  struct range {
    std::int32_t first, last;
  };

  /// A block's queries: of its tile and kv head, from `begin` on.
  struct queries {
    std::int32_t first_row; ///< of the tile
    std::int32_t kv_head;
    std::int32_t group; ///< heads of a kv head
    std::int32_t begin, end;

    TROUPE_KERNEL std::int32_t row(std::int32_t q) const {
      return first_row + q / group;
    }
    TROUPE_KERNEL std::int32_t head(std::int32_t q) const {
      return kv_head * group + q % group;
    }
  };

  /// Where a thread works. It holds numbers of two queries of its warp's 16:
  /// `lane / 4` and that + 8.
  struct place {
    int thread, lane, warp;
    int member; ///< of its team
    std::int32_t tile;
    std::int32_t kv_head;
    std::int32_t part;
    std::int32_t row[2], head[2];
    range seen[2];     ///< nothing, if there is no such query
    range seen_by_any; ///< of the block's queries, in its part
    range seen_by_all;
    const std::int32_t* table;
  };

  /// The queries of a lane, as the products want them.
  struct query_words {
    fragments::a of_step[shape::keeps_queries ? shape::head_steps : 1];
    float factors[2]; ///< of the scores
  };

  /// What a lane has of the sums over some positions.
  struct sums {
    fragments::sums values[shape::rounds][shape::wide] = {};
    fragments::sums weights = {}; ///< of both queries twice
    float most[2] = {-INFINITY, -INFINITY};
  };

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    // No launch writes the lists of rows: they are looked up meanwhile, as a
    // copy before all launches of the step has left them in the memory.
    const auto at = place_of(t);
    const bool sees_some = at.seen_by_any.first <= at.seen_by_any.last;
    const std::int32_t first = at.seen_by_any.first / span * span;
    if (sees_some) {
      clear_padding(t, at);
      find_span(t, at, first);
    }
    t.wait_for_earlier();
    if (sees_some) {
      if constexpr (Team > 1)
        keep_own(t, at);
      t.sync();
      copy_keys(t, at, first);
      if constexpr (Team > 1)
        show_queries(t, at);
      query_words query;
      take_queries(t, at, query);
      run(t, at, query, first);
    }
    if (work.partials != nullptr && ends_last(t, at))
      merge_parts(t, at);
  }

  // -- places -----------------------------------------------------------------

  template <class Threads>
  TROUPE_KERNEL range seen_by(Threads& t, std::int32_t row) const {
    const std::int32_t position = t.look_up(work.rows.positions + row);
    const std::int32_t end = t.look_up(work.rows.last + row);
    const std::int32_t window = work.window;
    return {window > 0 && position >= window ? position - window + 1 : 0,
            work.ahead < end - position ? position + work.ahead : end};
  }

  template <class Threads>
  TROUPE_KERNEL queries queries_of(Threads& t) const {
    const std::int32_t x = static_cast<std::int32_t>(t.block_x()) / work.parts;
    const std::int32_t* tile = work.tiles + 2 * std::int64_t{t.block_y()};
    const std::int32_t rows = t.look_up(tile + 1);
    queries out;
    out.first_row = t.look_up(tile);
    out.kv_head = x / work.blocks_of_tile;
    out.group = work.heads / kv.kv_heads;
    out.begin = x % work.blocks_of_tile * shape::queries;
    const std::int32_t all = rows * out.group;
    out.end =
        out.begin + shape::queries < all ? out.begin + shape::queries : all;
    return out;
  }

  template <class Threads>
  TROUPE_KERNEL place place_of(Threads& t) const {
    place out;
    out.thread = static_cast<int>(t.index());
    out.lane = out.thread % shape::lanes;
    out.warp = out.thread / shape::lanes;
    out.member = out.warp % Team;
    const auto x = static_cast<std::int32_t>(t.block_x());
    out.tile = static_cast<std::int32_t>(t.block_y());
    out.part = x % work.parts;
    const auto own = queries_of(t);
    out.kv_head = own.kv_head;
    TROUPE_UNROLL
    for (int i = 0; i < 2; ++i) {
      const std::int32_t q =
          own.begin + out.warp / Team * queries_at_once + out.lane / 4 + 8 * i;
      const bool is_there = q < own.end;
      out.row[i] = is_there ? own.row(q) : -1;
      out.head[i] = own.head(q);
      out.seen[i] = is_there ? seen_by(t, out.row[i]) : range{1, 0};
    }
    out.seen_by_any = out.seen_by_all = {0, -1};
    if (own.begin >= own.end)
      return out;
    // Positions of rows ascend.
    const range first = seen_by(t, own.row(own.begin));
    const range last = seen_by(t, own.row(own.end - 1));
    out.seen_by_any = {first.first, last.last};
    out.seen_by_all = {last.first, first.last};
    const std::int32_t sequence =
        t.look_up(work.rows.sequences + own.first_row);
    out.table = work.rows.tables + t.look_up(work.rows.table_begins + sequence);
    if (work.partials != nullptr) {
      const std::int32_t from = out.part * part_positions;
      const std::int32_t to = from + part_positions - 1;
      auto& any = out.seen_by_any;
      any.first = any.first < from ? from : any.first;
      any.last = any.last > to ? to : any.last;
    }
    return out;
  }

  template <class T, class Threads>
  TROUPE_KERNEL static T* shared_at(Threads& t, int bytes) {
    return reinterpret_cast<T*>(reinterpret_cast<char*>(t.shared()) + bytes);
  }

  // -- queries ----------------------------------------------------------------

  /// Numbers of q, k and v of a row before those of the next.
  TROUPE_KERNEL std::int64_t row_floats() const {
    return (std::int64_t{work.heads} + 2 * kv.kv_heads) * kv.head_dim;
  }

  /// A row that is alone in its sequence: what has to be there to be seen.
  template <class Threads>
  TROUPE_KERNEL void keep_own(Threads& t, const place& at) const {
    const auto own = queries_of(t);
    const std::int32_t row = own.first_row;
    if (!work.keeps_own || at.warp != 0 ||
        at.seen_by_any.last != work.rows.positions[row])
      return;
    const float* k = work.qkv + row * row_floats() +
                     (std::int64_t{work.heads} + own.kv_head) * kv.head_dim;
    keep_head(t, work.turn, k, k + std::int64_t{kv.kv_heads} * kv.head_dim, row,
              own.kv_head, work.rows, kv, [](std::int32_t, float) {});
  }

  /// A team's queries as floats, where later the whole's sums are; what there
  /// is not is 0.
  template <class Threads>
  TROUPE_KERNEL static float* shown_query(Threads& t, int query) {
    static_assert(Team == 1 || queries_at_once * Dims * int{sizeof(float)} <=
                                   shape::weights - shape::whole);
    return shared_at<float>(t, shape::whole) + query * Dims;
  }

  /// A warp takes a query at a time.
  template <class Threads>
  TROUPE_KERNEL void show_queries(Threads& t, const place& at) const {
    const auto own = queries_of(t);
    const std::int32_t count = own.end - own.begin;
    const std::int32_t d = kv.head_dim;
    for (std::int32_t i = at.warp; i < queries_at_once; i += attention_warps) {
      float* to = shown_query(t, i);
      const std::int32_t there = i < count ? d : 0;
      for (std::int32_t j = there + at.lane; j < Dims; j += shape::lanes)
        to[j] = 0;
      if (i >= count)
        continue;
      const std::int32_t row = own.row(own.begin + i);
      turn_head(t, work.turn, work.turn.q_norm, work.rows.positions[row],
                work.qkv + row * row_floats() +
                    std::int64_t{own.head(own.begin + i)} * d,
                d, [&](std::int32_t j, float x) { to[j] = x; });
    }
    t.sync();
  }

  /// 8 numbers of a query; 0 where there are none.
  template <class Threads>
  TROUPE_KERNEL void read_query(Threads& t, const place& at, int i, int from,
                                float* to) const {
    if constexpr (Team > 1)
      return read_floats<8>(shown_query(t, at.lane / 4 + 8 * i) + from, to);
    const std::int32_t d = kv.head_dim;
    if (at.row[i] < 0) {
      TROUPE_UNROLL
      for (int j = 0; j < 8; ++j)
        to[j] = 0;
      return;
    }
    const float* q =
        work.qkv + at.row[i] * row_floats() + std::int64_t{at.head[i]} * d;
    if (d % 8 == 0 && from < d) { // then it begins at a multiple of 8
      read_floats<8>(q + from, to);
      return;
    }
    TROUPE_UNROLL
    for (int j = 0; j < 8; ++j)
      to[j] = from + j < d ? q[from + j] : 0.0f;
  }

  /// A power of two that brings the greatest of a query's numbers to 1 to 2;
  /// its exponent is that of its inverse.
  template <class Threads>
  TROUPE_KERNEL std::uint32_t exponent_of(Threads& t, const place& at,
                                          int i) const {
    float greatest = 0;
    TROUPE_UNROLL
    for (int c = 0; c < Dims / 32; ++c) {
      float some[8];
      read_query(t, at, i, 32 * c + at.lane % 4 * 8, some);
      TROUPE_UNROLL
      for (int j = 0; j < 8; ++j) {
        const float size = some[j] < 0 ? -some[j] : some[j];
        greatest = fmaxf(size, greatest);
      }
    }
    const std::uint32_t exponent = bits_of(t.quad_max(greatest)) >> 23;
    constexpr std::uint32_t one = 127, most = 253, none = 255;
    if (exponent == none)
      return one; // infinite: so are the scores
    return exponent < 1 ? 1 : exponent > most ? most : exponent;
  }

  /// Of 32 numbers of the head a lane has 8, two words for each of two steps.
  template <class Threads>
  TROUPE_KERNEL void take_queries(Threads& t, const place& at,
                                  query_words& out) const {
    float scales[2];
    TROUPE_UNROLL
    for (int i = 0; i < 2; ++i) {
      const auto exponent = exponent_of(t, at, i);
      scales[i] = float_of_bits((254u - exponent) << 23);
      out.factors[i] = work.scale * log2_e * float_of_bits(exponent << 23);
    }
    TROUPE_UNROLL
    for (int c = 0; c < Dims / 32; ++c) {
      if (Team > 1 && c % Team != at.member)
        continue; // another warp's
      fragments::a words[2];
      TROUPE_UNROLL
      for (int i = 0; i < 2; ++i) {
        float some[8];
        read_query(t, at, i, 32 * c + at.lane % 4 * 8, some);
        TROUPE_UNROLL
        for (int w = 0; w < 4; ++w)
          words[w / 2][w % 2 * 2 + i] = t.round_pair(
              some[2 * w] * scales[i], some[2 * w + 1] * scales[i]);
      }
      TROUPE_UNROLL
      for (int step = 0; step < 2; ++step)
        keep_query(t, at, 2 * c + step, words[step], out);
    }
  }

  template <class Threads>
  TROUPE_KERNEL static void keep_query(Threads& t, const place& at, int step,
                                       const fragments::a& words,
                                       query_words& out) {
    TROUPE_UNROLL
    for (int w = 0; w < 4; ++w)
      if constexpr (shape::keeps_queries)
        out.of_step[step][w] = words[w];
      else
        query_at(t, at, step)->at[w] = words[w];
  }

  template <class Threads>
  TROUPE_KERNEL static void query_at_step(Threads& t, const place& at, int step,
                                          const query_words& query,
                                          fragments::a& out) {
    pack<std::uint32_t, 4> words;
    if constexpr (!shape::keeps_queries)
      words = *query_at(t, at, step);
    TROUPE_UNROLL
    for (int w = 0; w < 4; ++w)
      out[w] = shape::keeps_queries ? query.of_step[step][w] : words.at[w];
  }

  template <class Threads>
  TROUPE_KERNEL static pack<std::uint32_t, 4>*
  query_at(Threads& t, const place& at, int step) {
    return shared_at<pack<std::uint32_t, 4>>(t, shape::query_words) +
           step * shape::lanes + at.lane;
  }

  // -- keys and values --------------------------------------------------------

  /// Numbers behind the head's are 0 and stay so.
  template <class Threads>
  TROUPE_KERNEL void clear_padding(Threads& t, const place& at) const {
    if (kv.head_dim == Dims)
      return;
    constexpr int words = (shape::query_words - shape::keys) / 4;
    auto* all = shared_at<std::uint32_t>(t, shape::keys);
    for (int i = at.thread; i < words; i += attention_threads)
      all[i] = 0;
  }

  /// Where the keys of a span's positions lie, in rows from the beginning of
  /// the layer's store on (there are fewer than 2^31); below 0: nobody sees
  /// it. A position is looked up once.
  template <class Threads>
  TROUPE_KERNEL void find_span(Threads& t, const place& at,
                               std::int32_t begin) const {
    const std::int32_t p = begin + at.thread;
    if (at.thread >= span)
      return;
    std::int32_t found = -1;
    if (p >= at.seen_by_any.first && p <= at.seen_by_any.last)
      found = (t.look_up(at.table + p / kv.block_tokens) * kv.kv_heads +
               at.kv_head) *
                  2 * kv.block_tokens +
              p % kv.block_tokens;
    places_of(t, begin)[at.thread] = found;
  }

  template <class Threads>
  TROUPE_KERNEL static std::int32_t* places_of(Threads& t, std::int32_t begin) {
    return shared_at<std::int32_t>(t, shape::places) + begin / span % 2 * span;
  }

  /// Begins to copy a span's rows: keys, or those that are so many `behind`
  /// them. What nobody sees becomes 0.
  template <int Row, class Threads>
  TROUPE_KERNEL void copy_span(Threads& t, const place& at, std::int32_t begin,
                               std::int32_t behind, int to) const {
    if (kv.head_dim % piece == 0)
      copy_pieces<Row>(t, at, begin, behind, to);
    else
      copy_numbers<Row>(t, at, begin, behind, to);
    t.commit_copies();
  }

  /// Numbers of 16 bytes.
  static constexpr int piece = 16 / int{sizeof(Kept)};

  /// A thread has the same piece of some rows.
  template <int Row, class Threads>
  TROUPE_KERNEL void copy_pieces(Threads& t, const place& at,
                                 std::int32_t begin, std::int32_t behind,
                                 int to) const {
    constexpr int pieces = Dims / piece;
    constexpr int rows_at_once = attention_threads / pieces;
    static_assert(attention_threads % pieces == 0 && span % rows_at_once == 0);
    const int first = at.thread % pieces * piece;
    if (first >= kv.head_dim)
      return;
    const auto* places = places_of(t, begin);
    // One multiplication of 32 bits is an address.
    const auto* from = reinterpret_cast<const char*>(row_at(0, behind) + first);
    const auto row_bytes =
        static_cast<std::uint32_t>(kv.head_dim) * std::uint32_t{sizeof(Kept)};
    TROUPE_UNROLL
    for (int i = 0; i < span / rows_at_once; ++i) {
      const int row = at.thread / pieces + i * rows_at_once;
      const std::int32_t place = places[row];
      // Of a row that is not there, any that is.
      const auto some = static_cast<std::uint32_t>(place < 0 ? 0 : place);
      t.copy_async(shared_at<Kept>(t, to + row * Row) + first,
                   from + std::uint64_t{some} * row_bytes, place >= 0);
    }
  }

  /// Heads that are no multiple of 16 bytes; few models have such: it should be
  /// short.
  template <int Row, class Threads>
  TROUPE_KERNEL void copy_numbers(Threads& t, const place& at,
                                  std::int32_t begin, std::int32_t behind,
                                  int to) const {
    const auto* places = places_of(t, begin);
    TROUPE_NO_UNROLL
    for (int i = at.thread; i < span * kv.head_dim; i += attention_threads) {
      const int row = i / kv.head_dim, first = i % kv.head_dim;
      shared_at<Kept>(t, to + row * Row)[first] =
          places[row] < 0 ? Kept{0} : row_at(places[row], behind)[first];
    }
  }

  TROUPE_KERNEL const Kept* row_at(std::int32_t place,
                                   std::int32_t behind) const {
    return kv.keys(0, 0) + (std::int64_t{place} + behind) * kv.head_dim;
  }

  template <class Threads>
  TROUPE_KERNEL void copy_keys(Threads& t, const place& at,
                               std::int32_t begin) const {
    copy_span<shape::key_row>(t, at, begin, 0, shape::keys);
  }
  template <class Threads>
  TROUPE_KERNEL void copy_values(Threads& t, const place& at,
                                 std::int32_t begin) const {
    copy_span<shape::value_row>(t, at, begin, kv.block_tokens, shape::values);
  }

  // -- spans ------------------------------------------------------------------

  /// From the span on whose keys are under way.
  template <class Threads>
  TROUPE_KERNEL void run(Threads& t, const place& at, const query_words& query,
                         std::int32_t first) const {
    const std::int32_t last = at.seen_by_any.last;
    sums whole, part; // of the whole, values are in shared memory
    for (std::int32_t begin = first; begin <= last; begin += span) {
      const bool is_seen_whole = begin >= at.seen_by_all.first &&
                                 begin + span - 1 <= at.seen_by_all.last;
      if (is_seen_whole)
        add_span<true>(t, at, query, begin, part);
      else
        add_span<false>(t, at, query, begin, part);
      const bool is_last = begin + span > last;
      if (!is_last && (begin + span) % part_positions != 0)
        continue;
      if (work.partials != nullptr)
        return write_partial(t, at, part);
      if (begin / part_positions > first / part_positions)
        add_to_whole(t, at, whole, part);
      if (is_last)
        return write_out(at, part);
      keep_whole(t, at, part, whole);
      part = {};
    }
  }

  /// `Whole`: all queries of the block see all of it.
  template <bool Whole, class Threads>
  TROUPE_KERNEL void add_span(Threads& t, const place& at,
                              const query_words& query, std::int32_t begin,
                              sums& to) const {
    const bool is_more = begin + span <= at.seen_by_any.last;
    t.template wait_copies<0>(); // its keys
    t.sync();
    copy_values(t, at, begin);
    if (is_more)
      find_span(t, at, begin + span);
    float scores[shape::key_tiles][4] = {};
    score<Whole>(t, at, query, begin, scores);
    float factors[2] = {query.factors[0], query.factors[1]};
    if (work.soft_cap > 0)
      cap_scores(scores, factors);
    float most[2];
    TROUPE_UNROLL
    for (int i = 0; i < 2; ++i)
      most[i] = greatest<Whole>(t, at, begin, i, scores) * factors[i];
    if constexpr (Team > 1)
      show_most(t, at, most);
    t.sync(); // keys are read
    if (is_more)
      copy_keys(t, at, begin + span);
    else
      t.commit_copies();
    if constexpr (Team > 1)
      see_most(t, at, most);
    float kept[2];
    TROUPE_UNROLL
    for (int i = 0; i < 2; ++i) {
      const float now = fmaxf(to.most[i], most[i]);
      kept[i] =
          sees<Whole>(at, i, begin) ? about_power(to.most[i] - now) : 1.0f;
      to.most[i] = now;
    }
    std::uint32_t words[shape::key_tiles][2];
    weigh<Whole>(t, at, begin, factors, to.most, scores, words);
    fragments::a weights[shape::span_steps];
    if constexpr (Team > 1)
      show_weights(t, at, words);
    t.template wait_copies<1>(); // its values
    t.sync();
    take_weights(t, at, words, weights);
    add_values<Whole>(t, at, begin, kept, weights, to);
  }

  /// Whether anybody may see some of `n` positions of a span from `from` on.
  template <bool Whole>
  TROUPE_KERNEL static bool is_needed(const place& at, std::int32_t begin,
                                      int from, int n) {
    return Whole || (begin + from <= at.seen_by_any.last &&
                     begin + from + n > at.seen_by_any.first);
  }

  /// Whether a query sees some of a span.
  template <bool Whole>
  TROUPE_KERNEL static bool sees(const place& at, int i, std::int32_t begin) {
    return Whole ||
           (at.seen[i].first < begin + span && at.seen[i].last >= begin &&
            at.seen[i].first <= at.seen[i].last);
  }

  /// The position of a lane's score.
  TROUPE_KERNEL static std::int32_t
  position_of(const place& at, std::int32_t begin, int tile, int i) {
    return begin + at.member * shape::keys_of_warp + 8 * tile +
           at.lane % 4 * 2 + i % 2;
  }

  template <bool Whole>
  TROUPE_KERNEL static bool is_seen(const place& at, int i, std::int32_t p) {
    return Whole || (p >= at.seen[i].first && p <= at.seen[i].last);
  }

  /// Sums over the head's numbers.
  template <bool Whole, class Threads>
  TROUPE_KERNEL void score(Threads& t, const place& at,
                           const query_words& query, std::int32_t begin,
                           float (&scores)[shape::key_tiles][4]) const {
    const int first = at.member * shape::keys_of_warp;
    const int row = shape::keys + (first + at.lane / 4) * shape::key_row;
    TROUPE_UNROLL
    for (int step = 0; step < shape::head_steps; step += 2) {
      fragments::a queries[2];
      TROUPE_UNROLL
      for (int s = 0; s < 2; ++s)
        query_at_step(t, at, step + s, query, queries[s]);
      TROUPE_UNROLL
      for (int tile = 0; tile < shape::key_tiles; ++tile) {
        if (!is_needed<Whole>(at, begin, first + 8 * tile, 8))
          continue;
        std::uint32_t words[4];
        read_words(t,
                   shared_at<Kept>(t, row + 8 * tile * shape::key_row) +
                       16 * step + at.lane % 4 * 8,
                   words);
        TROUPE_UNROLL
        for (int s = 0; s < 2; ++s)
          t.template multiply_add<f16>(scores[tile], queries[s],
                                       {words[2 * s], words[2 * s + 1]});
      }
    }
  }

  /// cap * tanh(x / cap), to 2^-21 of the cap, of scores times their factors,
  /// which are 1 then: `tanhf` would be a large part of this kernel's code,
  /// which most models do not run.
  TROUPE_KERNEL void cap_scores(float (&scores)[shape::key_tiles][4],
                                float* factors) const {
    const float cap = work.soft_cap * log2_e;
    const float twice = 2.0f / work.soft_cap;
    TROUPE_UNROLL
    for (int tile = 0; tile < shape::key_tiles; ++tile)
      TROUPE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const float e = about_power(scores[tile][i] * factors[i / 2] * twice);
      scores[tile][i] = cap - 2.0f * cap * about_inverse(e + 1.0f);
    }
    factors[0] = factors[1] = 1;
  }

  /// Of a query's scores that it sees, those of the warp.
  template <bool Whole, class Threads>
  TROUPE_KERNEL static float
  greatest(Threads& t, const place& at, std::int32_t begin, int query,
           const float (&scores)[shape::key_tiles][4]) {
    float out = -INFINITY;
    TROUPE_UNROLL
    for (int tile = 0; tile < shape::key_tiles; ++tile)
      TROUPE_UNROLL
    for (int i = 2 * query; i < 2 * query + 2; ++i)
      if (is_seen<Whole>(at, query, position_of(at, begin, tile, i)))
        out = fmaxf(scores[tile][i], out);
    return t.quad_max(out);
  }

  template <class Threads>
  TROUPE_KERNEL static void show_most(Threads& t, const place& at,
                                      const float* most) {
    auto* all = shared_at<float>(t, shape::most);
    if (at.lane % 4 == 0)
      TROUPE_UNROLL
    for (int i = 0; i < 2; ++i)
      all[at.member * queries_at_once + at.lane / 4 + 8 * i] = most[i];
  }
  template <class Threads>
  TROUPE_KERNEL static void see_most(Threads& t, const place& at, float* most) {
    const auto* all = shared_at<float>(t, shape::most);
    TROUPE_UNROLL
    for (int m = 0; m < Team; ++m)
      TROUPE_UNROLL
    for (int i = 0; i < 2; ++i) {
      const float x = all[m * queries_at_once + at.lane / 4 + 8 * i];
      most[i] = fmaxf(x, most[i]);
    }
  }

  /// Scores become weights, two to a word.
  template <bool Whole, class Threads>
  TROUPE_KERNEL static void
  weigh(Threads& t, const place& at, std::int32_t begin, const float* factors,
        const float* most, const float (&scores)[shape::key_tiles][4],
        std::uint32_t (&words)[shape::key_tiles][2]) {
    TROUPE_UNROLL
    for (int tile = 0; tile < shape::key_tiles; ++tile)
      TROUPE_UNROLL
    for (int q = 0; q < 2; ++q) {
      float of[2];
      TROUPE_UNROLL
      for (int i = 0; i < 2; ++i)
        of[i] = is_seen<Whole>(at, q, position_of(at, begin, tile, i))
                    ? about_power(
                          fmaf(scores[tile][2 * q + i], factors[q], -most[q]))
                    : 0.0f;
      words[tile][q] = t.round_pair(of[0], of[1]);
    }
  }

  /// [query][position], two positions to a word.
  template <class Threads>
  TROUPE_KERNEL static std::uint32_t* weights_of(Threads& t, int query) {
    return shared_at<std::uint32_t>(t,
                                    shape::weights + query * shape::weight_row);
  }

  template <class Threads>
  TROUPE_KERNEL static void
  show_weights(Threads& t, const place& at,
               const std::uint32_t (&words)[shape::key_tiles][2]) {
    const int first = at.member * shape::keys_of_warp / 2 + at.lane % 4;
    TROUPE_UNROLL
    for (int tile = 0; tile < shape::key_tiles; ++tile)
      TROUPE_UNROLL
    for (int q = 0; q < 2; ++q)
      weights_of(t, at.lane / 4 + 8 * q)[first + 4 * tile] = words[tile][q];
  }

  /// As the products over positions want them. Where a warp has all keys, they
  /// are there already.
  template <class Threads>
  TROUPE_KERNEL static void
  take_weights(Threads& t, const place& at,
               const std::uint32_t (&words)[shape::key_tiles][2],
               fragments::a (&out)[shape::span_steps]) {
    TROUPE_UNROLL
    for (int step = 0; step < shape::span_steps; ++step)
      TROUPE_UNROLL
    for (int w = 0; w < 4; ++w) {
      if constexpr (Team == 1)
        out[step][w] = words[2 * step + w / 2][w % 2];
      else
        out[step][w] = weights_of(
            t, at.lane / 4 + 8 * (w % 2))[8 * step + w / 2 * 4 + at.lane % 4];
    }
  }

  template <bool Whole, class Threads>
  TROUPE_KERNEL void
  add_values(Threads& t, const place& at, std::int32_t begin, const float* kept,
             const fragments::a (&weights)[shape::span_steps], sums& to) const {
    constexpr std::uint32_t ones = 0x3c003c00u;
    const bool is_seen[2] = {sees<Whole>(at, 0, begin),
                             sees<Whole>(at, 1, begin)};
    auto begin_sum = [&](const fragments::sums& from, fragments::sums& sum) {
      TROUPE_UNROLL
      for (int i = 0; i < 4; ++i)
        sum[i] = from[i] * kept[i / 2];
    };
    auto end_sum = [&](const fragments::sums& sum, fragments::sums& out) {
      TROUPE_UNROLL
      for (int i = 0; i < 4; ++i)
        if (is_seen[i / 2])
          out[i] = sum[i];
    };
    fragments::sums of_weights;
    begin_sum(to.weights, of_weights);
    TROUPE_UNROLL
    for (int step = 0; step < shape::span_steps; ++step)
      if (is_needed<Whole>(at, begin, 16 * step, 16))
        t.template multiply_add<f16>(of_weights, weights[step], {ones, ones});
    end_sum(of_weights, to.weights);
    TROUPE_UNROLL
    for (int round = 0; round < shape::rounds; ++round) {
      fragments::sums of_values[shape::wide];
      TROUPE_UNROLL
      for (int i = 0; i < shape::wide; ++i)
        begin_sum(to.values[round][i], of_values[i]);
      TROUPE_UNROLL
      for (int step = 0; step < shape::span_steps; ++step) {
        if (!is_needed<Whole>(at, begin, 16 * step, 16))
          continue;
        std::uint32_t pairs[2][shape::wide];
        TROUPE_UNROLL
        for (int half = 0; half < 2; ++half)
          read_values(t, at, 16 * step + 8 * half, round, pairs[half]);
        TROUPE_UNROLL
        for (int i = 0; i < shape::wide; ++i)
          t.template multiply_add<f16>(of_values[i], weights[step],
                                       {pairs[0][i], pairs[1][i]});
      }
      TROUPE_UNROLL
      for (int i = 0; i < shape::wide; ++i)
        end_sum(of_values[i], to.values[round][i]);
    }
  }

  /// Of two of 8 positions, as many neighbours as a lane reads at once.
  template <class Threads>
  TROUPE_KERNEL static void read_values(Threads& t, const place& at, int from,
                                        int round, std::uint32_t* to) {
    const int row = shape::values + (from + at.lane % 4 * 2) * shape::value_row;
    const int first = at.member * shape::dims_of_warp +
                      (8 * round + at.lane / 4) * shape::wide;
    read_pairs<shape::wide>(
        t, shared_at<const Kept>(t, row) + first,
        shared_at<const Kept>(t, row + shape::value_row) + first, to);
  }

  // -- parts ------------------------------------------------------------------

  /// In place of the part comes its sum with all before it.
  template <class Threads>
  TROUPE_KERNEL static void add_to_whole(Threads& t, const place& at,
                                         const sums& whole, sums& part) {
    attention_shares shares[2];
    TROUPE_UNROLL
    for (int i = 0; i < 2; ++i) {
      shares[i] = shares_of(whole.most[i], whole.weights[2 * i], part.most[i],
                            part.weights[2 * i]);
      part.most[i] = shares[i].most;
    }
    auto add = [&](const float* from, fragments::sums& to) {
      TROUPE_UNROLL
      for (int i = 0; i < 4; ++i)
        to[i] = from[i] * shares[i / 2].first + to[i] * shares[i / 2].second;
    };
    add(whole.weights, part.weights);
    TROUPE_UNROLL
    for (int round = 0; round < shape::rounds; ++round)
      TROUPE_UNROLL
    for (int i = 0; i < shape::wide; ++i) {
      const auto from = *whole_at(t, at, round, i);
      add(from.at, part.values[round][i]);
    }
  }

  template <class Threads>
  TROUPE_KERNEL static void keep_whole(Threads& t, const place& at,
                                       const sums& from, sums& whole) {
    TROUPE_UNROLL
    for (int i = 0; i < 4; ++i)
      whole.weights[i] = from.weights[i];
    TROUPE_UNROLL
    for (int i = 0; i < 2; ++i)
      whole.most[i] = from.most[i];
    TROUPE_UNROLL
    for (int round = 0; round < shape::rounds; ++round)
      TROUPE_UNROLL
    for (int i = 0; i < shape::wide; ++i) {
      pack<float, 4> some;
      TROUPE_UNROLL
      for (int j = 0; j < 4; ++j)
        some.at[j] = from.values[round][i][j];
      *whole_at(t, at, round, i) = some;
    }
  }

  /// Each thread's own.
  template <class Threads>
  TROUPE_KERNEL static pack<float, 4>* whole_at(Threads& t, const place& at,
                                                int round, int i) {
    return shared_at<pack<float, 4>>(t, shape::whole) +
           (round * shape::wide + i) * attention_threads + at.thread;
  }

  // -- results ----------------------------------------------------------------

  TROUPE_KERNEL void write_out(const place& at, const sums& from) const {
    TROUPE_UNROLL
    for (int i = 0; i < 2; ++i)
      if (at.row[i] >= 0) {
        const auto to = result_at(at.row[i], at.head[i]);
        write_values(at, from, i, 1.0f / from.weights[2 * i], work.out + to,
                     work.rounded != nullptr ? work.rounded + to : nullptr);
      }
  }

  /// Where a query's result is in `work.out`.
  TROUPE_KERNEL std::int64_t result_at(std::int32_t row,
                                       std::int32_t head) const {
    return (row * std::int64_t{work.heads} + head) * kv.head_dim;
  }

  /// Of queries of which one at least sees some of the part.
  template <class Threads>
  TROUPE_KERNEL void write_partial(Threads& t, const place& at,
                                   const sums& from) const {
    const auto own = queries_of(t);
    TROUPE_UNROLL
    for (int i = 0; i < 2; ++i) {
      if (at.row[i] < 0)
        continue;
      float* to = partial_of(at, own, at.row[i], at.head[i], at.part);
      if (at.member == 0 && at.lane % 4 == 0) {
        to[0] = from.most[i];
        to[1] = from.weights[2 * i];
      }
      write_values(at, from, i, 1.0f, to + 4, nullptr);
    }
  }

  TROUPE_KERNEL float* partial_of(const place& at, const queries& of,
                                  std::int32_t row, std::int32_t head,
                                  std::int32_t part) const {
    const std::int64_t of_all =
        std::int64_t{at.tile} * work.rows_of_tile + row - of.first_row;
    return work.partials + ((of_all * work.heads + head) * work.parts + part) *
                               partial_floats(kv.head_dim);
  }

  /// Whether the block is the last of those that have the parts of its queries;
  /// then it sees what all have written.
  template <class Threads>
  TROUPE_KERNEL bool ends_last(Threads& t, const place& at) const {
    auto* is_last = shared_at<std::uint32_t>(t, shape::most);
    t.sync(); // this one has
    if (at.thread == 0) {
      const auto parts = static_cast<std::uint32_t>(work.parts);
      const auto of_tile = static_cast<std::uint32_t>(kv.kv_heads) *
                           static_cast<std::uint32_t>(work.blocks_of_tile);
      *is_last = t.arrive(work.part_counts + t.block_y() * of_tile +
                              t.block_x() / parts,
                          parts);
    }
    t.sync();
    return *is_last != 0;
  }

  /// A thread has 4 numbers of a query at a time. Parts of which the row sees
  /// nothing were not written.
  template <class Threads>
  TROUPE_KERNEL void merge_parts(Threads& t, const place& at) const {
    const auto own = queries_of(t);
    const std::int32_t some = (kv.head_dim + 3) / 4;
    for (std::int32_t i = at.thread; i < (own.end - own.begin) * some;
         i += attention_threads) {
      const std::int32_t query = own.begin + i / some;
      const std::int32_t row = own.row(query), head = own.head(query);
      const range seen = seen_by(t, row);
      const std::int32_t first = i % some * 4;
      const auto sum =
          merged(partial_of(at, own, row, head, 0), seen.first / part_positions,
                 seen.last / part_positions, first);
      const auto to = result_at(row, head) + first;
      TROUPE_UNROLL
      for (int n = 0; n < 4; ++n)
        if (first + n < kv.head_dim) {
          work.out[to + n] = sum.at[n];
          if (work.rounded != nullptr)
            work.rounded[to + n] = to_bf16(sum.at[n]);
        }
    }
  }

  /// Numbers `first` to `first` + 3 of a query's parts, in order. Several parts
  /// are read before they are added.
  TROUPE_KERNEL pack<float, 4> merged(const float* parts, std::int32_t part,
                                      std::int32_t last,
                                      std::int32_t first) const {
    constexpr int at_once = Team > 1 ? 4 : 8; // as registers allow
    float most = -INFINITY, weights = 0;
    pack<float, 4> sum{};
    for (; part <= last; part += at_once) {
      float of_part[at_once][2];
      pack<float, 4> values[at_once];
      TROUPE_UNROLL
      for (int p = 0; p < at_once; ++p)
        if (part + p <= last) {
          const float* from = parts + (part + p) * partial_floats(kv.head_dim);
          of_part[p][0] = from[0];
          of_part[p][1] = from[1];
          values[p] =
              *reinterpret_cast<const pack<float, 4>*>(from + 4 + first);
        }
      TROUPE_UNROLL
      for (int p = 0; p < at_once; ++p)
        if (part + p <= last) {
          const auto shares =
              shares_of(most, weights, of_part[p][0], of_part[p][1]);
          most = shares.most;
          weights = weights * shares.first + of_part[p][1] * shares.second;
          TROUPE_UNROLL
          for (int n = 0; n < 4; ++n)
            sum.at[n] =
                sum.at[n] * shares.first + values[p].at[n] * shares.second;
        }
    }
    TROUPE_UNROLL
    for (int n = 0; n < 4; ++n)
      sum.at[n] = sum.at[n] * (1.0f / weights) + 0.0f;
    return sum;
  }

  /// A lane has 2 * wide neighbours of each round. (0 is never -0: a span of
  /// zeros may make the one of the other.)
  TROUPE_KERNEL void write_values(const place& at, const sums& from, int query,
                                  float factor, float* to,
                                  bf16* rounded) const {
    TROUPE_UNROLL
    for (int round = 0; round < shape::rounds; ++round) {
      const int first = at.member * shape::dims_of_warp +
                        (8 * round + at.lane % 4 * 2) * shape::wide;
      auto number = [&](int n) {
        return from.values[round][n % shape::wide]
                          [2 * query + n / shape::wide] *
                   factor +
               0.0f;
      };
      if constexpr (shape::wide % 4 == 0) {
        if (kv.head_dim % 4 == 0) {
          TROUPE_UNROLL
          for (int n = 0; n < 2 * shape::wide; n += 4) {
            const pack<float, 4> some{
                {number(n), number(n + 1), number(n + 2), number(n + 3)}};
            if (first + n < kv.head_dim) {
              *reinterpret_cast<pack<float, 4>*>(to + first + n) = some;
              if (rounded != nullptr)
                put_rounded(some, rounded + first + n);
            }
          }
          continue;
        }
      }
      TROUPE_UNROLL
      for (int n = 0; n < 2 * shape::wide; ++n)
        if (first + n < kv.head_dim) {
          to[first + n] = number(n);
          if (rounded != nullptr)
            rounded[first + n] = to_bf16(number(n));
        }
    }
  }

  TROUPE_KERNEL static void put_rounded(const pack<float, 4>& from, bf16* to) {
    *reinterpret_cast<pack<std::uint32_t, 2>*>(to) = {
        {to_bf16_pair(from.at[0], from.at[1]),
         to_bf16_pair(from.at[2], from.at[3])}};
  }
};

} // namespace troupe::cuda
