// gc, fsck, backup: looking after a store.
#include <cstdio>
#include <filesystem>

#include "cli/commands.h"
#include "cli/render.h"
#include "common/plural.h"
#include "storage/backup.h"
#include "storage/fsck.h"

namespace pare::cli {
namespace {

std::string Amount(const Json& tally) { return Plural(tally.value("blobs", int64_t{0}), "blob") + ", " + HumanBytes(tally.value("bytes", int64_t{0})); }

std::string RenderGc(const Json& result) {
  bool dry_run = result.value("dry_run", false);
  std::string out;
  for (const Json& tally : result["kept"]) out += "keep    " + Amount(tally) + ": " + tally.value("reason", "") + "\n";
  for (const Json& tally : result["removed"]) out += "remove  " + Amount(tally) + ": " + tally.value("reason", "") + "\n";
  if (dry_run) {
    for (const Json& removal : result["remove"]) {
      out += "  " + removal.value("blob", "") + "  " + HumanBytes(removal.value("bytes", int64_t{0})) + "  " + removal.value("reason", "") + "\n";
    }
    return out + "would remove " + Amount(result) + "; nothing is removed without leaving out --dry-run\n";
  }
  int64_t left = result.value("left_alone", int64_t{0});
  return out + "removed " + Plural(result.value("removed_blobs", int64_t{0}), "blob") + ", " + HumanBytes(result.value("removed_bytes", int64_t{0})) +
         (left > 0 ? "; " + std::to_string(left) + (left == 1 ? " was" : " were") + " wanted again meanwhile and " + (left == 1 ? "stays" : "stay") : "") + "\n";
}

int Collect(const Target& target, bool dry_run, const std::optional<int>& age) {
  Json args = {{"dry_run", dry_run}};
  if (age) args["young_ms"] = int64_t{*age} * 1000;
  return Ask(target, "gc", args, RenderGc);
}

std::string RenderFsck(const storage::FsckReport& report) {
  std::string out;
  for (const storage::FsckProblem& p : report.problems) {
    out += p.kind + " " + p.name + ": " + p.text + (p.action.empty() ? "" : " → " + p.action) + "\n";
  }
  for (const storage::FsckLoss& l : report.losses) out += "lost: " + l.what + " " + l.name + ": " + l.text + "\n";
  out += Plural(report.blobs, "blob") + ", " + HumanBytes(report.bytes) + " examined: ";
  if (report.clean()) return out + "clean\n";
  return out + Plural(report.problems.size(), "problem") + "\n";
}

int Examine(const Target& target, bool repair) {
  if (!target.coordinator.empty()) {
    return Fail({ErrorCode::kInvalid, "fsck examines a store's directory: run it on the coordinator's host with --store DIR"}, target.json);
  }
  auto report = storage::Fsck(storage::StorePaths(target.store), repair);
  if (!report.ok()) {
    Error error = report.error();
    if (error.code == ErrorCode::kConflict) error.message += "; --repair needs the store for itself: end the coordinator first";
    return Fail(error, target.json);
  }
  std::fputs((target.json ? Canonical(storage::ToJson(*report)) + "\n" : RenderFsck(*report)).c_str(), stdout);
  if (!report->clean() && !repair && !target.json) std::fputs("`pare fsck --repair` heals what can be healed\n", stdout);
  return report->clean() ? 0 : 1;
}

int BackUp(const Target& target, const std::string& directory) {
  if (!target.coordinator.empty()) {
    return Fail({ErrorCode::kInvalid, "backup copies a store's directory: run it on the coordinator's host with --store DIR"}, target.json);
  }
  auto report = storage::BackUp(storage::StorePaths(target.store), directory);
  if (!report.ok()) return Fail(report.error(), target.json);
  std::string place = std::filesystem::absolute(directory).lexically_normal().string();
  if (target.json) {
    std::printf("%s\n", Canonical({{"directory", place}, {"blobs", report->blobs}, {"bytes", report->bytes}, {"copied_blobs", report->copied_blobs},
                                   {"copied_bytes", report->copied_bytes}, {"missing", report->missing}}).c_str());
  } else {
    std::printf("backup of %s in %s: %s, %s (%lld of them new); use it with --store %s\n", target.store.c_str(), place.c_str(),
                Plural(report->blobs, "blob").c_str(), HumanBytes(report->bytes).c_str(), static_cast<long long>(report->copied_blobs), place.c_str());
    for (const std::string& digest : report->missing) std::printf("missing: blob %s is not in the store, or damaged; see `pare fsck`\n", digest.c_str());
  }
  return report->missing.empty() ? 0 : 1;
}

}  // namespace

void AddStoreCommands(CLI::App& app, Context& context) {
  struct Gc { bool dry_run = false; std::optional<int> age; };
  auto gc = std::make_shared<Gc>();
  CLI::App* command = AddCommand(app, context, "gc", "Removes blobs that no job, model, snapshot or running step needs, by the `keep` rules of recipes.", "pare gc --dry-run");
  command->group("System");
  command->add_flag("--dry-run", gc->dry_run, "show the plan with bytes and reasons, remove nothing");
  AddCount(command, "--min-age", gc->age, 0, 1'000'000'000, "leave blobs alone that nothing names yet and that are younger, in seconds; default 3600");
  command->callback([&context, gc] { context.action = [&context, gc] { return Collect(context.target, gc->dry_run, gc->age); }; });

  auto repair = std::make_shared<bool>(false);
  command = AddCommand(app, context, "fsck", "Examines a store: every blob's digest, every reference, every row. Exit code 0 if it is clean, 1 if not.", "pare fsck --repair");
  command->group("System");
  command->add_flag("--repair", *repair, "rebuild a damaged index, put damaged blobs aside, let lost results be computed again");
  command->callback([&context, repair] { context.action = [&context, repair] { return Examine(context.target, *repair); }; });

  auto directory = std::make_shared<std::string>();
  command = AddCommand(app, context, "backup", "Copies a store as it is at one moment, also while jobs run; the copy is a store.", "pare backup pare-backup");
  command->group("System");
  command->add_option("DIR", *directory, "directory that is empty, absent, or holds an older backup")->required()->type_name("");
  command->callback([&context, directory] { context.action = [&context, directory] { return BackUp(context.target, *directory); }; });
}

}  // namespace pare::cli
