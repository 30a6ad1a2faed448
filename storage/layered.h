// Layered checkpoints: an artifact of kind "checkpoint" that holds only what differs from another one, an adapter beside a
// frozen network say. Its blob "checkpoint" has the whole graph, and of the tensors and masks only its own; the blobs of
// the checkpoint below it stand in the same manifest with "base/" in front of their roles. What a manifest names stays in
// a store, so a layer can always be read. A checkpoint without "base/checkpoint" is whole.
//
// Thread-compatible.
#pragma once

#include <map>
#include <string>

#include "storage/artifact.h"
#include "storage/checkpoint.h"

namespace pare::storage {

inline constexpr int kMaxLayers = 16;

// The whole checkpoint of an artifact: tensors of the graph's nodes, each from the topmost layer that has it.
// kInvalid: another kind of artifact. kNotFound, kCorrupt: a blob; kCorrupt: a tensor that no layer has, too many layers.
Result<Checkpoint> GetArtifactCheckpoint(BlobStore& blobs, const Artifact& artifact);

// The blobs of a checkpoint as those of the base of another.
std::map<std::string, BlobReference> AsBase(const std::map<std::string, BlobReference>& blobs);

}  // namespace pare::storage
