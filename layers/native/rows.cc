// What a step over few tokens spends its time on, for CPUs: products of few rows with large
// kernels, read once and from end to end by all cores, and attention of few queries over a cache.
//
// Copyright The Letterpress Authors. SPDX-License-Identifier: Apache-2.0
//
// A kernel [depth, columns] comes as panels [columns / 32, depth, 32], padded with zeros, in
// float32, bfloat16 or int8; int8 ones have a scale a column. Sums are float32. The letters are
// those of layers/axes.py. `layers/native/building.py` compiles this file and `layers/native/rows.py`
// calls it.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr int64_t kLanes = 16;    // floats of a vector
constexpr int64_t kWide = 32;     // columns of a panel
constexpr int64_t kMostRows = 8;  // whose sums stay in registers
constexpr int64_t kAhead = 1024;  // bytes that are fetched before they are read
constexpr int64_t kDeep = 768;    // of a panel that rows share while it is in the nearest caches

typedef float Vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t Bits __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t Halves __attribute__((vector_size(32), aligned(2), may_alias));
typedef int8_t Bytes __attribute__((vector_size(16), aligned(1), may_alias));

inline Vec load(const float* at) { return *reinterpret_cast<const Vec*>(at); }
inline void store(float* at, Vec value) { *reinterpret_cast<Vec*>(at) = value; }
inline Vec load(const uint16_t* at) {  // a bfloat16 is the upper half of a float
  return (Vec)(__builtin_convertvector(*reinterpret_cast<const Halves*>(at), Bits) << 16);
}
#ifdef __AVX512F__  // GCC would convert the numbers one by one
inline Vec load(const int8_t* at) {
  __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  return (Vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}
#else
inline Vec load(const int8_t* at) {
  return __builtin_convertvector(*reinterpret_cast<const Bytes*>(at), Vec);
}
#endif

inline float sum(Vec v) {
#ifdef __AVX512F__
  return _mm512_reduce_add_ps((__m512)v);
#endif
  float lanes[kLanes];
  std::memcpy(lanes, &v, sizeof(v));
  for (int half = kLanes / 2; half; half /= 2)
    for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
  return lanes[0];
}

// e^x within 2 units in the last place, for x from -87 to 88; what is below is taken as -87.
inline Vec exponential(Vec x) {
  const Vec least = Vec{} - 87.0f;
  x = x < least ? least : x;
  Vec n = x * 1.44269504f + 12582912.0f - 12582912.0f;  // the nearest whole number of x / log 2
  Vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Vec p = Vec{} + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * (Vec)((__builtin_convertvector(n, Ints) + 127) << 23);
}

inline void rest() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

inline void fetch(const char* at) { __builtin_prefetch(at); }

// Pages of 2 MiB for memory that is about to be written: reading it through pages of 4 KiB takes
// half as long again. Only advice, and only where Linux is set to take it.
void ask_for_large_pages(void* from, int64_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t kLarge = uintptr_t{1} << 21;
  uintptr_t first = reinterpret_cast<uintptr_t>(from) & ~(kLarge - 1);
  uintptr_t last = (reinterpret_cast<uintptr_t>(from) + bytes + kLarge - 1) & ~(kLarge - 1);
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

// Calls work(piece, next) for every piece, by this thread and whichever of the pool's have time,
// and returns when all are done. A thread takes pieces by runs: `next` is the one that it does
// afterwards, or the same where that is not known. Only pieces that some thread has begun are
// waited for, so a busy pool delays nothing.
template <class Work>
void share(ffi::ThreadPool& pool, int64_t count, Work work) {
  struct Shared {
    Work work;
    int64_t count, threads;
    std::atomic<int64_t> taken{0}, done{0};
    Shared(Work w, int64_t n, int64_t t) : work(std::move(w)), count(n), threads(t) {}
    void help() {
      int64_t first = taken.load();
      while (first < count) {
        int64_t last = first + std::max<int64_t>(1, (count - first) / (2 * threads));
        if (!taken.compare_exchange_weak(first, last)) continue;
        for (int64_t i = first; i < last; i++) work(i, std::min(i + 1, last - 1));
        done.fetch_add(last - first, std::memory_order_release);
        first = taken.load();
      }
    }
  };
  int64_t threads = std::clamp<int64_t>(pool.num_threads(), 1, count);
  auto shared = std::make_shared<Shared>(std::move(work), count, threads);
  for (int64_t i = 1; i < threads; i++) pool.Schedule([shared] { shared->help(); });
  shared->help();
  while (shared->done.load(std::memory_order_acquire) < count) rest();
}

// sums[R][32] += x[depth][R] * w[depth][32]; meanwhile `bytes` a step of what lies ahead is fetched.
template <int R, class W>
void strip(const float* x, int64_t depth, const W* w, const char* ahead, int64_t bytes,
           float* sums) {
  Vec a[R], b[R];
  for (int r = 0; r < R; r++) {
    a[r] = load(sums + r * kWide);
    b[r] = load(sums + r * kWide + kLanes);
  }
  for (int64_t d = 0; d < depth; d++, w += kWide, x += R, ahead += bytes) {
    Vec left = load(w), right = load(w + kLanes);
    fetch(ahead);
    if (bytes > 64) fetch(ahead + 64);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      a[r] += left * x[r];
      b[r] += right * x[r];
    }
  }
  for (int r = 0; r < R; r++) {
    store(sums + r * kWide, a[r]);
    store(sums + r * kWide + kLanes, b[r]);
  }
}

// How many rows the next strip takes of those that are left.
inline int64_t strip_rows(int64_t left) { return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

// sums[rows][32] = x * panel, for x packed by `pack`; `after` is the panel that is read next.
//
// One strip fetches what it reads a little later. Of several that read the same, each fetches its
// share of what the first of them will read next, so that memory is never waited for.
template <class W>
void multiply(const float* x, int64_t rows, int64_t depth, const W* panel, const W* after,
              float* sums) {
  std::fill(sums, sums + rows * kWide, 0.0f);
  int64_t passes = (rows + kMostRows - 1) / kMostRows, row_bytes = kWide * sizeof(W);
  for (int64_t d = 0; d < depth; d += kDeep) {
    int64_t deep = std::min(kDeep, depth - d);
    const W *w = panel + d * kWide, *next = d + deep < depth ? w + deep * kWide : after;
    auto ahead = reinterpret_cast<const char*>(next);
    if (passes == 1) {
      for (int64_t b = 0; b < kAhead; b += 64) fetch(ahead + b);
      ahead = reinterpret_cast<const char*>(w) + kAhead;
    }
    int64_t bytes = row_bytes / passes;
    for (int64_t r = 0, n; r < rows; r += n, ahead += bytes * deep) {
      n = strip_rows(rows - r);
      const float* own = x + r * depth + d * n;
      float* to = sums + r * kWide;
      if (n == 8) strip<8>(own, deep, w, ahead, bytes, to);
      if (n == 4) strip<4>(own, deep, w, ahead, bytes, to);
      if (n == 2) strip<2>(own, deep, w, ahead, bytes, to);
      if (n == 1) strip<1>(own, deep, w, ahead, bytes, to);
    }
  }
}

// Rows strip by strip, [depth][rows of the strip] each, normalised by their root mean square and
// scaled if there is a scale.
void pack(const float* x, int64_t rows, int64_t depth, const float* scale, float eps, float* to) {
  for (int64_t r = 0, n; r < rows; r += n) {
    n = strip_rows(rows - r);
    for (int64_t i = 0; i < n; i++) {
      const float* row = x + (r + i) * depth;
      float factor = 1.0f;
      if (scale) {
        double squares = 0.0;
        for (int64_t d = 0; d < depth; d++) squares += row[d] * row[d];
        factor = 1.0f / std::sqrt(static_cast<float>(squares / depth) + eps);
      }
      for (int64_t d = 0; d < depth; d++)
        to[r * depth + d * n + i] = scale ? row[d] * factor * scale[d] : row[d];
    }
  }
}

// Layer `layer` of kernels [layers, depth, columns] as panels.
ffi::Error Pack(ffi::ThreadPool pool, ffi::AnyBuffer kernels, ffi::Result<ffi::AnyBuffer> panels,
                int64_t layer) {
  int64_t depth = kernels.dimensions()[1], columns = kernels.dimensions()[2];
  int64_t size = ffi::ByteWidth(kernels.element_type()), count = panels->dimensions()[0];
  auto from = static_cast<const char*>(kernels.untyped_data()) + layer * depth * columns * size;
  auto to = static_cast<char*>(panels->untyped_data());
  ask_for_large_pages(to, count * depth * kWide * size);
  share(pool, depth, [=](int64_t d, int64_t) {
    for (int64_t i = 0; i < count; i++) {
      int64_t width = std::min(kWide, columns - i * kWide);
      char* row = to + (i * depth + d) * kWide * size;
      std::memcpy(row, from + (d * columns + i * kWide) * size, width * size);
      std::memset(row + width * size, 0, (kWide - width) * size);
    }
  });
  return ffi::Error::Success();
}

struct Kernel {
  ffi::AnyBuffer panels, scale;
  int64_t count() const { return panels.dimensions()[0]; }
  template <class W>
  const W* panel(int64_t i) const {
    int64_t size = panels.dimensions()[1] * kWide;
    return static_cast<const W*>(panels.untyped_data()) + i * size;
  }
};

inline const float* floats(const ffi::AnyBuffer& buffer) {  // null for an empty one
  return buffer.element_count() ? static_cast<const float*>(buffer.untyped_data()) : nullptr;
}

// One panel's sums, from whatever its numbers are; an int8 kernel's columns have scales.
void multiply(const float* x, int64_t rows, const Kernel& kernel, int64_t i, const Kernel& after,
              int64_t j, float* sums) {
  int64_t depth = kernel.panels.dimensions()[1];
  switch (kernel.panels.element_type()) {
    case ffi::F32:
      multiply(x, rows, depth, kernel.panel<float>(i), after.panel<float>(j), sums);
      break;
    case ffi::BF16:
      multiply(x, rows, depth, kernel.panel<uint16_t>(i), after.panel<uint16_t>(j), sums);
      break;
    default:
      multiply(x, rows, depth, kernel.panel<int8_t>(i), after.panel<int8_t>(j), sums);
  }
  if (const float* scale = floats(kernel.scale))
    for (int64_t r = 0; r < rows; r++)
      for (int64_t c = 0; c < kWide; c++) sums[r * kWide + c] *= scale[i * kWide + c];
}

// y_i = norm(x) * kernel_i + residual for every kernel; or if `gated`, of two kernels one
// y = silu(norm(x) * kernel_0) * (norm(x) * kernel_1). Buffers that are empty are left out.
// The rest of the arguments are panels and scale of each kernel.
ffi::Error Products(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer norm,
                    ffi::AnyBuffer residual, ffi::RemainingArgs rest, ffi::RemainingRets results,
                    float eps, bool gated) {
  int64_t depth = x.dimensions().back(), rows = x.element_count() / depth;
  std::vector<Kernel> kernels;
  for (size_t i = 0; i + 1 < rest.size(); i += 2)
    kernels.push_back({*rest.get<ffi::AnyBuffer>(i), *rest.get<ffi::AnyBuffer>(i + 1)});
  std::vector<ffi::AnyBuffer> out;
  for (size_t i = 0; i < results.size(); i++) out.push_back(**results.get<ffi::AnyBuffer>(i));
  for (const Kernel& kernel : kernels)
    if (kernel.panels.dimensions()[1] != depth || kernel.panels.dimensions()[2] != kWide)
      return ffi::Error::InvalidArgument("a kernel's panels are not as deep as the rows");
  if (out.size() != (gated ? 1 : kernels.size()))
    return ffi::Error::InvalidArgument("as many results as kernels, or one of a gate and its other");

  std::vector<float> packed(rows * depth);
  pack(floats(x), rows, depth, floats(norm), eps, packed.data());
  int64_t count = 0;
  for (size_t i = 0; i < out.size(); i++) count += kernels[i].count();

  auto place = [kernels](int64_t piece) {  // kernel and panel
    size_t k = 0;
    while (k + 1 < kernels.size() && piece >= kernels[k].count()) piece -= kernels[k++].count();
    return std::pair<size_t, int64_t>(k, piece);
  };
  const float *own = packed.data(), *more = floats(residual);
  share(pool, count, [=](int64_t piece, int64_t next) {
    thread_local std::vector<float> sums, other;
    sums.resize(rows * kWide);
    auto [k, i] = place(piece);
    auto [l, j] = next < count ? place(next) : std::pair<size_t, int64_t>(k, i);
    multiply(own, rows, kernels[k], i, kernels[gated ? 1 : l], gated ? i : j, sums.data());
    if (gated) {
      other.resize(rows * kWide);
      multiply(own, rows, kernels[1], i, kernels[0], j, other.data());
      for (int64_t c = 0; c < rows * kWide; c += kLanes) {
        Vec gate = load(&sums[c]);
        store(&sums[c], gate / (1.0f + exponential(-gate)) * load(&other[c]));
      }
    }
    int64_t columns = out[k].dimensions().back(), first = i * kWide;
    int64_t width = std::min(kWide, columns - first);
    float* to = static_cast<float*>(out[k].untyped_data()) + first;
    for (int64_t r = 0; r < rows; r++)
      for (int64_t c = 0; c < width; c++) {
        int64_t at = r * columns + c;
        to[at] = sums[r * kWide + c] + (more ? more[first + at] : 0.0f);
      }
  });
  return ffi::Error::Success();
}

// A head of H numbers: normalised by its root mean square if there is a scale, then each pair
// (i, i + H / 2) turned by its angle.
void turn(const float* x, int64_t H, const float* scale, float eps, const float* cos,
          const float* sin, float* to) {
  float factor = 1.0f;
  if (scale) {
    float squares = 0.0f;
    for (int64_t h = 0; h < H; h++) squares += x[h] * x[h];
    factor = 1.0f / std::sqrt(squares / H + eps);
  }
  for (int64_t p = 0, half = H / 2; p < half; p++) {
    float a = x[p], b = x[p + half];
    if (scale) a *= factor * scale[p], b *= factor * scale[p + half];
    to[p] = a * cos[p] - b * sin[p];
    to[p + half] = b * cos[p] + a * sin[p];
  }
}

// softmax(query keys / sqrt(H)) values over those of S positions that are seen, for heads of V
// vectors.
template <int V>
void look(const float* query, const float* keys, const float* values, const bool* seen, int64_t S,
          float* found) {
  constexpr int64_t H = V * kLanes;
  thread_local std::vector<float> scores;
  scores.assign((S + kLanes - 1) / kLanes * kLanes, -INFINITY);
  float scale = 1.0f / std::sqrt(static_cast<float>(H)), most = -INFINITY, total = 0.0f;
  Vec asked[V], got[V];
  for (int v = 0; v < V; v++) asked[v] = load(query + v * kLanes), got[v] = Vec{};
  for (int64_t s = 0; s < S; s++) {
    if (!seen[s]) continue;
    const float* key = keys + s * H;
    Vec product{};
    for (int v = 0; v < V; v++) {
      fetch(reinterpret_cast<const char*>(key + v * kLanes) + kAhead);
      product += asked[v] * load(key + v * kLanes);
    }
    scores[s] = sum(product) * scale;
    most = std::max(most, scores[s]);
  }
  if (most > -INFINITY) {  // else the query is not there
    for (int64_t s = 0; s < S; s += kLanes) store(&scores[s], exponential(load(&scores[s]) - most));
    for (int64_t s = 0; s < S; s++) {
      if (!seen[s]) continue;
      const float* value = values + s * H;
      total += scores[s];
      for (int v = 0; v < V; v++) {
        fetch(reinterpret_cast<const char*>(value + v * kLanes) + kAhead);
        got[v] += scores[s] * load(value + v * kLanes);
      }
    }
  }
  for (int v = 0; v < V; v++) store(found + v * kLanes, total > 0 ? got[v] / total : got[v]);
}

// New keys and values are put into the cache [B K S H] at each row's offset, or all at one, and
// what the queries find there is given; `keys` and `values` are changed in place.
ffi::Error Attend(ffi::ThreadPool pool, ffi::AnyBuffer query, ffi::AnyBuffer key,
                  ffi::AnyBuffer value, ffi::AnyBuffer cos, ffi::AnyBuffer sin,
                  ffi::AnyBuffer query_norm, ffi::AnyBuffer key_norm, ffi::AnyBuffer seen,
                  ffi::AnyBuffer at, ffi::AnyBuffer, ffi::AnyBuffer,
                  ffi::Result<ffi::AnyBuffer> found, ffi::Result<ffi::AnyBuffer> keys,
                  ffi::Result<ffi::AnyBuffer> values, float eps) {
  auto shape = query.dimensions();
  int64_t B = shape[0], T = shape[1], N = shape[2], H = shape[3];
  int64_t K = keys->dimensions()[1], S = keys->dimensions()[2], G = N / K;
  if ((H != 16 && H != 32 && H != 64 && H != 128) || N % K)
    return ffi::Error::InvalidArgument("heads are not of 16, 32, 64 or 128");
  auto marks = seen.dimensions();  // [#B 1 #T S]
  int64_t mark_row = marks[0] > 1 ? marks[2] * S : 0, mark_query = marks[2] > 1 ? S : 0;
  int64_t turn_row = cos.dimensions()[0] > 1 ? T * H / 2 : 0;
  const float *q = floats(query), *k = floats(key), *v = floats(value), *c = floats(cos),
              *s = floats(sin), *qn = floats(query_norm), *kn = floats(key_norm);
  auto look_at = static_cast<const bool*>(seen.untyped_data());
  auto offsets = static_cast<const int32_t*>(at.untyped_data());
  bool own_offsets = at.element_count() > 1;
  auto *out = static_cast<float*>(found->untyped_data()),
       *cached_keys = static_cast<float*>(keys->untyped_data()),
       *cached_values = static_cast<float*>(values->untyped_data());
  if (*offsets == 0) {  // nothing was written yet: where zeros were, pages are not there either
    ask_for_large_pages(cached_keys, keys->element_count() * sizeof(float));
    ask_for_large_pages(cached_values, values->element_count() * sizeof(float));
  }
  share(pool, B * K, [=](int64_t piece, int64_t) {
    int64_t b = piece / K, head = piece % K;
    int64_t first = std::clamp<int64_t>(offsets[own_offsets ? b : 0], 0, S - T);
    float *old_keys = cached_keys + piece * S * H, *old_values = cached_values + piece * S * H;
    for (int64_t t = 0; t < T; t++) {
      int64_t from = ((b * T + t) * K + head) * H, to = (first + t) * H, angle = b * turn_row + t * H / 2;
      turn(k + from, H, kn, eps, c + angle, s + angle, old_keys + to);
      std::memcpy(old_values + to, v + from, H * sizeof(float));
    }
    thread_local std::vector<float> turned;
    turned.resize(H);
    for (int64_t t = 0; t < T; t++)
      for (int64_t g = 0; g < G; g++) {
        int64_t from = ((b * T + t) * N + head * G + g) * H, angle = b * turn_row + t * H / 2;
        turn(q + from, H, qn, eps, c + angle, s + angle, turned.data());
        const bool* marks = look_at + b * mark_row + t * mark_query;
        if (H == 16) look<1>(turned.data(), old_keys, old_values, marks, S, out + from);
        if (H == 32) look<2>(turned.data(), old_keys, old_values, marks, S, out + from);
        if (H == 64) look<4>(turned.data(), old_keys, old_values, marks, S, out + from);
        if (H == 128) look<8>(turned.data(), old_keys, old_values, marks, S, out + from);
      }
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(letterpress_pack, Pack,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<int64_t>("layer"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(letterpress_products, Products,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()  // x
                                  .Arg<ffi::AnyBuffer>()  // norm
                                  .Arg<ffi::AnyBuffer>()  // residual
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<float>("eps")
                                  .Attr<bool>("gated"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(letterpress_attend, Attend,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()  // query
                                  .Arg<ffi::AnyBuffer>()  // key
                                  .Arg<ffi::AnyBuffer>()  // value
                                  .Arg<ffi::AnyBuffer>()  // cos
                                  .Arg<ffi::AnyBuffer>()  // sin
                                  .Arg<ffi::AnyBuffer>()  // query_norm
                                  .Arg<ffi::AnyBuffer>()  // key_norm
                                  .Arg<ffi::AnyBuffer>()  // seen
                                  .Arg<ffi::AnyBuffer>()  // at
                                  .Arg<ffi::AnyBuffer>()  // keys
                                  .Arg<ffi::AnyBuffer>()  // values
                                  .Ret<ffi::AnyBuffer>()  // found
                                  .Ret<ffi::AnyBuffer>()  // keys
                                  .Ret<ffi::AnyBuffer>()  // values
                                  .Attr<float>("eps"));
