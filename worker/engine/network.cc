#include "worker/engine/network.h"

#include <c10/core/InferenceMode.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "model/encoding.h"
#include "worker/collective/collective.h"
#include "worker/engine/batch_statistics.h"
#include "worker/engine/device.h"
#include "worker/engine/exchange.h"
#include "worker/engine/execution_kernels.h"
#include "worker/engine/flush_denormals.h"
#include "worker/engine/kernels.h"
#include "worker/engine/loss.h"
#include "worker/engine/shard_pool.h"
#include "worker/engine/tensors.h"

namespace pare::engine {
namespace {

using model::GraphInfo;
using model::Tensor;
using model::TensorMap;
using model::TensorSpec;

// Tensors start at multiples of 64 bytes: kernels of MKL may round differently for other alignments.
constexpr int64_t kAlignElements = 16;

int64_t RoundUp(int64_t n) { return (n + kAlignElements - 1) / kAlignElements * kAlignElements; }

class TorchNetwork : public Network {
 public:
  TorchNetwork(const model::Graph& graph, GraphInfo info, const NetworkOptions& options, at::Device device)
      : graph_(graph), info_(std::move(info)), options_(options), device_(device),
        pool_(std::min(options.threads, options.shards), [] { at::set_num_threads(1); }) {
    at::set_num_threads(1);
    c10::InferenceMode inference;
    classes_ = info_.shapes[static_cast<size_t>(graph_.IndexOf(graph_.output))].back();
    channels_last_ = WantsChannelsLast();
    for (const std::string& tap : options_.taps) taps_.push_back(graph_.IndexOf(tap));
    LayOut();
    BuildShards();
    if (InGang(options_)) exchange_ = std::make_unique<Exchange>(options_.collective, options_.shards, StatisticsOf(shards_[0]));
  }
  static bool InGang(const NetworkOptions& options) { return options.collective != nullptr && options.collective->ranks() > 1; }

  BatchResult TrainBatch(const SampleSource& samples, std::span<const int64_t> labels, BatchPosition position, const LossOptions& loss) override {
    return Run({samples, labels, {}, {}, true, loss}, position);
  }
  BatchResult EvaluateBatch(const SampleSource& samples, std::span<const int64_t> labels, std::span<float> logits) override {
    return Run({samples, labels, logits, {}, false, {}}, {});
  }
  void Observe(const SampleSource& samples, int64_t n, std::span<float> logits, std::span<const std::span<float>> taps) override {
    CHECK(taps.size() == taps_.size());
    std::vector<int64_t> labels(static_cast<size_t>(n), kNoLabel);
    Run({samples, labels, logits, taps, false, {}}, {});
  }
  void SetExchanged(std::span<const uint8_t> mask) override {
    if (exchange_) exchange_->SetMask(mask);
  }
  std::vector<int64_t> tap_sizes() const override {
    std::vector<int64_t> sizes;
    for (int tap : taps_) sizes.push_back(TapSize(tap));
    return sizes;
  }

  const std::vector<ParameterSlice>& layout() const override { return layout_; }
  std::span<float> parameters() override { return Span(host_flat_); }
  std::span<float> gradients() override { return Span(host_total_); }
  void Pull() override {
    c10::InferenceMode inference;
    if (device_.is_cpu()) return;
    host_flat_.copy_(flat_);
    host_total_.copy_(total_);
  }
  void Push() override {
    c10::InferenceMode inference;
    if (device_.is_cpu()) return;
    flat_.copy_(host_flat_);
    total_.copy_(host_total_);
  }
  int64_t classes() const override { return classes_; }

  TensorMap Weights() const override {
    c10::InferenceMode inference;
    TensorMap weights;
    for (const TensorSpec& spec : info_.tensors) {
      Tensor tensor(spec.dtype, spec.shape);
      at::Tensor host = View(spec).cpu();
      std::memcpy(const_cast<std::byte*>(tensor.bytes().data()), host.const_data_ptr(), tensor.bytes().size());
      weights.emplace(spec.name, std::move(tensor));
    }
    return weights;
  }

