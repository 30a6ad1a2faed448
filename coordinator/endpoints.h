// Where a coordinator listens when nobody says it: a local socket in the store's directory. Thread-safe.
#pragma once

#include <string>

#include "common/result.h"

namespace pare::coordinator {

// "ipc://STORE/NAME.sock". A local socket's path has at most 107 bytes; for a store deeper than that the socket lies in
// /tmp/pare-UID-DIGEST/, a directory of this user alone, the same at every start. kConflict if that is somebody else's.
Result<std::string> DefaultEndpoint(const std::string& store, const std::string& name);

}  // namespace pare::coordinator
