// Compiled with -O3 -ffp-contract=off -fno-math-errno (errno keeps sqrt out of vectors): every element takes the same roundings in the vector body and in the remainder of a
// loop, so bits depend on nothing but the inputs.
#include "worker/engine/optimizer.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "common/simd.h"
#include "worker/engine/flush_denormals.h"

namespace pare::engine {
namespace {

struct SgdStep {
  float rate, momentum, decay, scale;
  bool nesterov, first;
};

// In one pass with the update: a pass of its own over weights and momentum would cost as much as the update again. Bytes, because a
// mask of floats is as much memory traffic as the weights. Bit by bit: a choice between two floats by a byte is not made into vectors. Every
// element depends on its own inputs alone (ivdep).
template <bool kMasked>
[[gnu::always_inline]] inline float Kept(const uint8_t* mask, size_t i, float value) {
  if constexpr (kMasked) return std::bit_cast<float>(std::bit_cast<uint32_t>(value) & (0u - mask[i]));
  else return value;
}

template <bool kMasked>
[[gnu::always_inline]] inline void SgdLoops(float* __restrict p, const float* __restrict g, const uint8_t* __restrict mask, float* __restrict v, size_t n, SgdStep s) {
  if (s.momentum == 0.0f) {
#pragma GCC ivdep
    for (size_t i = 0; i < n; ++i) {
      float d = g[i] * s.scale + s.decay * p[i];
      p[i] = Kept<kMasked>(mask, i, p[i] - s.rate * d);
    }
  } else if (s.nesterov) {
#pragma GCC ivdep
    for (size_t i = 0; i < n; ++i) {
      float d = g[i] * s.scale + s.decay * p[i];
      float u = s.first ? d : s.momentum * v[i] + d;
      v[i] = Kept<kMasked>(mask, i, u);
      p[i] = Kept<kMasked>(mask, i, p[i] - s.rate * (d + s.momentum * u));
    }
  } else {
#pragma GCC ivdep
    for (size_t i = 0; i < n; ++i) {
      float d = g[i] * s.scale + s.decay * p[i];
      float u = s.first ? d : s.momentum * v[i] + d;
      v[i] = Kept<kMasked>(mask, i, u);
      p[i] = Kept<kMasked>(mask, i, p[i] - s.rate * u);
    }
  }
}
PARE_CLONES void SgdKernel(float* __restrict p, const float* __restrict g, float* __restrict v, size_t n, SgdStep s) { SgdLoops<false>(p, g, nullptr, v, n, s); }
PARE_CLONES void MaskedSgdKernel(float* __restrict p, const float* __restrict g, const uint8_t* __restrict mask, float* __restrict v, size_t n, SgdStep s) {
  SgdLoops<true>(p, g, mask, v, n, s);
}

struct AdamStep {
  float beta1, beta2, epsilon, decay, scale, step_size, inverse_root_correction, shrink;
};

template <bool kMasked>
[[gnu::always_inline]] inline void AdamLoop(float* __restrict p, const float* __restrict g, const uint8_t* __restrict mask, float* __restrict m, float* __restrict v,
                                            size_t n, AdamStep s) {
  float left1 = 1.0f - s.beta1, left2 = 1.0f - s.beta2;
#pragma GCC ivdep
  for (size_t i = 0; i < n; ++i) {
    float w = p[i] * s.shrink;
    float d = g[i] * s.scale + s.decay * w;
    float u = m[i] + (d - m[i]) * left1;
    m[i] = Kept<kMasked>(mask, i, u);
    v[i] = s.beta2 * v[i] + left2 * d * d;
    float denominator = std::sqrt(v[i]) * s.inverse_root_correction + s.epsilon;
    p[i] = Kept<kMasked>(mask, i, w - s.step_size * (u / denominator));
  }
}
PARE_CLONES void AdamKernel(float* __restrict p, const float* __restrict g, float* __restrict m, float* __restrict v, size_t n, AdamStep s) {
  AdamLoop<false>(p, g, nullptr, m, v, n, s);
}
PARE_CLONES void MaskedAdamKernel(float* __restrict p, const float* __restrict g, const uint8_t* __restrict mask, float* __restrict m, float* __restrict v, size_t n, AdamStep s) {
  AdamLoop<true>(p, g, mask, m, v, n, s);
}

PARE_CLONES void ScaledKernel(const float* __restrict g, float* __restrict s, size_t n, float weight) {
  for (size_t i = 0; i < n; ++i) s[i] += weight * g[i];
}
PARE_CLONES void SquaresKernel(const float* __restrict g, float* __restrict s, size_t n, float weight) {
  for (size_t i = 0; i < n; ++i) s[i] += weight * (g[i] * g[i]);
}
PARE_CLONES void MovementKernel(const float* __restrict p, const float* __restrict g, float* __restrict s, size_t n) {
  for (size_t i = 0; i < n; ++i) s[i] -= p[i] * g[i];
}

template <typename Kernel>
void OverRanges(size_t size, const ForRanges& ranges, const Kernel& kernel) {
  auto body = [&](size_t first, size_t count) {
    FlushDenormals flush;
    kernel(first, count);
  };
  if (ranges) ranges(body);
  else body(0, size);
}

model::Tensor ToTensor(const std::vector<float>& values) {
  return model::Tensor::Of<float>(model::DType::kF32, {static_cast<int64_t>(values.size())}, values);
}

Status FromTensor(const model::TensorMap& state, const std::string& name, std::vector<float>& values) {
  auto it = state.find(name);
  if (it == state.end() || it->second.dtype() != model::DType::kF32 || it->second.size() != static_cast<int64_t>(values.size())) {
    return Error{ErrorCode::kCorrupt, "optimizer state: '" + name + "' is missing or of another size"};
  }
  auto from = it->second.values<float>();
  std::copy(from.begin(), from.end(), values.begin());
  return Ok();
}

class OptimizerBase : public Optimizer {
 public:
  OptimizerBase(const OptimizerOptions& options, int64_t size) : options_(options), size_(static_cast<size_t>(size)) {}

