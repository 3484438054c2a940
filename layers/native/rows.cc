// Products of few rows with large kernels, which are read once and from end to end by all cores.
//
// Copyright The Letterpress Authors. SPDX-License-Identifier: Apache-2.0
//
// A kernel [depth, columns] comes as panels [columns / 32, depth, 32], padded with zeros, in
// float32, bfloat16 or int8; int8 ones have a scale a column. Sums are float32. The letters are
// those of layers/axes.py. `building.py` compiles this file, `rows.py` calls it.

#include <cmath>
#include <vector>

#include "vectors.h"

namespace {

constexpr int64_t kWide = 32;   // columns of a panel
#ifdef __AVX512F__
constexpr int64_t kMostRows = 8;  // whose sums stay in registers, a power of 2 up to 8
#else
constexpr int64_t kMostRows = 2;
#endif
constexpr int64_t kDeep = 768;    // of a panel that rows share while it is in the nearest caches

// sums[R][32] += x[depth][R] * w[depth][32]; meanwhile what lies ahead is fetched, `bytes` a step.
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
inline int64_t strip_rows(int64_t left) {
  int64_t rows = kMostRows;
  while (rows > left) rows /= 2;
  return rows;
}

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
  ask_for_large_pages(to, count * depth * kWide * size, false);
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
    return ffi::Error::InvalidArgument("as many results as kernels, or one if gated");

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
