// Closes what simd-<family>.h opened.
}  // namespace
#if defined(SIMD_PLAIN)
#undef SIMD_PLAIN
#elif defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
