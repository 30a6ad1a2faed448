// The header of an index's file, read without SQLite, which takes some damaged bytes for a newer format (and opens the file for
// reading only), and says of others that the file is no database.
//
// Format: "The SQLite Database File Format", section 1.3: the first 100 bytes of page 1. Most of them are the same in every index. What
// is written with the first table only (the schema's format and version, the text encoding, the application) may be in the log alone
// and is SQLite's and the index's to judge (storage/index.h).
#pragma once

#include <string>

#include "common/result.h"

namespace pare::storage {

// What is wrong with the header of the index at `path`, in words; empty: nothing, or there is none.
std::string ProblemOfHeader(const std::string& path);

// Writes anew what is the same in every index, the size in pages, and that no page is free. For a copy of the index at `path`, which is
// read and then thrown away. The schema's version and the application stay as they are.
Status MendHeader(const std::string& path);

}  // namespace pare::storage
