// requires: avx2 fma f16c avx512f avx512bw avx512dq avx512vl avx512_vnni
#pragma once
#define BUILD_PORTABLE 0
#define BUILD_AVX2 0
#define BUILD_AVXVNNI 0
#define BUILD_AVX512 1
