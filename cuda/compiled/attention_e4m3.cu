#include "cuda/compiled/launch.hpp"
#include "cuda/kernels/attention.hpp"

// Keys and values in e4m3.

using troupe::cuda::attention_kernel;
using troupe::cuda::attention_warps;
using troupe::cuda::e4m3;

// Prompts.
TROUPE_COMPILED(attention_kernel<e4m3, 32, 1>);
TROUPE_COMPILED(attention_kernel<e4m3, 64, 1>);
TROUPE_COMPILED(attention_kernel<e4m3, 128, 1>);
// Rows that are alone, and all rows of larger heads.
TROUPE_COMPILED(attention_kernel<e4m3, 32, attention_warps>);
TROUPE_COMPILED(attention_kernel<e4m3, 64, attention_warps>);
TROUPE_COMPILED(attention_kernel<e4m3, 128, attention_warps>);
TROUPE_COMPILED(attention_kernel<e4m3, 256, attention_warps>);
TROUPE_COMPILED(attention_kernel<e4m3, 512, attention_warps>);
