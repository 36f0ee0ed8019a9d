#pragma once

#include "engine/ops/backend.hpp"
#include "engine/ops/tensor.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace troupe::ops {

/// What a GPU keeps weights as: rows of one type, f32, f16 or bf16. Parts that
/// are all of one such type stay as they are; everything else becomes bf16
/// (quantised formats, and e4m3 beside another type, lose up to 2^-9 of a
/// weight by that).
element_type dense_type(std::span<const matrix_view> parts);

/// Whether all parts are e4m3 or asked for as e4m3, which then counts before
/// that type.
bool kept_as_e4m3(std::span<const matrix_view> parts);

/// Scales of each row of a weight in e4m3 that is made of the parts: one,
/// unless a part's rows have more (matrix_view::row_scales).
std::int64_t row_scales_of(std::span<const matrix_view> parts);

/// Where the scales of a weight in e4m3 begin, floats, row after row: bytes
/// from its first number on.
std::int64_t e4m3_scales_at(std::int64_t rows, std::int64_t cols);

/// As what a GPU keeps a weight whose products a library can make.
enum class library_kind : std::uint8_t { bf16, f16, e4m3, block_e4m3 };

/// Of the stacked parts; nothing of those that are f32.
std::optional<library_kind> library_kind_of(std::span<const matrix_view> parts);

/// Bytes of the stacked parts as a GPU keeps them.
std::int64_t dense_bytes(std::span<const matrix_view> parts);

/// Bytes from one of a layer's experts to the next, of a matrix that is stacked
/// of such parts (cuda/device_mixture.hpp).
std::int64_t dense_expert_bytes(std::span<const matrix_view> parts);

/// Bytes of a GPU's store of keys and values.
std::int64_t dense_kv_bytes(const kv_shape& shape, kv_type type);

/// What drawing on a GPU needs (cuda/device_drawer.hpp), in bytes.
struct gpu_draw_layout {
  /// For so many rows of so many logits.
  gpu_draw_layout(std::int64_t row_count, std::int64_t cols);

  /// What its passes note of a row (cuda/kernels/draw.hpp).
  static constexpr std::size_t note_bytes = 8'472;
  static constexpr std::int64_t run = 256; ///< ids that are added up first

  std::size_t rows, changes, raw, masks, notes, run_sums, drawn, best;

  std::size_t bytes() const {
    return rows + changes + raw + masks + notes + run_sums + drawn + best;
  }
};

/// What a library's products with the weights of a model need
/// (cuda/device_products.hpp): rows in 16 bits, of each the factor by which it
/// was divided (f16), weights that are widened (e4m3), and sums that are not
/// the result yet (f16 and e4m3). The latter are made for some outputs at once.
class gpu_product_layout {
public:
  /// For a weight that has so many.
  static std::int64_t outputs_at_once(std::int64_t outputs);

  void add(library_kind kind, std::int64_t outputs, std::int64_t cols);

  std::size_t rounded_bytes(std::int64_t rows) const;
  std::size_t factor_bytes(std::int64_t rows) const;
  std::size_t widened_bytes() const;
  std::size_t sum_bytes(std::int64_t rows) const;
  /// Of all.
  std::size_t bytes(std::int64_t rows) const;

private:
  std::int64_t widest_ = 0; ///< columns
  bool has_factors_ = false;
  std::int64_t widened_ = 0; ///< numbers
  std::int64_t sums_ = 0;    ///< of a row
};

/// What a layer's mixture of experts needs on a GPU (cuda/device_mixture.hpp),
/// in bytes. A pair is a row with one of its experts; a chunk, the pairs that
/// one block multiplies with weights of their expert, which it reads once.
struct gpu_mixture_layout {
  static constexpr std::int64_t pairs_most = 16'384;            ///< at once
  static constexpr std::int64_t few_pairs = 8, many_pairs = 32; ///< of a chunk
  static constexpr std::int64_t chunk_bytes = 12;

  /// Rows at once, of so many: the others come after them.
  static std::int64_t rows_at_once(const mixture_params& how,
                                   std::int64_t rows);
  /// Pairs of a chunk that is full.
  static std::int64_t chunk_pairs(const mixture_params& how, std::int64_t rows);
  /// Chunks of so many rows at most, whatever they choose.
  static std::int64_t chunks_most(const mixture_params& how, std::int64_t rows,
                                  std::int64_t chunk_pairs);

  gpu_mixture_layout(const mixture_params& how, std::int64_t rows);