  model::TensorMap State() const override {
    model::TensorMap state;
    int64_t steps = steps_;
    state.emplace("steps", model::Tensor::Of<int64_t>(model::DType::kI64, {1}, std::span(&steps, 1)));
    for (const auto& [name, values] : buffers_) state.emplace(name, ToTensor(values));
    return state;
  }
  Status SetState(const model::TensorMap& state) override {
    auto it = state.find("steps");
    if (it == state.end() || it->second.dtype() != model::DType::kI64 || it->second.size() != 1) {
      return Error{ErrorCode::kCorrupt, "optimizer state: 'steps' is missing"};
    }
    for (auto& [name, values] : buffers_) TRY(FromTensor(state, name, values));
    steps_ = it->second.values<int64_t>()[0];
    return Ok();
  }

 protected:
  std::vector<float>& Buffer(const char* name) { return buffers_.try_emplace(name, size_, 0.0f).first->second; }
  OptimizerOptions options_;
  size_t size_;
  int64_t steps_ = 0;
  std::map<std::string, std::vector<float>> buffers_;
};

class Sgd : public OptimizerBase {
 public:
  Sgd(const OptimizerOptions& options, int64_t size) : OptimizerBase(options, size) {
    if (options.momentum != 0) velocity_ = Buffer("momentum").data();
  }
  void Step(std::span<float> p, std::span<const float> g, std::span<const uint8_t> mask, double rate, double scale, const ForRanges& ranges) override {
    SgdStep s{static_cast<float>(rate), static_cast<float>(options_.momentum), static_cast<float>(options_.weight_decay),
              static_cast<float>(scale), options_.nesterov, steps_ == 0};
    OverRanges(size_, ranges, [&](size_t at, size_t n) {
      float* v = velocity_ ? velocity_ + at : nullptr;
      if (mask.empty()) SgdKernel(p.data() + at, g.data() + at, v, n, s);
      else MaskedSgdKernel(p.data() + at, g.data() + at, mask.data() + at, v, n, s);
    });
    ++steps_;
  }

 private:
  float* velocity_ = nullptr;
};

class Adam : public OptimizerBase {
 public:
  Adam(const OptimizerOptions& options, int64_t size)
      : OptimizerBase(options, size), m_(Buffer("exp_avg").data()), v_(Buffer("exp_avg_sq").data()) {}
  void Step(std::span<float> p, std::span<const float> g, std::span<const uint8_t> mask, double rate, double scale, const ForRanges& ranges) override {
    ++steps_;
    double t = static_cast<double>(steps_);
    double correction1 = 1.0 - std::pow(options_.beta1, t), correction2 = 1.0 - std::pow(options_.beta2, t);
    bool decoupled = options_.kind == "adamw";
    AdamStep s{static_cast<float>(options_.beta1), static_cast<float>(options_.beta2), static_cast<float>(options_.epsilon),
               decoupled ? 0.0f : static_cast<float>(options_.weight_decay), static_cast<float>(scale),
               static_cast<float>(rate / correction1), static_cast<float>(1.0 / std::sqrt(correction2)),
               decoupled ? static_cast<float>(1.0 - rate * options_.weight_decay) : 1.0f};
    OverRanges(size_, ranges, [&](size_t at, size_t n) {
      if (mask.empty()) AdamKernel(p.data() + at, g.data() + at, m_ + at, v_ + at, n, s);
      else MaskedAdamKernel(p.data() + at, g.data() + at, mask.data() + at, m_ + at, v_ + at, n, s);
    });
  }

 private:
  float* m_;
  float* v_;
};

}  // namespace

std::unique_ptr<Optimizer> Optimizer::Create(const OptimizerOptions& options, int64_t size) {
  CHECK(options.kind == "sgd" || options.kind == "adam" || options.kind == "adamw");
  if (options.kind == "sgd") return std::make_unique<Sgd>(options, size);
  return std::make_unique<Adam>(options, size);
}

void AddScaled(std::span<const float> g, float weight, std::span<float> s, const ForRanges& ranges) {
  CHECK(g.size() == s.size());
  OverRanges(s.size(), ranges, [&](size_t at, size_t n) { ScaledKernel(g.data() + at, s.data() + at, n, weight); });
}

void AddSquares(std::span<const float> g, float weight, std::span<float> s, const ForRanges& ranges) {
  CHECK(g.size() == s.size());
  OverRanges(s.size(), ranges, [&](size_t at, size_t n) { SquaresKernel(g.data() + at, s.data() + at, n, weight); });
}

void AddMovement(std::span<const float> p, std::span<const float> g, std::span<float> s, const ForRanges& ranges) {
  CHECK(p.size() == s.size() && g.size() == s.size());
  OverRanges(s.size(), ranges, [&](size_t at, size_t n) { MovementKernel(p.data() + at, g.data() + at, s.data() + at, n); });
}

// Part of the result: a norm is a sum of sums of so many.
constexpr size_t kBlock = 2048;

double GradientNorm(std::span<const float> gradients) {
  double total = 0;
  for (size_t at = 0; at < gradients.size(); at += kBlock) {
    double sum = 0;
    for (size_t i = at; i < std::min(at + kBlock, gradients.size()); ++i) sum += static_cast<double>(gradients[i]) * gradients[i];
    total += sum;
  }
  return std::sqrt(total);
}

}  // namespace pare::engine
