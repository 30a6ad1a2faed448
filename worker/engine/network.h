// Network: a graph with weights, ready to run forward and backward on a device with libtorch.
//
// Determinism (docs/architecture.md, "Determinism"): a batch is cut into `shards` logical shards of consecutive samples.
// Each shard runs on one thread with one intra-op thread; gradients are summed in the fixed binary-tree order of
// worker/collective; any number of threads gives the same bits. Draws (dropout) are keyed by (seed, epoch, batch, shard).
// In a gang (NetworkOptions.collective) every rank has the whole network and is given the same batches; of a training batch it
// runs the shards it owns, and all ranks have the same bits afterwards. Everything else runs whole on every rank.
//
// All parameters that train lie in one contiguous float buffer in the order of GraphInfo.tensors, gradients and optimizer
// state in parallel buffers: an optimizer step is one pass over memory. Frozen ones lie elsewhere, have no gradient, and
// the backward pass ends where nothing before trains. No torch type appears here, so that callers do
// not pay for torch's headers. Not thread-safe: one caller at a time; it uses its own threads inside.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "common/result.h"
#include "model/graph.h"
#include "model/mask.h"

namespace pare::collective {
class Collective;
}

namespace pare::engine {

struct NetworkOptions {
  std::string device = "cpu";  // "cpu", "cuda", "cuda:1"
  int threads = 1;             // threads that run shards; never changes a result
  int shards = 1;              // logical shards per batch; part of the result
  int64_t max_batch = 128;     // largest batch that will be given
  uint64_t seed = 0;           // for dropout
  // Nodes whose values a caller reads (Observe) or matches (LossOptions.tap_targets).
  std::vector<std::string> taps;
  std::map<std::string, std::string> execution;  // by node, how a linear runs where nothing trains: worker/engine/execution.h
  std::set<std::string> frozen;  // names of tensors that do not train; a batch norm without one that does keeps its statistics
  std::shared_ptr<collective::Collective> collective = nullptr;  // null: this process alone. Others need the device "cpu"
};

// What a training batch is keyed by: draws depend on it, nothing else.
struct BatchPosition {
  int64_t epoch = 0;
  int64_t batch = 0;
};

// What a training batch is trained towards, beside its labels: worker/engine/loss.h.
struct LossOptions {
  double label_smoothing = 0.0;
  // Distillation: the teacher's logits [n, classes]; empty: the labels alone.
  std::span<const float> teacher = {};
  double temperature = 1.0, hardness = 0.0;
  // One per tap, or none at all: what the tap's values should be, [n, elements]. Adds tap_weight times the mean over samples
  // and elements of the squared difference, summed over taps.
  std::vector<std::span<const float>> tap_targets = {};
  double tap_weight = 0.0;
  // Gradients of the network as it is used: running statistics, no dropout. Nothing but gradients() changes.
  bool evaluation_mode = false;
};

struct BatchResult {
  double loss = 0;       // mean over the batch; summed in fixed order
  int64_t correct = 0;   // argmax equals label; ties go to the lowest class
  int64_t labelled = 0;  // samples with a label
  // Of a training batch in a gang: not ok if a rank is gone (kUnreachable) or the waiting was interrupted (kStopped). Then the
  // batch has not happened: parameters and buffers are as before, gradients() and the fields above undefined.
  Status exchanged = Ok();
};

// Where the values of a tensor that trains lie in the flat parameter buffer.
struct ParameterSlice {
  std::string name;
  int64_t offset = 0;
  int64_t size = 0;
  bool prunable = false;
};

// Writes samples [first, first + count) of the batch into `out` ([count, …input shape] float32). Called once per shard, by
// the thread that runs it: reading the data is shared out like the arithmetic, and what was read is in that core's cache.
using SampleSource = std::function<void(int64_t first, int64_t count, std::span<float> out)>;

class Network {
 public:
  // kInvalid: a weight is missing, has another shape or type; an operator or device that cannot be run (names the node), or not
  // in a gang; a tap that is not there.
  static Result<std::unique_ptr<Network>> Create(const model::Graph& graph, const model::TensorMap& weights,
                                                 const NetworkOptions& options);
  virtual ~Network() = default;

  // Forward and backward of one training batch of n = labels.size() samples. Afterwards gradients() holds the mean
  // gradient of the loss; batch-norm statistics are updated. A label may be kNoLabel. REQUIRES: n ≤ max_batch.
  virtual BatchResult TrainBatch(const SampleSource& samples, std::span<const int64_t> labels, BatchPosition position,
                                 const LossOptions& loss) = 0;
  // Positions of the flat buffers whose gradients are of interest: a gang exchanges no others, and they may be zero. Empty: all.
  virtual void SetExchanged(std::span<const uint8_t> mask) = 0;
  // Evaluation mode. `logits` [n, classes] is filled; it may be empty if only the result is wanted.
  virtual BatchResult EvaluateBatch(const SampleSource& samples, std::span<const int64_t> labels, std::span<float> logits) = 0;
  // Evaluation mode, without labels: logits [n, classes] and the values at the taps, one span [n, elements] per tap.
  virtual void Observe(const SampleSource& samples, int64_t n, std::span<float> logits, std::span<const std::span<float>> taps) = 0;
  // Elements of one sample at each tap.
  virtual std::vector<int64_t> tap_sizes() const = 0;
  // The same with samples [n, …input shape] that lie in memory.
  BatchResult TrainBatch(std::span<const float> samples, std::span<const int64_t> labels, BatchPosition position,
                         const LossOptions& loss);
  BatchResult EvaluateBatch(std::span<const float> samples, std::span<const int64_t> labels, std::span<float> logits);

  // body(first, count) over disjoint ranges that together are [0, parameters().size()), on the network's threads. Which
  // ranges they are depends on the threads: body must treat elements alone.
  virtual void ForRanges(const std::function<void(size_t first, size_t count)>& body) = 0;

  virtual const std::vector<ParameterSlice>& layout() const = 0;
  // Host views of the flat buffers; on a CUDA device they are copies refreshed by Pull() and written back by Push().
  virtual std::span<float> parameters() = 0;
  virtual std::span<float> gradients() = 0;
  virtual void Pull() = 0;
  virtual void Push() = 0;

  // All tensors by name, parameters and buffers, copied out of / into the network.
  virtual model::TensorMap Weights() const = 0;
  virtual Status SetWeights(const model::TensorMap& weights) = 0;
  virtual int64_t classes() const = 0;
};

}  // namespace pare::engine
