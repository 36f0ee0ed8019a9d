#include "cuda/compiled/launch.hpp"
#include "cuda/kernels/experts.hpp"

using troupe::cuda::bf16;
using troupe::cuda::e4m3;
using troupe::cuda::expert_kernel;
using troupe::cuda::f16;

TROUPE_COMPILED(troupe::cuda::route_kernel);
TROUPE_COMPILED(troupe::cuda::place_kernel);
TROUPE_COMPILED(troupe::cuda::combine_kernel);
TROUPE_COMPILED(expert_kernel<float, true>);
TROUPE_COMPILED(expert_kernel<float, false>);
TROUPE_COMPILED(expert_kernel<f16, true>);
TROUPE_COMPILED(expert_kernel<f16, false>);
TROUPE_COMPILED(expert_kernel<bf16, true>);
TROUPE_COMPILED(expert_kernel<bf16, false>);
TROUPE_COMPILED(expert_kernel<e4m3, true>);
TROUPE_COMPILED(expert_kernel<e4m3, false>);
