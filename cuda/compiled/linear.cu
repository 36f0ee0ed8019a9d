#include "cuda/compiled/launch.hpp"
#include "cuda/kernels/linear.hpp"

using troupe::cuda::bf16;
using troupe::cuda::block_e4m3;
using troupe::cuda::e4m3;
using troupe::cuda::f16;
using troupe::cuda::linear_kernel;
using troupe::cuda::many_rows_kernel;

TROUPE_COMPILED(linear_kernel<float, 1, 2>);
TROUPE_COMPILED(linear_kernel<float, 1, 4>);
TROUPE_COMPILED(linear_kernel<float, 2, 4>);
TROUPE_COMPILED(linear_kernel<float, 4, 2>);
TROUPE_COMPILED(linear_kernel<f16, 1, 2>);
TROUPE_COMPILED(linear_kernel<f16, 1, 4>);
TROUPE_COMPILED(linear_kernel<f16, 2, 4>);
TROUPE_COMPILED(linear_kernel<f16, 4, 2>);
TROUPE_COMPILED(linear_kernel<bf16, 1, 2>);
TROUPE_COMPILED(linear_kernel<bf16, 1, 4>);
TROUPE_COMPILED(linear_kernel<bf16, 2, 4>);
TROUPE_COMPILED(linear_kernel<bf16, 4, 4>);
TROUPE_COMPILED(linear_kernel<e4m3, 1, 2>);
TROUPE_COMPILED(linear_kernel<e4m3, 1, 4>);
TROUPE_COMPILED(linear_kernel<e4m3, 2, 4>);
TROUPE_COMPILED(linear_kernel<e4m3, 4, 4>);
TROUPE_COMPILED(linear_kernel<block_e4m3, 1, 2>);
TROUPE_COMPILED(linear_kernel<block_e4m3, 1, 4>);
TROUPE_COMPILED(linear_kernel<block_e4m3, 2, 4>);
TROUPE_COMPILED(linear_kernel<block_e4m3, 4, 2>);

TROUPE_COMPILED(many_rows_kernel<float>);
TROUPE_COMPILED(many_rows_kernel<f16>);
TROUPE_COMPILED(many_rows_kernel<bf16>);
TROUPE_COMPILED(many_rows_kernel<e4m3>);
TROUPE_COMPILED(many_rows_kernel<block_e4m3>);
