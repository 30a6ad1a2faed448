// The log of an index (SQLite's index.db-wal), read without SQLite, which ends at the first frame that does not check and
// says nothing: after a power cut that is the end of what was committed, after damage it is a loss.
//
// Format: "The SQLite Database File Format", section 4.1: a header of 32 bytes, then frames of 24 bytes and a page, each with
// the header's salts and a checksum over everything before it; a frame that commits says the database's size.
// A transaction is synced before the next one begins (synchronous=FULL), so only the last one can be torn: a frame that does
// not check and has two commits of the same log behind it is damage. Damage in the last transaction cannot be told from a
// torn one, nor can a log that was cut, deleted, or is shorter than its header, which a power cut leaves that stops its creation.
//
// Except where a process was killed and the system lives: the shared memory beside the log (index.db-shm; "WAL-Mode File Format",
// section 2.1) then says how many of its frames are committed. They were written and synced before that was said, so a log of the same
// salts with fewer is damaged, whatever the moment of the kill. The first connection of any process makes that file anew from the log,
// damaged or not: who wants to know looks before. After a power cut the file is an older one or none, and says less, never too much.
#pragma once

#include <string>

#include "common/result.h"

namespace pare::storage {

// What is wrong with the log beside the index at `path`, in words; empty: nothing, or there is none. Opens no database.
std::string ProblemOfLog(const std::string& path);

// Makes a damaged log one that SQLite reads to its end: its checksums are written anew, up to the last commit before a gap.
// Pages in it may be damaged: rows have checksums of their own. For a copy of the index at `path`; a sound log is left alone.
Status MendLog(const std::string& path);

}  // namespace pare::storage
