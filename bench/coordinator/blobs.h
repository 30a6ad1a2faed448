// Maintenance of a store with many blobs: how long `pare gc` and `pare fsck` take to find out what they would do.
#pragma once

#include <cstdint>
#include <string>

namespace pare::bench {

// Makes a store of `blobs` small blobs (half of them manifests) with their rows under `directory`, plans a collection and
// examines it, prints both times and removes it.
void MeasureBlobs(const std::string& directory, int64_t blobs);

}  // namespace pare::bench
