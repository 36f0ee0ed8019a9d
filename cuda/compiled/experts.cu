#include "cuda/compiled/launch.hpp"
#include "cuda/kernels/experts.hpp"

using troupe::cuda::bf16;
using troupe::cuda::block_e4m3;
using troupe::cuda::e4m3;
using troupe::cuda::expert_kernel;
using troupe::cuda::f16;
using troupe::cuda::few_pairs_product;
using troupe::cuda::many_pairs_product;

TROUPE_COMPILED(troupe::cuda::route_kernel);
TROUPE_COMPILED(troupe::cuda::place_kernel);
TROUPE_COMPILED(troupe::cuda::combine_kernel);
TROUPE_COMPILED(expert_kernel<few_pairs_product<float>, true>);
TROUPE_COMPILED(expert_kernel<few_pairs_product<float>, false>);
TROUPE_COMPILED(expert_kernel<many_pairs_product<float>, true>);
TROUPE_COMPILED(expert_kernel<many_pairs_product<float>, false>);
TROUPE_COMPILED(expert_kernel<few_pairs_product<f16>, true>);
TROUPE_COMPILED(expert_kernel<few_pairs_product<f16>, false>);
TROUPE_COMPILED(expert_kernel<many_pairs_product<f16>, true>);
TROUPE_COMPILED(expert_kernel<many_pairs_product<f16>, false>);
TROUPE_COMPILED(expert_kernel<few_pairs_product<bf16>, true>);
TROUPE_COMPILED(expert_kernel<few_pairs_product<bf16>, false>);
TROUPE_COMPILED(expert_kernel<many_pairs_product<bf16>, true>);
TROUPE_COMPILED(expert_kernel<many_pairs_product<bf16>, false>);
TROUPE_COMPILED(expert_kernel<few_pairs_product<e4m3>, true>);
TROUPE_COMPILED(expert_kernel<few_pairs_product<e4m3>, false>);
TROUPE_COMPILED(expert_kernel<many_pairs_product<e4m3>, true>);
TROUPE_COMPILED(expert_kernel<many_pairs_product<e4m3>, false>);
TROUPE_COMPILED(expert_kernel<few_pairs_product<block_e4m3>, true>);
TROUPE_COMPILED(expert_kernel<few_pairs_product<block_e4m3>, false>);
TROUPE_COMPILED(expert_kernel<many_pairs_product<block_e4m3>, true>);
TROUPE_COMPILED(expert_kernel<many_pairs_product<block_e4m3>, false>);
