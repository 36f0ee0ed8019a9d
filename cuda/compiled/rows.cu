#include "cuda/compiled/launch.hpp"
#include "cuda/kernels/draw.hpp"
#include "cuda/kernels/paged_kv.hpp"
#include "cuda/kernels/parts.hpp"
#include "cuda/kernels/peers.hpp"
#include "cuda/kernels/products.hpp"
#include "cuda/kernels/rows.hpp"

// All that works on numbers one by one.

namespace cuda = troupe::cuda;

TROUPE_COMPILED(cuda::embed_kernel<float>);
TROUPE_COMPILED(cuda::embed_kernel<cuda::f16>);
TROUPE_COMPILED(cuda::embed_kernel<cuda::bf16>);
TROUPE_COMPILED(cuda::embed_kernel<cuda::e4m3>);
TROUPE_COMPILED(cuda::embed_kernel<cuda::block_e4m3>);
TROUPE_COMPILED(cuda::norm_kernel);
TROUPE_COMPILED(cuda::gate_kernel);
TROUPE_COMPILED(cuda::change_kernel);
TROUPE_COMPILED(cuda::gather_kernel);
TROUPE_COMPILED(cuda::place_drawn_kernel);
TROUPE_COMPILED(cuda::mean_kernel);
TROUPE_COMPILED(cuda::row_sum_kernel);

TROUPE_COMPILED(cuda::rope_kernel<cuda::f16>);
TROUPE_COMPILED(cuda::rope_kernel<cuda::e4m3>);

// What surrounds a library's products.
TROUPE_COMPILED(cuda::round_kernel);
TROUPE_COMPILED(cuda::scale_kernel);
TROUPE_COMPILED(cuda::widen_kernel);
TROUPE_COMPILED(cuda::place_sums_kernel);

TROUPE_COMPILED(cuda::largest_kernel);
TROUPE_COMPILED(cuda::border_kernel);
TROUPE_COMPILED(cuda::weigh_kernel);
TROUPE_COMPILED(cuda::collect_kernel);
TROUPE_COMPILED(cuda::score_kernel);
TROUPE_COMPILED(cuda::change_logits_kernel);
TROUPE_COMPILED(cuda::pick_kernel);
TROUPE_COMPILED(cuda::name_drawn_kernel);

// Between ranks.
TROUPE_COMPILED(cuda::add_parts_kernel);
TROUPE_COMPILED(cuda::place_parts_kernel);
TROUPE_COMPILED(cuda::add_peers_kernel);
TROUPE_COMPILED(cuda::place_peers_kernel);