  Status SetWeights(const TensorMap& weights) override {
    c10::InferenceMode inference;
    for (const TensorSpec& spec : info_.tensors) {
      auto it = weights.find(spec.name);
      if (it == weights.end()) return Error{ErrorCode::kInvalid, "tensor '" + spec.name + "' is missing"};
      if (it->second.dtype() != spec.dtype || it->second.shape() != spec.shape) {
        return Error{ErrorCode::kInvalid, "tensor '" + spec.name + "' is " + model::ToString(it->second.shape()) + ", the model needs " +
                                              std::string(model::ToString(spec.dtype)) + " " + model::ToString(spec.shape)};
      }
      View(spec).copy_(Wrap(it->second));
    }
    Pull();
    PackWeights();
    return Ok();
  }

  void ForRanges(const std::function<void(size_t, size_t)>& body) override {
    auto size = static_cast<size_t>(total_.numel());
    int ranges = device_.is_cpu() ? pool_.threads() : 1;
    auto each = static_cast<size_t>(RoundUp(static_cast<int64_t>(size) / ranges + 1));
    pool_.Run(ranges, [&](int r) {
      FlushDenormals flush;
      size_t first = std::min(static_cast<size_t>(r) * each, size);
      if (first < size) body(first, std::min(each, size - first));
    });
  }

 private:
  // Trainable parameters and float32 buffers lie in one buffer each, tensors of other types alone.
  struct Slot {
    bool buffer = false;
    int64_t offset = 0;
    at::Tensor alone;
  };

  at::TensorOptions Floats() const { return at::TensorOptions(at::kFloat).device(device_); }
  static std::span<float> Span(at::Tensor& t) { return {t.data_ptr<float>(), static_cast<size_t>(t.numel())}; }

  // The others lie beside the flat buffer: neither gradient nor optimizer state exists for them.
  bool Trains(const TensorSpec& spec) const { return spec.trainable && !options_.frozen.contains(spec.name); }

  void LayOut() {
    int64_t parameters = 0, buffers = 0;
    for (const TensorSpec& spec : info_.tensors) {
      if (spec.dtype != model::DType::kF32) {
        slots_.emplace(spec.name, Slot{true, 0, at::zeros(spec.shape, Floats().dtype(*ScalarTypeOf(spec.dtype)))});
        continue;
      }
      int64_t size = model::ElementCount(spec.shape);
      bool trains = Trains(spec);
      int64_t& end = trains ? parameters : buffers;
      slots_.emplace(spec.name, Slot{!trains, end, {}});
      if (trains) layout_.push_back({spec.name, end, size, spec.prunable});
      end += RoundUp(size);
    }
    flat_ = at::zeros({parameters}, Floats());
    total_ = at::zeros({parameters}, Floats());
    buffers_ = at::zeros({buffers}, Floats());
    host_flat_ = device_.is_cpu() ? flat_ : at::zeros({parameters}, at::kFloat);
    host_total_ = device_.is_cpu() ? total_ : at::zeros({parameters}, at::kFloat);
  }

  static at::Tensor Slice(const at::Tensor& flat, int64_t offset, const model::Shape& shape) {
    return flat.narrow(0, offset, model::ElementCount(shape)).view(shape);
  }
  at::Tensor View(const TensorSpec& spec) const {
    const Slot& slot = slots_.at(spec.name);
    if (slot.alone.defined()) return slot.alone;
    return Slice(slot.buffer ? buffers_ : flat_, slot.offset, spec.shape);
  }