  std::size_t choices, shares, order, chunks, activated, given;

  std::size_t bytes() const {
    return choices + shares + order + chunks + activated + given;
  }
};

/// What a GPU's steps need beside the caller's buffers (ops::backend::prepare):
/// lists that are sent along with a step, turns of ropes, mixtures of experts,
/// and what a library's products and draws take.
struct gpu_step_layout {
  static constexpr std::size_t lists = 16; ///< of a step, apart from its rows

  /// Each of `lists`: ids or rows.
  static std::size_t list_bytes(const step_bounds& bounds);
  /// A decoder's ids and rows with logits; positions, sequences, attention's
  /// tiles and tables (cuda/step_lists.hpp).
  static std::size_t rows_bytes(const step_bounds& bounds);
  /// Positions whose turns are made, so that there are enough for so many.
  static std::int64_t turned_positions(std::int64_t positions);
  static std::size_t turns_bytes(const rope_params& rope,
                                 std::int64_t positions);
  /// Of all.
  static std::size_t bytes(const step_bounds& bounds,
                           const gpu_product_layout& products);
};

/// What a rank's GPU needs to have what the others computed: room for pieces of
/// it, of all ranks (cuda/device_communicator.hpp).
struct gpu_rank_layout {
  /// Bytes of the room at most, so that it does not grow with a step's rows.
  static constexpr std::int64_t most = std::int64_t{64} << 20;

  /// Floats of one rank in a piece, if it may have so many to give at once.
  static std::int64_t piece(std::int32_t ranks, std::int64_t floats);
  static std::size_t bytes(std::int32_t ranks, std::int64_t floats);

  /// NCCL's channels at most (its maxCTAs): its buffers are per channel.
  static constexpr int library_channels = 16;
  /// What is kept free for NCCL, of a GPU: a buffer of 4 MiB per channel and
  /// other rank, as its source has it for what each sends to each, and half a
  /// GiB for all else. Never measured.
  static constexpr std::size_t library_bytes(std::int32_t ranks) {
    constexpr std::size_t buffer = std::size_t{4} << 20;
    constexpr std::size_t rest = std::size_t{512} << 20;
    return rest + buffer * library_channels *
                      static_cast<std::size_t>(ranks > 0 ? ranks - 1 : 0);
  }
};

/// What a rank's GPU has for the others, if all read each other's memory: words
/// and numbers by which their kernels meet (cuda/kernels/peers.hpp).
struct gpu_peer_layout {
  static constexpr std::int32_t ranks_max = 16; ///< GPUs of a node at most
  static constexpr unsigned channels = 32;      ///< blocks of a kernel at most
  /// Of a channel: how often it has met, and who arrived when. A line of a
  /// GPU's cache.
  static constexpr unsigned channel_words = 32;
  static_assert(ranks_max + 1 <= static_cast<std::int32_t>(channel_words));
  static constexpr std::int64_t channel_floats = 8192; ///< of a meeting at most

  /// Sums of more are left to the library that moves numbers: there it is the
  /// links that take the time, which it is made for. 256 rows of 4096, so that
  /// steps without prompts have all their sums by kernels. Not measured.
  static constexpr std::int64_t sum_max = 1 << 20;

  static constexpr std::size_t words_bytes() {
    return std::size_t{channels} * channel_words * sizeof(std::uint32_t);
  }
  static constexpr std::size_t bytes() {
    return words_bytes() + channels * 2 *
                               static_cast<std::size_t>(channel_floats) *
                               sizeof(float);
  }
};

/// Room for what one operation needs: attention's parts, a library's product.
inline constexpr std::size_t gpu_operation_bytes = std::size_t{64} << 20;

/// Words at which the blocks of attention's parts count, one for each row and
/// its heads that read the same keys: more than a GPU has blocks at once.
inline constexpr std::size_t gpu_part_counts = 1024;

/// What the GPU's backend takes for itself, whatever the model.
inline constexpr std::size_t gpu_workspace_bytes =
    gpu_operation_bytes + gpu_part_counts * sizeof(std::uint32_t);

/// Logits of a row at most from which a GPU draws.
inline constexpr std::int64_t gpu_drawn_logits_max = 1 << 20;

/// Experts of a layer at most, on a GPU.
inline constexpr std::int32_t gpu_experts_max = 1024;

/// Floats of a head at most, on a GPU.
inline constexpr std::int32_t gpu_head_dim_max = 512;

} // namespace troupe::ops
