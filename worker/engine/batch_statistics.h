// What the batch norms that train measure on their shards (kernels_layers.cc), and how it becomes running statistics. Inside
// worker/engine only (torch types).
#pragma once

#include <span>
#include <vector>

#include "model/tensor.h"
#include "worker/engine/kernels.h"

namespace pare::engine {

// Mean and inverse deviation per channel, of all of them in graph order: floats of one shard. 0: nothing takes statistics.
size_t StatisticsOf(const ShardState& shard);
// REQUIRES: the shard ran a training batch.
void SaveStatistics(const ShardState& shard, std::span<float> record);
// As if the shard had run here.
void LoadStatistics(ShardState& shard, std::span<const float> record);

// Folds those of all shards into the running statistics, in shard order. `samples`: of each shard; one without is left out.
// `shapes`: of the nodes' values, per sample.
void UpdateRunningStatistics(std::span<ShardState> shards, std::span<const int64_t> samples, std::span<const model::Shape> shapes);

}  // namespace pare::engine
