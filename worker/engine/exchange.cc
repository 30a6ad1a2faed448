#include "worker/engine/exchange.h"

#include <algorithm>
#include <cstring>

namespace pare::engine {
namespace {

// So that statistics and results of every record lie where their types may.
size_t RecordBytes(size_t statistics) {
  size_t bytes = sizeof(ShardResult) + statistics * sizeof(float);
  return (bytes + sizeof(double) - 1) / sizeof(double) * sizeof(double);
}

}  // namespace

Exchange::Exchange(std::shared_ptr<collective::Collective> collective, int shards, size_t statistics)
    : collective_(std::move(collective)), shards_(shards), record_(RecordBytes(statistics)),
      records_(record_ * static_cast<size_t>(shards)) {}

void Exchange::SetMask(std::span<const uint8_t> mask) {
  masked_ = !mask.empty();
  kept_.clear();
  for (size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] != 0) kept_.push_back(static_cast<uint32_t>(i));
  }
  auto [first, last] = owned();
  compact_.assign(masked_ ? static_cast<size_t>(last - first) : 0, std::vector<float>(kept_.size()));
  compact_total_.resize(kept_.size());
}

ShardResult Exchange::result(int shard) const {
  ShardResult result;
  std::memcpy(&result, records_.data() + static_cast<size_t>(shard) * record_, sizeof result);
  return result;
}

void Exchange::set_result(int shard, const ShardResult& result) {
  std::memcpy(records_.data() + static_cast<size_t>(shard) * record_, &result, sizeof result);
}

std::span<float> Exchange::statistics(int shard) {
  std::byte* at = records_.data() + static_cast<size_t>(shard) * record_ + sizeof(ShardResult);
  return {reinterpret_cast<float*>(at), (record_ - sizeof(ShardResult)) / sizeof(float)};
}

Status Exchange::Sum(std::span<const std::span<float>> gradients, std::span<float> total) {
  if (!masked_) return collective_->SumShards(gradients, shards_, total, records_);
  std::vector<std::span<float>> buffers;
  for (size_t s = 0; s < gradients.size(); ++s) {
    for (size_t k = 0; k < kept_.size(); ++k) compact_[s][k] = gradients[s][kept_[k]];
    buffers.push_back(compact_[s]);
  }
  TRY(collective_->SumShards(buffers, shards_, compact_total_, records_));
  std::fill(total.begin(), total.end(), 0.0f);
  for (size_t k = 0; k < kept_.size(); ++k) total[kept_[k]] = compact_total_[k];
  return Ok();
}

}  // namespace pare::engine
