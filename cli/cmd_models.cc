// models, promote, rollback, export.
#include <cstdio>
#include <filesystem>

#include "cli/commands.h"
#include "cli/render.h"
#include "common/files.h"
#include "model/safetensors.h"
#include "storage/artifact.h"
#include "storage/checkpoint.h"
#include "storage/store.h"

namespace pare::cli {
namespace {

namespace fs = std::filesystem;

int Ask(const Target& target, const std::string& method, const Json& args, const std::function<std::string(const Json&)>& render) {
  auto connection = Connect(target);
  if (!connection.ok()) return Fail(connection.error(), target.json);
  auto result = (*connection)->Call(method, args);
  if (!result.ok()) return Fail(result.error(), target.json);
  std::fputs((target.json ? Canonical(*result) + "\n" : render(*result)).c_str(), stdout);
  return 0;
}

// "fashion-lenet@3" → name and version; 0: the champion.
Result<std::pair<std::string, int64_t>> ParseName(const std::string& text) {
  size_t at = text.find('@');
  if (at == std::string::npos) return std::pair<std::string, int64_t>(text, 0);
  std::string version = text.substr(at + 1);
  if (version.empty() || version.size() > 9 || version.find_first_not_of("0123456789") != std::string::npos) {
    return Error{ErrorCode::kInvalid, "'" + text + "': expected NAME or NAME@VERSION with a version number"};
  }
  return std::pair<std::string, int64_t>(text.substr(0, at), std::stoll(version));
}

Status WriteExport(const std::string& directory, const storage::Checkpoint& checkpoint, const Json& model, const Json& manifest) {
  TRY(model::WriteSafetensors(directory + "/model.safetensors", checkpoint.tensors, {{"format", "pt"}}));
  TRY(WriteFileDurably(directory + "/graph.json", model::ToJson(checkpoint.graph).dump(2) + "\n"));
  Json config = {{"name", model["name"]}, {"version", model["version"]}, {"artifact", model["artifact"]}, {"step", manifest.value("step", "")},
                 {"evidence", model.value("evidence", Json::object())}, {"data", checkpoint.notes.value("data", Json())}, {"results", manifest["results"]}};
  return WriteFileDurably(directory + "/config.json", config.dump(2) + "\n");
}

Status Export(const Target& target, const std::string& name, const std::string& directory, bool force) {
  ASSIGN_OR_RETURN(auto wanted, ParseName(name));
  std::error_code code;
  if (fs::exists(directory, code) && (!fs::is_directory(directory, code) || (!fs::is_empty(directory, code) && !force))) {
    return Error{ErrorCode::kInvalid, directory + " exists and is not an empty directory; choose another, or give --force"};
  }
  ASSIGN_OR_RETURN(auto connection, Connect(target));
  ASSIGN_OR_RETURN(Json model, connection->Call("resolve_model", {{"name", wanted.first}, {"version", wanted.second}}));
  ASSIGN_OR_RETURN(Json ping, connection->Call("ping", Json::object()));
  auto blobs = storage::OpenBlobDirectory(storage::StorePaths(ping.value("store", target.store)));
  ASSIGN_OR_RETURN(Digest digest, DigestField(model, "artifact"));
  ASSIGN_OR_RETURN(storage::Artifact artifact, storage::GetArtifact(*blobs, digest));
  auto reference = artifact.blobs.find("checkpoint");
  if (reference == artifact.blobs.end()) return Error{ErrorCode::kCorrupt, "artifact " + digest.hex() + " holds no checkpoint"};
  ASSIGN_OR_RETURN(storage::BlobView view, blobs->Get(reference->second.digest));
  ASSIGN_OR_RETURN(storage::Checkpoint checkpoint, storage::DecodeCheckpoint(view.bytes));
  // Written beside the target and renamed: a reader sees the whole export or none.
  std::string temporary = fs::absolute(directory).lexically_normal().string();
  while (temporary.size() > 1 && temporary.back() == '/') temporary.pop_back();
  std::string final = temporary;
  temporary += ".partial";
  fs::remove_all(temporary, code);
  TRY(MakeDirectories(temporary));
  Status written = WriteExport(temporary, checkpoint, model, storage::ToJson(artifact));
  if (!written.ok()) {
    fs::remove_all(temporary, code);
    return written;
  }
  fs::remove_all(final, code);
  fs::rename(temporary, final, code);
  if (code) return SystemError("cannot rename " + temporary + " to " + final, code.value());
  if (target.json) std::printf("%s\n", Canonical({{"directory", final}, {"name", model["name"]}, {"version", model["version"]}, {"artifact", model["artifact"]}}).c_str());
  else std::printf("%s@%s → %s (model.safetensors, graph.json, config.json)\n", model["name"].get<std::string>().c_str(), Canonical(model["version"]).c_str(), final.c_str());
  return Ok();
}

}  // namespace

void AddModelCommands(CLI::App& app, Context& context) {
  CLI::App* command = AddCommand(app, context, "models", "Lists the promoted models, their versions and aliases.", "pare models");
  command->callback([&context] { context.action = [&context] { return Ask(context.target, "models", Json::object(), RenderModels); }; });

  struct Promote { std::string name, job, step; int64_t version = 0; };
  auto promote = std::make_shared<Promote>();
  command = AddCommand(app, context, "promote", "Makes a version, or a job's candidate, the champion of a model.", "pare promote fashion-lenet --job last --step gradual-90/02-retrain");
  command->add_option("NAME", promote->name, "name of the model")->required();
  command->add_option("--version", promote->version, "an existing version");
  command->add_option("--job", promote->job, "with --step: a candidate of this job becomes a new version");
  command->add_option("--step", promote->step, "name of the candidate's step");
  auto moved = [](const Json& r) { return r.value("name", "") + ": champion is now version " + Canonical(r["version"]) + " (was " + Canonical(r["previous"]) + ")\n"; };
  command->callback([&context, promote, moved] {
    context.action = [&context, promote, moved] {
      bool by_version = promote->version > 0, by_step = !promote->step.empty();
      if (by_version == by_step) return Fail({ErrorCode::kInvalid, "promote: give either --version N, or --job JOB and --step STEP"}, context.target.json);
      Json args = {{"name", promote->name}};
      if (by_version) args["version"] = promote->version;
      else args["job"] = promote->job.empty() ? "last" : promote->job, args["step"] = promote->step;
      return Ask(context.target, "promote", args, moved);
    };
  });

  auto rollback = std::make_shared<std::string>();
  command = AddCommand(app, context, "rollback", "Makes the previous champion of a model the champion again.", "pare rollback fashion-lenet");
  command->add_option("NAME", *rollback, "name of the model")->required();
  command->callback([&context, rollback, moved] {
    context.action = [&context, rollback, moved] { return Ask(context.target, "rollback", {{"name", *rollback}}, moved); };
  });

  struct ExportOptions { std::string name, directory; bool force = false; };
  auto options = std::make_shared<ExportOptions>();
  command = AddCommand(app, context, "export", "Writes a promoted model as safetensors with its graph and lineage.", "pare export fashion-lenet out/");
  command->add_option("NAME", options->name, "NAME or NAME@VERSION")->required();
  command->add_option("DIR", options->directory, "directory to write")->required();
  command->add_flag("--force", options->force, "replace what is in the directory");
  command->callback([&context, options] {
    context.action = [&context, options] {
      Status status = Export(context.target, options->name, options->directory, options->force);
      return status.ok() ? 0 : Fail(status.error(), context.target.json);
    };
  });
}

}  // namespace pare::cli