  void BuildShards() {
    shards_.resize(static_cast<size_t>(options_.shards));
    for (size_t s = 0; s < shards_.size(); ++s) {
      // One shard writes its gradients straight into the total.
      shard_gradients_.push_back(shards_.size() == 1 ? total_ : at::zeros({total_.numel()}, Floats()));
      ShardState& shard = shards_[s];
      shard.seed = options_.seed;
      shard.shard = static_cast<int>(s);
      size_t tensor = 0;
      for (size_t i = 0; i < graph_.nodes.size(); ++i) {
        NodeState n;
        n.node = &graph_.nodes[i];
        n.ordinal = static_cast<int>(i);
        auto way = options_.execution.find(n.node->name);
        n.kernel = way == options_.execution.end() ? KernelOf(*n.node) : KernelOf(*n.node, way->second);
        for (const std::string& input : n.node->inputs) {
          n.inputs.push_back(graph_.IndexOf(input));
          n.wants_gradient = n.wants_gradient || shard.nodes[static_cast<size_t>(n.inputs.back())].wants_gradient;
        }
        for (; tensor < info_.tensors.size() && info_.tensors[tensor].node == n.node->name; ++tensor) {
          const TensorSpec& spec = info_.tensors[tensor];
          n.roles.push_back(spec.role);
          n.parameters.push_back(View(spec));
          n.gradients.push_back(Trains(spec) ? Slice(shard_gradients_[s], slots_.at(spec.name).offset, spec.shape) : at::Tensor());
          n.trains = n.trains || Trains(spec);
        }
        n.wants_gradient = n.wants_gradient || n.trains;
        n.in_place = InputIsFree(graph_.nodes[i]);
        shard.nodes.push_back(std::move(n));
      }
    }
  }

  void PackWeights() {
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      NodeState& first = shards_[0].nodes[i];
      if (first.kernel.pack == nullptr) continue;
      first.packed = first.kernel.pack(first);
      for (ShardState& shard : shards_) shard.nodes[i].packed = first.packed;
    }
  }

  // oneDNN's convolutions are a fifth faster with channels innermost once there are enough of them to fill a vector.
  bool WantsChannelsLast() const {
    constexpr int64_t kVectorOfChannels = 16;
    bool any = false;
    for (const model::Node& node : graph_.nodes) {
      const model::Attributes& a = node.attributes;
      if (node.op == model::OpType::kReshape && a.shape.size() == 3) return false;
      if (node.op != model::OpType::kConv2d) continue;
      if (a.groups != 1 || a.out_channels < kVectorOfChannels) return false;
      any = true;
    }
    return any;
  }

  // True if the value of the node's first input is read by this node alone: by no other, and not by the backward of its own.
  bool InputIsFree(const model::Node& node) const {
    if (node.inputs.empty() || node.inputs[0] == graph_.output || std::count(options_.taps.begin(), options_.taps.end(), node.inputs[0]) > 0) return false;
    int64_t readers = 0;
    for (const model::Node& other : graph_.nodes) readers += std::count(other.inputs.begin(), other.inputs.end(), node.inputs[0]);
    using enum model::OpType;
    constexpr std::array kReadsInputsOnly = {kLinear, kConv2d, kBatchNorm2d, kLayerNorm, kAdd, kScale};
    model::OpType producer = graph_.Find(node.inputs[0])->op;
    return readers == 1 && std::count(kReadsInputsOnly.begin(), kReadsInputsOnly.end(), producer) > 0;
  }

  struct Job {
    const SampleSource& samples;
    std::span<const int64_t> labels;
    std::span<float> logits;                // filled, unless empty
    std::span<const std::span<float>> taps;  // likewise
    bool training;
    const LossOptions& loss;
  };

  // Samples [first, first + count) of the batch: sizes differ by at most one, larger slices first.
  static std::pair<int64_t, int64_t> SliceOf(int64_t n, int shards, int shard) {
    int64_t base = n / shards, extra = n % shards;
    return {shard * base + std::min<int64_t>(shard, extra), base + (shard < extra ? 1 : 0)};
  }

