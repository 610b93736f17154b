// Which vector families are compiled: here all, and the best that the processor has is used. A candidate's tree gets, under this name, the
// target-<family>.h whose required ISA bits its target's device has: one family compiles in a third of the time.
#pragma once
#define BUILD_PORTABLE 1
#define BUILD_AVX2 1
#define BUILD_AVXVNNI 1
#define BUILD_AVX512 1
