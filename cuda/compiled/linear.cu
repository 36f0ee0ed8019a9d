#include "cuda/compiled/launch.hpp"
#include "cuda/kernels/linear.hpp"

using troupe::cuda::bf16;
using troupe::cuda::block_e4m3;
using troupe::cuda::e4m3;
using troupe::cuda::f16;
using troupe::cuda::linear_kernel;
using troupe::cuda::many_rows_product;
using troupe::cuda::tile_product;

TROUPE_COMPILED(linear_kernel<tile_product<float, 1, 2>>);
TROUPE_COMPILED(linear_kernel<tile_product<float, 1, 4>>);
TROUPE_COMPILED(linear_kernel<tile_product<float, 2, 4>>);
TROUPE_COMPILED(linear_kernel<tile_product<float, 4, 2>>);
TROUPE_COMPILED(linear_kernel<many_rows_product<float>>);
TROUPE_COMPILED(linear_kernel<tile_product<f16, 1, 2>>);
TROUPE_COMPILED(linear_kernel<tile_product<f16, 1, 4>>);
TROUPE_COMPILED(linear_kernel<tile_product<f16, 2, 4>>);
TROUPE_COMPILED(linear_kernel<tile_product<f16, 4, 2>>);
TROUPE_COMPILED(linear_kernel<many_rows_product<f16>>);
TROUPE_COMPILED(linear_kernel<tile_product<bf16, 1, 2>>);
TROUPE_COMPILED(linear_kernel<tile_product<bf16, 1, 4>>);
TROUPE_COMPILED(linear_kernel<tile_product<bf16, 2, 4>>);
TROUPE_COMPILED(linear_kernel<tile_product<bf16, 4, 4>>);
TROUPE_COMPILED(linear_kernel<many_rows_product<bf16>>);
TROUPE_COMPILED(linear_kernel<tile_product<e4m3, 1, 2>>);
TROUPE_COMPILED(linear_kernel<tile_product<e4m3, 1, 4>>);
TROUPE_COMPILED(linear_kernel<tile_product<e4m3, 2, 4>>);
TROUPE_COMPILED(linear_kernel<tile_product<e4m3, 4, 4>>);
TROUPE_COMPILED(linear_kernel<many_rows_product<e4m3>>);
TROUPE_COMPILED(linear_kernel<tile_product<block_e4m3, 1, 2>>);
TROUPE_COMPILED(linear_kernel<tile_product<block_e4m3, 1, 4>>);
TROUPE_COMPILED(linear_kernel<tile_product<block_e4m3, 2, 4>>);
TROUPE_COMPILED(linear_kernel<tile_product<block_e4m3, 4, 2>>);
TROUPE_COMPILED(linear_kernel<many_rows_product<block_e4m3>>);