  void FillInput(NodeState& input, const SampleSource& samples, int64_t first, int64_t count) {
    std::vector<int64_t> sizes = info_.shapes[0];
    sizes.insert(sizes.begin(), count);
    if (!input.value.defined() || input.value.sizes() != at::IntArrayRef(sizes)) {
      input.value = at::empty(sizes, Floats(), channels_last_ ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
    }
    // One channel lies in memory the same either way.
    if (device_.is_cpu() && (!channels_last_ || sizes[1] == 1)) return samples(first, count, Span(input.value));
    at::Tensor host = at::empty(sizes, at::kFloat);
    samples(first, count, Span(host));
    input.value.copy_(host);
  }

  void RunShard(int index, const Job& job, ShardResult& result) {
    c10::InferenceMode inference;
    FlushDenormals flush;
    ShardState& shard = shards_[static_cast<size_t>(index)];
    auto [first, count] = SliceOf(static_cast<int64_t>(job.labels.size()), options_.shards, index);
    if (count == 0) {
      if (job.training) shard_gradients_[static_cast<size_t>(index)].zero_();
      return;
    }
    FillInput(shard.nodes[0], job.samples, first, count);
    for (NodeState& n : shard.nodes) {
      n.has_gradient = false;
      if (n.node->op != model::OpType::kInput) n.kernel.forward(shard, n);
    }
    NodeState& output = shard.nodes[static_cast<size_t>(graph_.IndexOf(graph_.output))];
    at::Tensor logits = output.value.cpu().contiguous();
    at::Tensor gradient = job.training ? at::empty_like(logits) : at::Tensor();
    auto width = static_cast<size_t>(classes_);
    LossWeights weights{job.loss.label_smoothing, job.loss.temperature, job.loss.hardness};
    double scale = 1.0 / static_cast<double>(job.labels.size());
    for (size_t r = 0; r < static_cast<size_t>(count); ++r) {
      size_t sample = static_cast<size_t>(first) + r;
      std::span<const float> row(logits.data_ptr<float>() + r * width, width);
      std::span<const float> teacher = job.loss.teacher.empty() ? job.loss.teacher : job.loss.teacher.subspan(sample * width, width);
      std::span<float> to = job.training ? std::span(gradient.data_ptr<float>() + r * width, width) : std::span<float>();
      RowLoss loss = LossOfRow(row, job.labels[sample], teacher, weights, scale, to);
      result.loss += loss.loss;
      result.correct += loss.correct;
      result.labelled += loss.labelled;
      if (!job.logits.empty()) std::copy(row.begin(), row.end(), job.logits.begin() + static_cast<int64_t>(sample * width));
    }
    for (size_t t = 0; t < job.taps.size(); ++t) CopyTap(shard, taps_[t], first, job.taps[t]);
    if (!job.training) return;
    output.gradient = gradient.to(device_);
    output.has_gradient = true;
    for (size_t t = 0; t < job.loss.tap_targets.size(); ++t) result.loss += MatchTap(shard, taps_[t], first, job.loss.tap_targets[t], job);
    for (auto n = shard.nodes.rbegin(); n != shard.nodes.rend(); ++n) {
      if (!n->has_gradient || !n->wants_gradient) continue;
      CHECK(n->kernel.backward != nullptr);  // REQUIRES of training: model::CheckTrainable
      n->kernel.backward(shard, *n);
    }
  }

  int64_t TapSize(int tap) const { return model::ElementCount(info_.shapes[static_cast<size_t>(tap)]); }

  void CopyTap(const ShardState& shard, int tap, int64_t first, std::span<float> out) const {
    at::Tensor value = shard.nodes[static_cast<size_t>(tap)].value.cpu().contiguous();
    std::copy_n(value.data_ptr<float>(), value.numel(), out.begin() + first * TapSize(tap));
  }

  // The squared difference of the shard's samples at a tap, as their sum over samples of the mean over elements; its gradient
  // joins what the nodes behind the tap will send.
  double MatchTap(ShardState& shard, int tap, int64_t first, std::span<const float> target, const Job& job) {
    NodeState& node = shard.nodes[static_cast<size_t>(tap)];
    at::Tensor value = node.value.cpu().contiguous(), gradient = at::empty_like(value);
    const float* from = value.data_ptr<float>();
    const float* to = target.data() + first * TapSize(tap);
    auto* out = gradient.data_ptr<float>();
    double weight = job.loss.tap_weight / static_cast<double>(TapSize(tap)), sum = 0;
    double scale = 2.0 * weight / static_cast<double>(job.labels.size());
    for (int64_t i = 0; i < value.numel(); ++i) {
      double difference = static_cast<double>(from[i]) - to[i];
      sum += difference * difference;
      out[i] = static_cast<float>(difference * scale);
    }
    gradient = gradient.to(device_);
    node.gradient = node.has_gradient ? node.gradient + gradient : gradient;
    node.has_gradient = true;
    return weight * sum;
  }

  BatchResult Run(const Job& job, BatchPosition position) {
    std::span<const int64_t> labels = job.labels;
    bool training = job.training;
    CHECK(!labels.empty() && static_cast<int64_t>(labels.size()) <= options_.max_batch);
    for (ShardState& shard : shards_) {
      shard.training = training && !job.loss.evaluation_mode;
      shard.epoch = position.epoch;
      shard.batch = position.batch;
    }
    std::vector<ShardResult> results(shards_.size());
    // A gang shares out what is done for every batch. Gradients in evaluation mode are rare, and sums of single samples' need
    // nobody but one shard.
    bool share = exchange_ != nullptr && training && !job.loss.evaluation_mode;
    auto [first, last] = share ? exchange_->owned() : std::pair(0, options_.shards);
    pool_.Run(last - first, [&, from = first](int s) { RunShard(from + s, job, results[static_cast<size_t>(from + s)]); });
    BatchResult total;
    std::vector<int64_t> samples;
    for (int s = 0; s < options_.shards; ++s) samples.push_back(SliceOf(static_cast<int64_t>(labels.size()), options_.shards, s).second);
    if (share) {
      total.exchanged = SumWithGang(results, samples);
      if (!total.exchanged.ok()) return total;
    }
    for (const ShardResult& r : results) {
      total.loss += r.loss;
      total.correct += r.correct;
      total.labelled += r.labelled;
    }
    total.loss /= static_cast<double>(labels.size());
    if (!training) return total;
    c10::InferenceMode inference;
    FlushDenormals flush;
    if (!share && shards_.size() > 1) SumShards();
    if (!job.loss.evaluation_mode) UpdateRunningStatistics(shards_, samples, info_.shapes);
    return total;
  }

  void SumShards() {
    if (device_.is_cpu()) {
      // Every thread sums, and later updates, the same range of the parameters: it stays in that core's cache.
      ForRanges([&](size_t first, size_t count) {
        std::vector<std::span<float>> buffers;
        for (at::Tensor& g : shard_gradients_) buffers.push_back(Span(g).subspan(first, count));
        Status summed = collective_->SumShards(buffers, options_.shards, Span(total_).subspan(first, count), {});
        CHECK(summed.ok());
      });
      return;
    }
    // The same tree on the device.
    c10::InferenceMode inference;
    for (size_t d = 1; d < shard_gradients_.size(); d *= 2) {
      for (size_t i = 0; i + d < shard_gradients_.size(); i += 2 * d) shard_gradients_[i].add_(shard_gradients_[i + d]);
    }
    total_.copy_(shard_gradients_[0]);
  }

  // `results`: of the owned shards, afterwards of all, and so are the statistics.
  Status SumWithGang(std::span<ShardResult> results, std::span<const int64_t> samples) {
    c10::InferenceMode inference;
    FlushDenormals flush;
    auto [first, last] = exchange_->owned();
    std::vector<std::span<float>> gradients;
    for (int s = first; s < last; ++s) {
      gradients.push_back(Span(shard_gradients_[static_cast<size_t>(s)]));
      exchange_->set_result(s, results[static_cast<size_t>(s)]);
      if (samples[static_cast<size_t>(s)] > 0) SaveStatistics(shards_[static_cast<size_t>(s)], exchange_->statistics(s));
    }
    TRY(exchange_->Sum(gradients, Span(total_)));
    for (int s = 0; s < options_.shards; ++s) {
      if (s >= first && s < last) continue;
      results[static_cast<size_t>(s)] = exchange_->result(s);
      if (samples[static_cast<size_t>(s)] > 0) LoadStatistics(shards_[static_cast<size_t>(s)], exchange_->statistics(s));
    }
    return Ok();
  }

  model::Graph graph_;
  GraphInfo info_;
  NetworkOptions options_;
  at::Device device_;
  int64_t classes_ = 0;
  bool channels_last_ = false;
  std::vector<int> taps_;  // node indices
  std::map<std::string, Slot> slots_;
  std::vector<ParameterSlice> layout_;
  at::Tensor flat_, total_, buffers_;    // on the device
  at::Tensor host_flat_, host_total_;  // the same storage when the device is the CPU
  std::vector<at::Tensor> shard_gradients_;
  std::vector<ShardState> shards_;
  std::unique_ptr<collective::Collective> collective_ = collective::NewLocalCollective();
  std::unique_ptr<Exchange> exchange_;  // null: this process alone
  ShardPool pool_;
};

// Copied, so that a slice always starts at the same alignment.
SampleSource SourceOf(std::span<const float> samples, size_t labels) {
  size_t sample = samples.size() / labels;
  return [samples, sample](int64_t first, int64_t count, std::span<float> out) {
    auto from = samples.subspan(static_cast<size_t>(first) * sample, static_cast<size_t>(count) * sample);
    std::copy(from.begin(), from.end(), out.begin());
  };
}

}  // namespace

BatchResult Network::TrainBatch(std::span<const float> samples, std::span<const int64_t> labels, BatchPosition position, const LossOptions& loss) {
  return TrainBatch(SourceOf(samples, labels.size()), labels, position, loss);
}

BatchResult Network::EvaluateBatch(std::span<const float> samples, std::span<const int64_t> labels, std::span<float> logits) {
  return EvaluateBatch(SourceOf(samples, labels.size()), labels, logits);
}

Result<std::unique_ptr<Network>> Network::Create(const model::Graph& graph, const TensorMap& weights, const NetworkOptions& options) {
  if (options.threads < 1 || options.shards < 1 || options.max_batch < 1) return Error{ErrorCode::kInvalid, "threads, shards and batch must be at least 1"};
  ASSIGN_OR_RETURN(GraphInfo info, model::Analyze(graph));
  if (info.shapes[static_cast<size_t>(graph.IndexOf(graph.output))].size() != 1) {
    return Error{ErrorCode::kInvalid, "the model's output must be one vector of class scores per sample"};
  }
  for (const TensorSpec& spec : info.tensors) {
    if (!ScalarTypeOf(spec.dtype)) return Error{ErrorCode::kInvalid, "tensor '" + spec.name + "' is " + std::string(model::ToString(spec.dtype)) + ", which the engine does not hold"};
  }
  for (const model::Node& node : graph.nodes) {
    if (KernelOf(node).forward == nullptr) {
      return Error{ErrorCode::kInvalid, "node '" + node.name + "': the engine has no " + std::string(model::ToString(node.op)) + " with encoding " +
                                            std::string(model::ToString(node.attributes.encoding))};
    }
  }
  for (const auto& [node, way] : options.execution) {
    const model::Node* found = graph.Find(node);
    if (found == nullptr || KernelOf(*found, way).forward == nullptr || (way == "sparse" && options.device != "cpu")) {
      return Error{ErrorCode::kInvalid, "node '" + node + "' cannot run as '" + way + "'" + (found == nullptr ? ": the model has no such node" : " on " + options.device)};
    }
  }
  for (const std::string& tap : options.taps) {
    if (graph.Find(tap) == nullptr) return Error{ErrorCode::kInvalid, "the model has no node '" + tap + "'"};
  }
  try {
    ASSIGN_OR_RETURN(at::Device device, OpenDevice(options.device));
    if (TorchNetwork::InGang(options) && !device.is_cpu()) {
      return Error{ErrorCode::kInvalid, "device '" + options.device + "' cannot train in a gang: only cpu"};
    }
    auto network = std::make_unique<TorchNetwork>(graph, std::move(info), options, device);
    TRY(network->SetWeights(weights));
    return std::unique_ptr<Network>(std::move(network));
  } catch (const c10::Error& e) {
    return Error{ErrorCode::kInternal, std::string("libtorch: ") + e.what_without_backtrace()};
  }
}

}  // namespace pare::engine
