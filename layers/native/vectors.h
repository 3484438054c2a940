// Vectors of 16 floats, whatever the processor's are, and work shared among the threads of XLA.
//
// Copyright The Letterpress Authors. SPDX-License-Identifier: Apache-2.0

#ifndef LETTERPRESS_LAYERS_NATIVE_VECTORS_H_
#define LETTERPRESS_LAYERS_NATIVE_VECTORS_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr int64_t kLanes = 16;  // floats of a vector
constexpr int64_t kAhead = 1024;  // bytes that are fetched before they are read

typedef float Vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t Bits __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t Halves __attribute__((vector_size(32), aligned(2), may_alias));
typedef int16_t Shorts __attribute__((vector_size(32), aligned(2), may_alias));
typedef int8_t Bytes __attribute__((vector_size(16), aligned(1), may_alias));

inline Vec load(const float* at) { return *reinterpret_cast<const Vec*>(at); }
inline void store(float* at, Vec value) { *reinterpret_cast<Vec*>(at) = value; }
inline Vec load(const uint16_t* at) {  // a bfloat16 is the upper half of a float
  return (Vec)(__builtin_convertvector(*reinterpret_cast<const Halves*>(at), Bits) << 16);
}
#ifdef __AVX512F__
inline Vec load(const int8_t* at) {
  __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  return (Vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}
#else  // by steps of twice the width, else GCC converts the numbers one by one
inline Vec load(const int8_t* at) {
  Shorts shorts = __builtin_convertvector(*reinterpret_cast<const Bytes*>(at), Shorts);
  return __builtin_convertvector(__builtin_convertvector(shorts, Ints), Vec);
}
#endif

inline const float* floats(const ffi::AnyBuffer& buffer) {  // null for an empty one
  return buffer.element_count() ? static_cast<const float*>(buffer.untyped_data()) : nullptr;
}

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

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // of Linux 6.1
#endif

// Pages of 2 MiB for memory that is about to be written, or that was already: reading it through
// pages of 4 KiB takes half as long again. Only advice, and only where Linux is set to take it.
inline void ask_for_large_pages(void* from, int64_t bytes, bool written) {
#if defined(__linux__)
  constexpr uintptr_t kLarge = uintptr_t{1} << 21;
  uintptr_t first = reinterpret_cast<uintptr_t>(from) & ~(kLarge - 1);
  uintptr_t last = (reinterpret_cast<uintptr_t>(from) + bytes + kLarge - 1) & ~(kLarge - 1);
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  if (written) madvise(reinterpret_cast<void*>(first), last - first, MADV_COLLAPSE);
#endif
}

// Calls work(piece, next) for every piece, by this thread and whichever of the pool's have time,
// and returns when all are done. A thread takes pieces by short runs: `next` is the one that it does
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
        int64_t last = first + std::clamp<int64_t>((count - first) / (2 * threads), 1, 8);
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
  for (int spins = 0; shared->done.load(std::memory_order_acquire) < count; spins++)
    spins < 2000 ? rest() : std::this_thread::yield();  // to one that waits for this very core
}

}  // namespace

#endif  // LETTERPRESS_LAYERS_NATIVE_VECTORS_H_
