#include "worker/engine/batch_statistics.h"

#include <algorithm>

namespace pare::engine {
namespace {

bool TakesStatistics(const NodeState& n) { return n.node->op == model::OpType::kBatchNorm2d && n.trains; }

}  // namespace

size_t StatisticsOf(const ShardState& shard) {
  int64_t floats = 0;
  for (const NodeState& n : shard.nodes) floats += TakesStatistics(n) ? 2 * n.node->attributes.features : 0;
  return static_cast<size_t>(floats);
}

void SaveStatistics(const ShardState& shard, std::span<float> record) {
  for (const NodeState& n : shard.nodes) {
    if (!TakesStatistics(n)) continue;
    for (const at::Tensor& value : n.saved) {
      std::copy_n(value.const_data_ptr<float>(), value.numel(), record.begin());
      record = record.subspan(static_cast<size_t>(value.numel()));
    }
  }
}

void LoadStatistics(ShardState& shard, std::span<const float> record) {
  for (NodeState& n : shard.nodes) {
    if (!TakesStatistics(n)) continue;
    n.saved = {at::empty_like(n.parameters[2]), at::empty_like(n.parameters[3])};
    for (at::Tensor& value : n.saved) {
      std::copy_n(record.begin(), value.numel(), value.data_ptr<float>());
      record = record.subspan(static_cast<size_t>(value.numel()));
    }
  }
}

void UpdateRunningStatistics(std::span<ShardState> shards, std::span<const int64_t> samples, std::span<const model::Shape> shapes) {
  for (size_t i = 0; i < shapes.size(); ++i) {
    NodeState& node = shards[0].nodes[i];
    if (!TakesStatistics(node)) continue;
    const model::Attributes& a = node.node->attributes;
    at::Tensor mean = at::zeros_like(node.parameters[2]), variance = at::zeros_like(node.parameters[3]);
    int used = 0;
    for (size_t s = 0; s < shards.size(); ++s) {
      if (samples[s] == 0) continue;
      const std::vector<at::Tensor>& saved = shards[s].nodes[i].saved;
      double elements = static_cast<double>(samples[s] * shapes[i][1] * shapes[i][2]);
      mean.add_(saved[0]);
      variance.add_(saved[1].pow(-2).sub_(a.epsilon).mul_(elements / std::max(elements - 1.0, 1.0)));
      ++used;
    }
    node.parameters[2].mul_(1.0 - a.momentum).add_(mean, a.momentum / used);
    node.parameters[3].mul_(1.0 - a.momentum).add_(variance, a.momentum / used);
  }
}

}  // namespace pare::engine
