#include "tests/simulation/store.h"

namespace pare::simulation {

Status DiskIndex::Commit(std::span<const storage::Row> rows) {
  if (rows.empty()) return Ok();
  if (disk_.full) return Error{ErrorCode::kNoSpace, "index: database or disk is full"};
  if (disk_.dead) return Error{ErrorCode::kIo, "the process is dead"};
  bool after = disk_.torn.value_or(false);
  disk_.dead = disk_.torn.has_value();
  if (disk_.torn && !after) {
    disk_.torn.reset();
    return Error{ErrorCode::kIo, "killed before the transaction"};
  }
  TRY(inner_->Commit(rows));
  ++commits_;
  if (!disk_.torn) return Ok();
  disk_.torn.reset();
  return Error{ErrorCode::kIo, "killed after the transaction"};
}

}  // namespace pare::simulation
