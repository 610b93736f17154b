// requires: avx2 fma f16c avx_vnni
#pragma once
#define BUILD_PORTABLE 0
#define BUILD_AVX2 1
#define BUILD_AVXVNNI 1
#define BUILD_AVX512 0
