#include "cuda/compiled/launch.hpp"
#include "cuda/kernels/attention.hpp"

// Keys and values in f16.

using troupe::cuda::attention_kernel;
using troupe::cuda::attention_warps;
using troupe::cuda::f16;

// Prompts.
TROUPE_COMPILED(attention_kernel<f16, 32, 1>);
TROUPE_COMPILED(attention_kernel<f16, 64, 1>);
TROUPE_COMPILED(attention_kernel<f16, 128, 1>);
// Rows that are alone, and all rows of larger heads.
TROUPE_COMPILED(attention_kernel<f16, 32, attention_warps>);
TROUPE_COMPILED(attention_kernel<f16, 64, attention_warps>);
TROUPE_COMPILED(attention_kernel<f16, 128, attention_warps>);
TROUPE_COMPILED(attention_kernel<f16, 256, attention_warps>);
TROUPE_COMPILED(attention_kernel<f16, 512, attention_warps>);
