// Element-wise float functions over F, written once for every vector family (no include guard: included after each simd-<family>.h).

// e^x, relative error below 3e-7; x below -87 gives 0 or the smallest normal numbers, x must stay below 88.
SIMD_FN F exp(F x) {
  x = max(x, set(-87));
  const F n = round(x * set(1.44269504f));
  F f = fma(n, set(-0.693359375f), x);  // log 2 in two parts, so that the remainder keeps its low bits
  f = fma(n, set(2.12194440e-4f), f);
  F p = set(1.9875691500e-4f);  // Cephes' polynomial for e^f on |f| <= log(2) / 2
  p = fma(p, f, set(1.3981999507e-3f));
  p = fma(p, f, set(8.3334519073e-3f));
  p = fma(p, f, set(4.1665795894e-2f));
  p = fma(p, f, set(1.6666665459e-1f));
  p = fma(p, f, set(5.0000001201e-1f));
  p = fma(p, f * f, f + set(1));
  return p * pow2(n);
}
