#include "worker/runner/input_cache.h"

#include <algorithm>

namespace pare::runner {
namespace {

int64_t BytesOf(const storage::Checkpoint& checkpoint) {
  int64_t bytes = 0;
  for (const auto& [name, tensor] : checkpoint.tensors) bytes += static_cast<int64_t>(tensor.bytes().size());
  for (const auto& [name, mask] : checkpoint.masks) bytes += mask.size() / 8;
  return bytes;
}

int64_t BytesOf(const data::Dataset& dataset) {
  int64_t bytes = 0;
  for (const data::Split* split : {&dataset.train, &dataset.test}) {
    bytes += static_cast<int64_t>(split->samples.bytes().size() + split->labels.bytes().size());
  }
  return bytes;
}

Result<data::Dataset> LoadDataset(storage::BlobStore& blobs, const data::DataInfo& info) {
  if (!info.blob.is_none()) {
    ASSIGN_OR_RETURN(storage::BlobView view, blobs.Get(info.blob));
    return data::DecodeDataset(view.bytes, view.keep_alive);
  }
  Result<data::Dataset> dataset = data::Load(info.request);
  // A file that is not on this host is for the user to repair, unlike a blob that the store has lost.
  if (!dataset.ok() && dataset.error().code == ErrorCode::kNotFound) {
    return Error{ErrorCode::kInvalid, dataset.error().message};
  }
  return dataset;
}

}  // namespace

std::shared_ptr<const void> InputCache::Find(const std::string& key) {
  auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.key == key; });
  if (found == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found);
  return entries_.front().value;
}

void InputCache::Insert(std::string key, std::shared_ptr<const void> value, int64_t bytes) {
  if (Find(key) != nullptr) return;
  entries_.push_front({std::move(key), std::move(value), bytes});
  bytes_ += bytes;
  while (bytes_ > max_bytes_ && entries_.size() > 1) {
    bytes_ -= entries_.back().bytes;
    entries_.pop_back();
  }
}

Result<std::shared_ptr<const LoadedCheckpoint>> InputCache::Checkpoint(const Digest& artifact) {
  std::string key = "checkpoint/" + artifact.hex();
  if (auto found = Find(key)) return std::static_pointer_cast<const LoadedCheckpoint>(found);
  auto loaded = std::make_shared<LoadedCheckpoint>();
  ASSIGN_OR_RETURN(loaded->artifact, storage::GetArtifact(blobs_, artifact));
  auto blob = loaded->artifact.blobs.find("checkpoint");
  if (loaded->artifact.kind != "checkpoint" || blob == loaded->artifact.blobs.end()) {
    return Error{ErrorCode::kInvalid, "artifact " + artifact.brief() + " is of kind '" + loaded->artifact.kind +
                                          "', a checkpoint is needed"};
  }
  ASSIGN_OR_RETURN(storage::BlobView view, blobs_.Get(blob->second.digest));
  ASSIGN_OR_RETURN(loaded->checkpoint, storage::DecodeCheckpoint(view.bytes, &blobs_));
  Insert(key, loaded, BytesOf(loaded->checkpoint));
  return std::shared_ptr<const LoadedCheckpoint>(loaded);
}

void InputCache::Remember(const Digest& artifact, LoadedCheckpoint checkpoint) {
  int64_t bytes = BytesOf(checkpoint.checkpoint);
  Insert("checkpoint/" + artifact.hex(), std::make_shared<LoadedCheckpoint>(std::move(checkpoint)), bytes);
}

Result<std::shared_ptr<const data::Dataset>> InputCache::Dataset(const data::DataInfo& info, const Digest& expected) {
  std::string key = "dataset/" + expected.hex();
  if (auto found = Find(key)) return std::static_pointer_cast<const data::Dataset>(found);
  ASSIGN_OR_RETURN(data::Dataset loaded, LoadDataset(blobs_, info));
  auto dataset = std::make_shared<const data::Dataset>(std::move(loaded));
  Digest fingerprint = dataset->fingerprint();
  if (fingerprint != expected) {
    return Error{ErrorCode::kInvalid, "the dataset here has fingerprint " + fingerprint.hex() + ", the recipe was made for " +
                                          expected.hex() + ": the files differ from those it was submitted with"};
  }
  Insert(key, dataset, BytesOf(*dataset));
  return dataset;
}

}  // namespace pare::runner
