// Backup: a consistent copy of a store, also while jobs run: the index of one moment, and every blob that it names. The copy
// is a store: a coordinator opens it and goes on where the moment was. Belongs to one thread.
#pragma once

#include <string>
#include <vector>

#include "storage/store.h"

namespace pare::storage {

struct BackupReport {
  int64_t blobs = 0, bytes = 0;       // that the copy holds
  int64_t copied_blobs = 0, copied_bytes = 0;  // of these, not there before: an older backup is brought up to date
  std::vector<std::string> missing;  // blobs that the store lacks or has damaged: pare fsck says more
};

// `target`: a directory that is not there, is empty, or holds an older backup (which stays whole until the new one is).
// kInvalid for anything else, and for a place in the store itself; kNoSpace, kIo as usual.
Result<BackupReport> BackUp(const StorePaths& store, const std::string& target);

}  // namespace pare::storage
