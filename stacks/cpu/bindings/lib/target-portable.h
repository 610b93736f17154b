// requires:
#pragma once
#define BUILD_PORTABLE 1
#define BUILD_AVX2 0
#define BUILD_AVXVNNI 0
#define BUILD_AVX512 0
