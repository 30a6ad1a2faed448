// Operators without parameters, and the table.
#include "worker/engine/kernels.h"

#include "common/random.h"

namespace pare::engine {

void ShardState::AddGrad(const NodeState& n, size_t i, const at::Tensor& g) {
  NodeState& target = nodes[static_cast<size_t>(n.inputs[i])];
  if (!target.has_gradient) {
    target.gradient = g;
    target.has_gradient = true;
  } else {
    // Never in place: the first contribution may be shared with another node's gradient (add, reshape).
    target.gradient = target.gradient + g;
  }
}

namespace {

using S = ShardState;
using N = NodeState;

void Nothing(S&, N&) {}

at::Tensor& Output(N& n, at::IntArrayRef sizes, const at::TensorOptions& options) {
  if (!n.value.defined() || n.value.sizes() != sizes) n.value = at::empty(sizes, options);
  return n.value;
}
// Of the shape and the memory layout of `like`.
void Ready(at::Tensor& t, const at::Tensor& like) {
  if (!t.defined() || t.sizes() != like.sizes() || t.strides() != like.strides()) t = at::empty_like(like);
}
at::Tensor& Output(N& n, const at::Tensor& like) {
  Ready(n.value, like);
  return n.value;
}
at::Tensor& Workspace(N& n, const at::Tensor& like) {
  Ready(n.workspace, like);
  return n.workspace;
}

void ReluForward(S& s, N& n) {
  const at::Tensor& x = s.Input(n, 0);
  if (n.in_place) n.value = x;
  at::clamp_min_out(Output(n, x), x, 0);
}
void ReluBackward(S& s, N& n) {
  at::threshold_backward_out(Workspace(n, n.gradient), n.gradient, n.value, 0);
  s.AddGrad(n, 0, n.workspace);
}

const char* GeluForm(const N& n) { return n.node->attributes.approximate_tanh ? "tanh" : "none"; }
void GeluForward(S& s, N& n) { n.value = at::gelu(s.Input(n, 0), GeluForm(n)); }
void GeluBackward(S& s, N& n) { s.AddGrad(n, 0, at::gelu_backward(n.gradient, s.Input(n, 0), GeluForm(n))); }
void TanhForward(S& s, N& n) { n.value = at::tanh(s.Input(n, 0)); }
void TanhBackward(S& s, N& n) { s.AddGrad(n, 0, at::tanh_backward(n.gradient, n.value)); }
void SigmoidForward(S& s, N& n) { n.value = at::sigmoid(s.Input(n, 0)); }
void SigmoidBackward(S& s, N& n) { s.AddGrad(n, 0, at::sigmoid_backward(n.gradient, n.value)); }
void SiluForward(S& s, N& n) { n.value = at::silu(s.Input(n, 0)); }
void SiluBackward(S& s, N& n) { s.AddGrad(n, 0, at::silu_backward(n.gradient, s.Input(n, 0))); }
void SoftmaxForward(S& s, N& n) { n.value = at::softmax(s.Input(n, 0), n.node->attributes.axis + 1); }
void SoftmaxBackward(S& s, N& n) {
  s.AddGrad(n, 0, at::_softmax_backward_data(n.gradient, n.value, n.node->attributes.axis + 1, at::kFloat));
}

struct Window {
  std::vector<int64_t> kernel, stride, padding;
};
Window WindowOf(const N& n) {
  const model::Attributes& a = n.node->attributes;
  return {{a.kernel_h, a.kernel_w}, {a.stride_h, a.stride_w}, {a.padding_h, a.padding_w}};
}
// The common pooling: windows of 2x2 that do not overlap, on the CPU. ATen keeps 64-bit indices and walks element by element.
bool IsPairPool(const N& n, const at::Tensor& x) {
  const model::Attributes& a = n.node->attributes;
  return x.is_cpu() && x.is_contiguous() && a.kernel_h == 2 && a.kernel_w == 2 && a.stride_h == 2 && a.stride_w == 2 && a.padding_h == 0 &&
         a.padding_w == 0;
}
// Ties go to the first of the window in row-major order, as in ATen; a NaN wins.
void PairPoolRow(const float* top, const float* bottom, float* y, uint8_t* which, int64_t width) {
  auto wins = [](float v, float best) { return !(v <= best); };
  for (int64_t i = 0; i < width; ++i) {
    float a = top[2 * i], b = top[2 * i + 1], c = bottom[2 * i], d = bottom[2 * i + 1];
    bool right = wins(b, a), lower_right = wins(d, c);
    float upper = right ? b : a, lower = lower_right ? d : c;
    bool down = wins(lower, upper);
    y[i] = down ? lower : upper;
    which[i] = static_cast<uint8_t>(down ? (lower_right ? 3 : 2) : (right ? 1 : 0));
  }
}
void PairPoolForward(N& n, const at::Tensor& x) {
  int64_t planes = x.size(0) * x.size(1), h = x.size(2), w = x.size(3), oh = h / 2, ow = w / 2;
  Output(n, {x.size(0), x.size(1), oh, ow}, x.options());
  if (n.saved.empty() || n.saved[0].sizes() != n.value.sizes()) n.saved = {at::empty(n.value.sizes(), at::kByte)};
  const float* from = x.data_ptr<float>();
  for (int64_t p = 0; p < planes; ++p) {
    for (int64_t r = 0; r < oh; ++r) {
      const float* top = from + (p * h + 2 * r) * w;
      int64_t at = (p * oh + r) * ow;
      PairPoolRow(top, top + w, n.value.data_ptr<float>() + at, n.saved[0].data_ptr<uint8_t>() + at, ow);
    }
  }
}
void PairPoolBackward(N& n, const at::Tensor& x, const at::Tensor& gradient) {
  int64_t planes = x.size(0) * x.size(1), h = x.size(2), w = x.size(3), oh = h / 2, ow = w / 2;
  float* out = Workspace(n, x).data_ptr<float>();
  if (h % 2 != 0 || w % 2 != 0) n.workspace.zero_();
  const float* g = gradient.data_ptr<float>();
  const uint8_t* which = n.saved[0].data_ptr<uint8_t>();
  for (int64_t p = 0; p < planes; ++p) {
    for (int64_t r = 0; r < oh; ++r) {
      float* top = out + (p * h + 2 * r) * w;
      float* bottom = top + w;
      for (int64_t i = 0; i < ow; ++i, ++g, ++which) {
        top[2 * i] = *which == 0 ? *g : 0.0f;
        top[2 * i + 1] = *which == 1 ? *g : 0.0f;
        bottom[2 * i] = *which == 2 ? *g : 0.0f;
        bottom[2 * i + 1] = *which == 3 ? *g : 0.0f;
      }
    }
  }
}

void MaxPoolForward(S& s, N& n) {
  if (IsPairPool(n, s.Input(n, 0))) return PairPoolForward(n, s.Input(n, 0));
  Window w = WindowOf(n);
  auto [y, indices] = at::max_pool2d_with_indices(s.Input(n, 0), w.kernel, w.stride, w.padding, {1, 1}, false);
  n.value = y;
  n.saved = {indices};
}
void MaxPoolBackward(S& s, N& n) {
  at::Tensor gradient = n.gradient.contiguous();
  if (IsPairPool(n, s.Input(n, 0))) {
    PairPoolBackward(n, s.Input(n, 0), gradient);
    return s.AddGrad(n, 0, n.workspace);
  }
  Window w = WindowOf(n);
  s.AddGrad(n, 0, at::max_pool2d_with_indices_backward(gradient, s.Input(n, 0), w.kernel, w.stride, w.padding, {1, 1}, false, n.saved[0]));
}
void AvgPoolForward(S& s, N& n) {
  Window w = WindowOf(n);
  n.value = at::avg_pool2d(s.Input(n, 0), w.kernel, w.stride, w.padding, false, true);
}
void AvgPoolBackward(S& s, N& n) {
  Window w = WindowOf(n);
  s.AddGrad(n, 0, at::avg_pool2d_backward(n.gradient.contiguous(), s.Input(n, 0), w.kernel, w.stride, w.padding, false, true, std::nullopt));
}
void GlobalPoolForward(S& s, N& n) { n.value = at::mean(s.Input(n, 0), {2, 3}, true); }
void GlobalPoolBackward(S& s, N& n) {
  const at::Tensor& x = s.Input(n, 0);
  Workspace(n, x).copy_(n.gradient).mul_(1.0 / static_cast<double>(x.size(2) * x.size(3)));
  s.AddGrad(n, 0, n.workspace);
}

void FlattenForward(S& s, N& n) { n.value = s.Input(n, 0).reshape({s.Input(n, 0).size(0), -1}); }
void ReshapeForward(S& s, N& n) {
  std::vector<int64_t> sizes = n.node->attributes.shape;
  sizes.insert(sizes.begin(), s.Input(n, 0).size(0));
  n.value = s.Input(n, 0).reshape(sizes);
}
void ReshapeBackward(S& s, N& n) { s.AddGrad(n, 0, n.gradient.reshape(s.Input(n, 0).sizes())); }

void AddForward(S& s, N& n) {
  n.value = s.Input(n, 0) + s.Input(n, 1);
  for (size_t i = 2; i < n.inputs.size(); ++i) n.value.add_(s.Input(n, i));
}
void AddBackward(S& s, N& n) {
  for (size_t i = 0; i < n.inputs.size(); ++i) {
    if (s.Wants(n, i)) s.AddGrad(n, i, n.gradient);
  }
}
void ConcatForward(S& s, N& n) {
  std::vector<at::Tensor> parts;
  for (size_t i = 0; i < n.inputs.size(); ++i) parts.push_back(s.Input(n, i));
  n.value = at::cat(parts, n.node->attributes.axis + 1);
}
void ConcatBackward(S& s, N& n) {
  int64_t axis = n.node->attributes.axis + 1, at = 0;
  for (size_t i = 0; i < n.inputs.size(); ++i) {
    int64_t length = s.Input(n, i).size(axis);
    if (s.Wants(n, i)) s.AddGrad(n, i, n.gradient.narrow(axis, at, length).contiguous());
    at += length;
  }
}

// The mask is drawn from counters keyed by the batch's position, so it is the same wherever the shard runs.
void DropoutForward(S& s, N& n) {
  double p = n.node->attributes.probability;
  if (!s.training || p == 0) {
    n.value = s.Input(n, 0);
    n.saved.clear();
    return;
  }
  at::Tensor mask = at::empty(s.Input(n, 0).sizes(), at::kFloat);
  RandomStream stream(s.seed, RandomPurpose::kDropout, static_cast<uint64_t>(s.epoch), static_cast<uint64_t>(s.batch),
                      static_cast<uint64_t>(s.shard) << 32 | static_cast<uint64_t>(n.ordinal));
  auto threshold = static_cast<uint32_t>(p * 4294967296.0);
  float keep = static_cast<float>(1.0 / (1.0 - p));
  float* out = mask.data_ptr<float>();
  for (int64_t i = 0, size = mask.numel(); i < size; ++i) out[i] = stream.Bits() < threshold ? 0.0f : keep;
  n.saved = {mask.to(s.Input(n, 0).device())};
  n.value = s.Input(n, 0) * n.saved[0];
}
void DropoutBackward(S& s, N& n) { s.AddGrad(n, 0, n.saved.empty() ? n.gradient : n.gradient * n.saved[0]); }

void ScaleForward(S& s, N& n) { n.value = s.Input(n, 0) * n.node->attributes.factor; }
void ScaleBackward(S& s, N& n) { s.AddGrad(n, 0, n.gradient * n.node->attributes.factor); }

using model::OpType;
constexpr Kernel kTable[] = {
    {OpType::kInput, Nothing, Nothing},
    {OpType::kLinear, kernels::LinearForward, kernels::LinearBackward},
    {OpType::kConv2d, kernels::ConvForward, kernels::ConvBackward},
    {OpType::kBatchNorm2d, kernels::BatchNormForward, kernels::BatchNormBackward},
    {OpType::kLayerNorm, kernels::LayerNormForward, kernels::LayerNormBackward},
    {OpType::kRelu, ReluForward, ReluBackward},
    {OpType::kGelu, GeluForward, GeluBackward},
    {OpType::kTanh, TanhForward, TanhBackward},
    {OpType::kSigmoid, SigmoidForward, SigmoidBackward},
    {OpType::kSilu, SiluForward, SiluBackward},
    {OpType::kSoftmax, SoftmaxForward, SoftmaxBackward},
    {OpType::kMaxPool2d, MaxPoolForward, MaxPoolBackward},
    {OpType::kAvgPool2d, AvgPoolForward, AvgPoolBackward},
    {OpType::kGlobalAvgPool2d, GlobalPoolForward, GlobalPoolBackward},
    {OpType::kFlatten, FlattenForward, ReshapeBackward},
    {OpType::kReshape, ReshapeForward, ReshapeBackward},
    {OpType::kAdd, AddForward, AddBackward},
    {OpType::kConcat, ConcatForward, ConcatBackward},
    {OpType::kDropout, DropoutForward, DropoutBackward},
    {OpType::kEmbedding, kernels::EmbeddingForward, kernels::EmbeddingBackward},
    {OpType::kAttention, kernels::AttentionForward, kernels::AttentionBackward},
    {OpType::kScale, ScaleForward, ScaleBackward},
    {OpType::kPositions, kernels::PositionsForward, Nothing},
    {OpType::kSegments, kernels::SegmentsForward, Nothing},
    {OpType::kKeyMask, kernels::KeyMaskForward, Nothing},
    {OpType::kFirst, kernels::FirstForward, kernels::FirstBackward},
    {OpType::kSequenceMean, kernels::SequenceMeanForward, kernels::SequenceMeanBackward},
    {OpType::kAttentionScores, kernels::AttentionScoresForward, kernels::AttentionScoresBackward},
};
static_assert(std::size(kTable) == model::kOpTypeCount, "every operator of model/graph.h needs a row here");

}  // namespace

const Kernel& KernelOf(model::OpType type) {
  const Kernel& kernel = kTable[static_cast<size_t>(type)];
  CHECK(kernel.type == type);
  return kernel;
}

}  // namespace pare::engine
