// Attention of few queries over a cache.
//
// Copyright The Letterpress Authors. SPDX-License-Identifier: Apache-2.0
//
// The letters are those of layers/axes.py. `building.py` compiles this file, `rows.py` calls it.

#include <cmath>
#include <vector>

#include "vectors.h"

namespace {

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
  share(pool, B * K, [=](int64_t piece, int64_t) {
    int64_t b = piece / K, head = piece % K;
    int64_t first = std::clamp<int64_t>(offsets[own_offsets ? b : 0], 0, S - T);
    float *old_keys = cached_keys + piece * S * H, *old_values = cached_values + piece * S * H;
    for (int64_t t = 0; t < T; t++) {
      int64_t from = ((b * T + t) * K + head) * H, to = (first + t) * H;
      int64_t angle = b * turn_row + t * H / 2;
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

// Gives its arguments, in place, and asks for large pages for them.
ffi::Error Settle(ffi::RemainingArgs, ffi::RemainingRets arrays) {
  for (size_t i = 0; i < arrays.size(); i++) {
    ffi::AnyBuffer array = **arrays.get<ffi::AnyBuffer>(i);
    ask_for_large_pages(array.untyped_data(), array.size_bytes(), true);
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(letterpress_settle, Settle,
                              ffi::Ffi::Bind().RemainingArgs().RemainingRets());

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
