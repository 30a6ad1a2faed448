#include "worker/engine/execution.h"

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "model/encoding.h"
#include "worker/engine/execution_kernels.h"
#include "worker/engine/flush_denormals.h"
#include "worker/engine/sparse_matrix.h"
#include "worker/engine/tensors.h"

namespace pare::engine {
namespace {

constexpr double kMaxSparseDensity = 0.5;  // above, no sparse kernel can win
constexpr int kWarmUps = 3;

using kernels::Affine;
using kernels::BiasOf;
using kernels::Rows;
using kernels::SetLinearValue;

struct DenseWeight : PackedWeight {
  explicit DenseWeight(at::Tensor w) : weight(std::move(w)) {}
  at::Tensor weight;
};

struct SparseWeight : PackedWeight {
  explicit SparseWeight(const at::Tensor& w) : matrix({w.const_data_ptr<float>(), static_cast<size_t>(w.numel())}, w.size(0), w.size(1)) {}
  SparseMatrix matrix;
};

std::shared_ptr<const PackedWeight> PackFloat(const NodeState& n) { return std::make_shared<DenseWeight>(DecodedWeight(n).to(n.parameters[0].device())); }

void FloatForward(ShardState& shard, NodeState& n) {
  SetLinearValue(shard, n, Affine(n, Rows(shard.Input(n, 0)), static_cast<const DenseWeight&>(*n.packed).weight));
}

std::shared_ptr<const PackedWeight> PackBfloat16(const NodeState& n) {
  return std::make_shared<DenseWeight>(DecodedWeight(n).to(at::kBFloat16).to(n.parameters[0].device()));
}

void Bfloat16Forward(ShardState& shard, NodeState& n) {
  const at::Tensor& weight = static_cast<const DenseWeight&>(*n.packed).weight;
  at::Tensor y = at::mm(Rows(shard.Input(n, 0)).to(at::kBFloat16), weight.t()).to(at::kFloat), bias = BiasOf(n);
  SetLinearValue(shard, n, bias.defined() ? y.add_(bias) : y);
}

std::shared_ptr<const PackedWeight> PackSparse(const NodeState& n) { return std::make_shared<SparseWeight>(DecodedWeight(n)); }

// The value is a transposed view: whoever reads it next finds the samples of a feature beside each other.
void SparseForward(ShardState& shard, NodeState& n) {
  const SparseMatrix& matrix = static_cast<const SparseWeight&>(*n.packed).matrix;
  at::Tensor xt = Rows(shard.Input(n, 0)).t().contiguous();  // no copy behind another sparse layer
  at::Tensor yt = at::empty({matrix.rows(), xt.size(1)}, xt.options()), bias = BiasOf(n);
  std::span<const float> bias_values;
  if (bias.defined()) bias_values = {bias.const_data_ptr<float>(), static_cast<size_t>(bias.numel())};
  matrix.Multiply(xt.const_data_ptr<float>(), bias_values, xt.size(1), yt.data_ptr<float>());
  SetLinearValue(shard, n, yt.t());
}

bool HasBfloat16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

double DensityOf(const model::Tensor& weight) {
  auto values = weight.values<float>();
  auto zeros = std::count(values.begin(), values.end(), 0.0f);
  return values.empty() ? 1.0 : 1.0 - static_cast<double>(zeros) / static_cast<double>(values.size());
}

// input → node, ready to run.
ShardState Alone(const model::Node& input, const model::Node& node, const model::GraphInfo& info, const model::TensorMap& weights, const std::string& way,
                 const at::Tensor& x) {
  ShardState shard;
  NodeState first, n;
  first.node = &input;
  first.value = x;
  n.node = &node;
  n.inputs = {0};
  for (const model::TensorSpec& spec : info.tensors) {
    if (spec.node != node.name) continue;
    n.roles.push_back(spec.role);
    n.parameters.push_back(Wrap(weights.at(spec.name)).clone());
  }
  n.kernel = KernelOf(node, way);
  if (n.kernel.pack != nullptr) n.packed = n.kernel.pack(n);
  shard.nodes.push_back(std::move(first));
  shard.nodes.push_back(std::move(n));
  return shard;
}

double Milliseconds(ShardState& shard) {
  auto begin = std::chrono::steady_clock::now();
  shard.nodes[1].kernel.forward(shard, shard.nodes[1]);
  at::Tensor out = shard.nodes[1].value.contiguous();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
}

std::string Reason(const LayerExecution& layer, int64_t batch) {
  std::string text;
  char part[64];
  for (const auto& [way, ms] : layer.milliseconds) {
    std::snprintf(part, sizeof part, "%s%s %.3f ms", text.empty() ? "" : ", ", way.c_str(), ms);
    text += part;
  }
  std::snprintf(part, sizeof part, " at batch %lld, %.0f %% of the weights left", static_cast<long long>(batch), 100.0 * layer.density);
  return text + part;
}

}  // namespace

at::Tensor DecodedWeight(const NodeState& n) {
  model::TensorMap tensors;
  for (size_t i = 0; i < n.parameters.size(); ++i) tensors.emplace(n.node->name + "." + n.roles[i], HostView(n.parameters[i]));
  Result<model::Tensor> weight = model::DecodeWeight(*n.node, tensors);
  CHECK(weight.ok());
  return Wrap(*weight).clone();
}

NodeKernel KernelOf(const model::Node& node, std::string_view way) {
  if (way == "encoded") return KernelOf(node);
  if (node.op != model::OpType::kLinear) return {};
  if (way == "float32") return {PackFloat, FloatForward, nullptr};
  if (way == "bfloat16") return {PackBfloat16, Bfloat16Forward, nullptr};
  if (way == "sparse") return {PackSparse, SparseForward, nullptr};
  return {};
}

std::vector<std::string> WaysOf(const model::Node& node, double density) {
  if (node.op != model::OpType::kLinear) return {};
  std::vector<std::string> ways = {"encoded"};
  if (node.attributes.encoding != model::Encoding::kDense) ways.push_back("float32");
  if (HasBfloat16()) ways.push_back("bfloat16");
  if (density <= kMaxSparseDensity) ways.push_back("sparse");
  return ways;
}

Result<std::vector<LayerExecution>> MeasureExecution(const model::Graph& graph, const model::TensorMap& weights, const MeasureOptions& options) {
  if (options.batch < 1 || options.repeats < 1) return Error{ErrorCode::kInvalid, "batch and repeats must be at least 1"};
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(graph));
  c10::InferenceMode inference;
  FlushDenormals flush;
  at::set_num_threads(1);
  std::vector<LayerExecution> layers;
  for (const model::Node& node : graph.nodes) {
    if (node.op != model::OpType::kLinear) continue;
    LayerExecution layer;
    layer.node = node.name;
    ASSIGN_OR_RETURN(model::Tensor weight, model::DecodeWeight(node, weights));
    layer.density = DensityOf(weight);
    const model::Node& input = *graph.Find(node.inputs[0]);
    std::vector<int64_t> sizes = info.shapes[static_cast<size_t>(graph.IndexOf(input.name))];
    sizes.insert(sizes.begin(), options.batch);
    at::Tensor x = at::linspace(-1.0, 1.0, model::ElementCount(sizes), at::kFloat).view(sizes);
    std::vector<std::string> ways = WaysOf(node, layer.density);
    std::vector<ShardState> shards;
    for (const std::string& way : ways) shards.push_back(Alone(input, node, info, weights, way, x));
    std::vector<std::vector<double>> times(ways.size());
    for (int r = 0; r < options.repeats + kWarmUps; ++r) {
      for (size_t w = 0; w < ways.size(); ++w) {
        double ms = Milliseconds(shards[w]);
        if (r >= kWarmUps) times[w].push_back(ms);
      }
    }
    for (size_t w = 0; w < ways.size(); ++w) {
      std::nth_element(times[w].begin(), times[w].begin() + options.repeats / 2, times[w].end());
      layer.milliseconds[ways[w]] = times[w][static_cast<size_t>(options.repeats / 2)];
    }
    layer.way = "encoded";
    double best = layer.milliseconds.at("encoded") / kMinGain;
    for (const auto& [way, ms] : layer.milliseconds) {
      if (way != "encoded" && ms < best) best = ms, layer.way = way;
    }
    layer.reason = layer.way + ": " + Reason(layer, options.batch);
    layers.push_back(std::move(layer));
  }
  return layers;
}

ExecutionPlan PlanOf(const std::vector<LayerExecution>& layers) {
  ExecutionPlan plan;
  for (const LayerExecution& layer : layers) plan[layer.node] = layer.way;
  return plan;
}

}  // namespace pare::engine
