// Request gc: plan from the committed rows, commit the marks, remove the files (storage/gc.h).
#include <utility>

#include "coordinator/service.h"
#include "storage/gc.h"

namespace pare::coordinator {
namespace {

Result<bool> BoolOr(const Json& args, const char* field, bool otherwise) {
  if (!args.contains(field)) return otherwise;
  return BoolField(args, field);
}

}  // namespace

Result<Json> Service::Collect(const Json& args) {
  ASSIGN_OR_RETURN(bool dry_run, BoolOr(args, "dry_run", false));
  storage::GcOptions options{.now_ms = Time().wall.ms};
  if (args.contains("young_ms")) {
    ASSIGN_OR_RETURN(options.young_ms, IntField(args, "young_ms"));
    if (options.young_ms < 0) return Error{ErrorCode::kInvalid, "field 'young_ms' is negative"};
  }
  if (backend_.collectable == nullptr) return Error{ErrorCode::kConflict, "this coordinator has no store directory, so there is nothing to collect"};
  // What this turn has applied so far counts as well.
  TRY(Flush());
  ASSIGN_OR_RETURN(storage::StoredState stored, backend_.index->Load());
  storage::CollectableBlobs& blobs = *backend_.collectable;
  ASSIGN_OR_RETURN(storage::BlobListing listing, blobs.List());
  storage::GcPlan plan = storage::PlanGc(stored, listing.blobs, options, [&](const storage::BlobFile& file) { return blobs.Manifest(file); });
  Json result = storage::ToJson(plan);
  result["dry_run"] = dry_run;
  if (dry_run) return result;
  ASSIGN_OR_RETURN(auto removal, blobs.Begin());
  std::map<Digest, storage::ArtifactRow*> rows;
  for (storage::ArtifactRow& row : stored.artifacts) rows[row.digest] = &row;
  for (const Digest& digest : plan.artifacts) {
    rows.at(digest)->collected_ms = options.now_ms;
    pending_.rows.push_back(*rows.at(digest));
  }
  Apply(ArtifactsCollected{plan.artifacts});
  TRY(Flush());
  ASSIGN_OR_RETURN(storage::GcResult done, removal->Remove(plan));
  result["removed_blobs"] = done.removed.blobs;
  result["removed_bytes"] = done.removed.bytes;
  result["left_alone"] = done.changed;
  return result;
}

}  // namespace pare::coordinator
