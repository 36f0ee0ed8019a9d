#include "cuda/compiled/launch.hpp"
#include "cuda/kernels/experts.hpp"

using troupe::cuda::bf16;
using troupe::cuda::block_e4m3;
using troupe::cuda::e4m3;
using troupe::cuda::expert_kernel;
using troupe::cuda::f16;

TROUPE_COMPILED(troupe::cuda::route_kernel);
TROUPE_COMPILED(troupe::cuda::place_kernel);
TROUPE_COMPILED(troupe::cuda::combine_kernel);
TROUPE_COMPILED(expert_kernel<float, true, 1>);
TROUPE_COMPILED(expert_kernel<float, true, 4>);
TROUPE_COMPILED(expert_kernel<float, false, 1>);
TROUPE_COMPILED(expert_kernel<float, false, 4>);
TROUPE_COMPILED(expert_kernel<f16, true, 1>);
TROUPE_COMPILED(expert_kernel<f16, true, 4>);
TROUPE_COMPILED(expert_kernel<f16, false, 1>);
TROUPE_COMPILED(expert_kernel<f16, false, 4>);
TROUPE_COMPILED(expert_kernel<bf16, true, 1>);
TROUPE_COMPILED(expert_kernel<bf16, true, 4>);
TROUPE_COMPILED(expert_kernel<bf16, false, 1>);
TROUPE_COMPILED(expert_kernel<bf16, false, 4>);
TROUPE_COMPILED(expert_kernel<e4m3, true, 1>);
TROUPE_COMPILED(expert_kernel<e4m3, true, 4>);
TROUPE_COMPILED(expert_kernel<e4m3, false, 1>);
TROUPE_COMPILED(expert_kernel<e4m3, false, 4>);
TROUPE_COMPILED(expert_kernel<block_e4m3, true, 1>);
TROUPE_COMPILED(expert_kernel<block_e4m3, true, 4>);
TROUPE_COMPILED(expert_kernel<block_e4m3, false, 1>);
TROUPE_COMPILED(expert_kernel<block_e4m3, false, 4>);
