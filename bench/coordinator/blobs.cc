#include "bench/coordinator/blobs.h"

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "bench/coordinator/cluster.h"
#include "storage/fsck.h"
#include "storage/gc.h"

namespace pare::bench {
namespace {

constexpr double kBarSeconds = 2;

// Not durable: what is lost in a power cut here is a benchmark.
void Write(const storage::StorePaths& paths, const Digest& digest, const std::string& bytes) {
  std::ofstream file(paths.blob(digest), std::ios::binary);
  if (!(file << bytes).flush()) Die("cannot write " + paths.blob(digest));
}

void Fill(const storage::StorePaths& paths, storage::Index& index, int64_t steps) {
  for (int prefix = 0; prefix < 256; ++prefix) {
    char name[3];
    std::snprintf(name, sizeof name, "%02x", static_cast<unsigned>(prefix));
    std::filesystem::create_directories(paths.blobs() + "/" + name);
  }
  std::vector<storage::Row> rows;
  for (int64_t i = 0; i < steps; ++i) {
    Json spec = {{"kind", "train"}, {"params", {{"number", i}}}};
    StepKey key(DigestOf(Canonical(spec)).bytes());
    std::string bytes = "checkpoint " + std::to_string(i);
    Digest blob = DigestOf(bytes);
    Write(paths, blob, bytes);
    storage::Artifact artifact{.kind = "checkpoint", .step = key, .blobs = {{"checkpoint", {blob, static_cast<int64_t>(bytes.size())}}}};
    Json manifest = storage::ToJson(artifact);
    std::string text = Canonical(manifest);
    Digest digest = DigestOf(text);
    Write(paths, digest, text);
    // In an order in which no row refers to one that comes later, as a coordinator writes them: while a reference is open, SQLite looks
    // through all rows for others at every insertion.
    rows.push_back(storage::StepRow{.key = key, .kind = "train", .spec = spec, .state = "running"});
    rows.push_back(storage::ArtifactRow{.digest = digest, .key = key, .manifest = manifest, .bytes = static_cast<int64_t>(bytes.size()), .created_ms = 1});
    rows.push_back(storage::StepRow{.key = key, .kind = "train", .spec = spec, .state = "done", .artifact = digest});
  }
  if (Status status = index.Commit(rows); !status.ok()) Die(status.error().message);
}

constexpr int64_t kBarBlobs = 100'000;

const char* Verdict(double seconds, size_t blobs) {
  if (seconds > kBarSeconds) return "NOT MET";
  return blobs < static_cast<size_t>(kBarBlobs) ? "smaller than the bar's size" : "met";
}

}  // namespace

void MeasureBlobs(const std::string& directory, int64_t blobs) {
  std::string root = directory + "/blob-store";
  {
    auto store = storage::Store::Open(root);
    if (!store.ok()) Die(store.error().message);
    Fill((*store)->paths(), (*store)->index(), blobs / 2);
    storage::StorePaths paths(root);
    double begun = Now();
    auto state = (*store)->index().Load();
    auto listing = storage::ListBlobs(paths);
    if (!state.ok() || !listing.ok()) Die("the store cannot be read");
    double read = Now() - begun;
    storage::GcPlan plan = storage::PlanGc(*state, listing->blobs, {.now_ms = int64_t{1} << 60}, storage::ManifestReader(paths));
    double took = Now() - begun;
    std::printf("collection of %zu blobs planned: %.2f s (index and directory %.2f, plan %.2f), %zu to be removed; bar %.0f s: %s\n", listing->blobs.size(),
                took, read, took - read, plan.removals.size(), kBarSeconds, Verdict(took, listing->blobs.size()));
  }
  double begun = Now();
  auto report = storage::Fsck(storage::StorePaths(root), false);
  double took = Now() - begun;
  if (!report.ok()) Die(report.error().message);
  std::printf("fsck of %lld blobs, every byte hashed: %.2f s, %zu problems; bar %.0f s: %s\n", static_cast<long long>(report->blobs), took, report->problems.size(),
              kBarSeconds, Verdict(took, static_cast<size_t>(report->blobs)));
  std::filesystem::remove_all(root);
}

}  // namespace pare::bench
