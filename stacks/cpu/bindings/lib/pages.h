// Memory for what is read on every step: aligned, cleared, and on huge pages where the system gives them.
#pragma once
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#ifdef __linux__
#include <sys/mman.h>
#endif

struct FreePages {
  void operator()(void* p) const { std::free(p); }
};
template <class T>
using Pages = std::unique_ptr<T[], FreePages>;

// `count` zeros; throws std::bad_alloc. Blocks over 2 MB start on a huge page's border, smaller ones on a cache line's.
template <class T>
Pages<T> new_pages(size_t count) {
  constexpr size_t kHuge = size_t{2} << 20;
  const size_t bytes = count * sizeof(T), unit = bytes >= kHuge ? kHuge : 64;
  void* p = std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit + (bytes == 0 ? unit : 0));
  if (p == nullptr) throw std::bad_alloc();
#ifdef __linux__
  if (bytes >= kHuge) madvise(p, bytes, MADV_HUGEPAGE);
#endif
  std::memset(p, 0, bytes);
  return Pages<T>(static_cast<T*>(p));
}
