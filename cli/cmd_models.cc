// models, promote, rollback, export.
#include <cstdio>
#include <filesystem>

#include "cli/commands.h"
#include "cli/render.h"
#include "common/files.h"
#include "model/encoding.h"
#include "model/safetensors.h"
#include "storage/artifact.h"
#include "storage/checkpoint.h"
#include "storage/layered.h"

namespace pare::cli {
namespace {

namespace fs = std::filesystem;

// "fashion-lenet@3" → name and version; 0: the champion.
Result<std::pair<std::string, int64_t>> ParseName(const std::string& text) {
  size_t at = text.find('@');
  if (at == std::string::npos) return std::pair<std::string, int64_t>(text, 0);
  std::string version = text.substr(at + 1);
  if (version.empty() || version.size() > 9 || version.find_first_not_of("0123456789") != std::string::npos || std::stoll(version) == 0) {
    return Error{ErrorCode::kInvalid, "'" + text + "': expected NAME or NAME@VERSION with a version number"};
  }
  return std::pair<std::string, int64_t>(text.substr(0, at), std::stoll(version));
}

constexpr const char* kTensors = "model.safetensors";
constexpr const char* kGraph = "graph.json";
constexpr const char* kConfig = "config.json";

Status WriteExport(const std::string& directory, const storage::Checkpoint& checkpoint, const Json& model, const Json& manifest) {
  TRY(model::WriteSafetensors(directory + "/" + kTensors, checkpoint.tensors, {{"format", "pt"}}));
  TRY(WriteFileDurably(directory + "/" + kGraph, model::ToJson(checkpoint.graph).dump(2) + "\n"));
  // What the types in the file mean, for somebody who has it and a tensor library.
  Json encodings = Json::object();
  for (const model::Node& node : checkpoint.graph.nodes) {
    const model::EncodingRow& row = model::RowOf(node.attributes.encoding);
    if (row.encoding != model::Encoding::kDense) encodings[std::string(row.name)] = row.export_note;
  }
  Json config = {{"name", model["name"]}, {"version", model["version"]}, {"artifact", model["artifact"]}, {"step", manifest.value("step", "")},
                 {"evidence", model.value("evidence", Json::object())}, {"data", checkpoint.notes.value("data", Json())}, {"results", manifest["results"]}};
  if (!encodings.empty()) config["encodings"] = std::move(encodings);
  return WriteFileDurably(directory + "/" + kConfig, config.dump(2) + "\n");
}

// An export goes where nothing is; with `force` also where an older export is, and nothing else.
Status CheckPlace(const std::string& directory, bool force) {
  if (directory.empty()) return Error{ErrorCode::kInvalid, "export: the directory's name is empty"};
  std::error_code code;
  if (!fs::exists(directory, code)) return Ok();
  if (!fs::is_directory(directory, code)) return Error{ErrorCode::kInvalid, directory + " exists and is not a directory; choose another"};
  for (const auto& entry : fs::directory_iterator(directory, code)) {
    std::string name = entry.path().filename().string();
    if (!force) return Error{ErrorCode::kInvalid, directory + " is not empty; choose another directory, or replace an older export with --force"};
    if (name != kTensors && name != kGraph && name != kConfig) {
      return Error{ErrorCode::kInvalid, directory + " holds '" + name + "', which is not of an export: --force does not remove it; choose another directory"};
    }
  }
  return code ? Status(SystemError("cannot read " + directory, code.value())) : Ok();
}

struct Exported {
  Json model, manifest;
  storage::Checkpoint checkpoint;
};

Result<Exported> FetchModel(const Target& target, const std::string& name) {
  ASSIGN_OR_RETURN(auto wanted, ParseName(name));
  ASSIGN_OR_RETURN(auto connection, Connect(target));
  ASSIGN_OR_RETURN(Json model, connection->Call("resolve_model", {{"name", wanted.first}, {"version", wanted.second}}));
  ASSIGN_OR_RETURN(auto blobs, OpenBlobs(*connection));
  ASSIGN_OR_RETURN(Digest digest, DigestField(model, "artifact"));
  auto read = [&]() -> Result<Exported> {
    ASSIGN_OR_RETURN(storage::Artifact artifact, storage::GetArtifact(*blobs, digest));
    ASSIGN_OR_RETURN(storage::Checkpoint checkpoint, storage::GetArtifactCheckpoint(*blobs, artifact));
    return Exported{model, storage::ToJson(artifact), std::move(checkpoint)};
  };
  auto exported = read();
  if (exported.ok()) return exported;
  Error error = exported.error().With("artifact " + digest.brief() + " of " + name);
  if (error.code == ErrorCode::kNotFound) error.code = ErrorCode::kCorrupt;  // the model is there, its bytes are not
  return error;
}

Status Export(const Target& target, const std::string& name, const std::string& directory, bool force) {
  TRY(CheckPlace(directory, force));
  ASSIGN_OR_RETURN(Exported exported, FetchModel(target, name));
  std::string place = fs::absolute(directory).lexically_normal().string();
  while (place.size() > 1 && place.back() == '/') place.pop_back();
  // Written beside it and renamed: a reader sees the whole export or none.
  std::string temporary = place + ".pare-partial";
  std::error_code code;
  fs::remove_all(temporary, code);
  TRY(MakeDirectories(temporary));
  Status written = WriteExport(temporary, exported.checkpoint, exported.model, exported.manifest);
  if (!written.ok()) {
    fs::remove_all(temporary, code);
    return written;
  }
  fs::remove_all(place, code);
  fs::rename(temporary, place, code);
  if (code) return SystemError("cannot rename " + temporary + " to " + place, code.value());
  const Json& model = exported.model;
  if (target.json) std::printf("%s\n", Canonical({{"directory", place}, {"name", model["name"]}, {"version", model["version"]}, {"artifact", model["artifact"]}}).c_str());
  else std::printf("%s@%s → %s (%s, %s, %s)\n", model["name"].get<std::string>().c_str(), Canonical(model["version"]).c_str(), place.c_str(), kTensors, kGraph, kConfig);
  return Ok();
}

// What the champion is now: a promotion that somebody else makes from here on is not overwritten unseen. 0: there is none.
Result<int64_t> ChampionOf(const Target& target, const std::string& name) {
  ASSIGN_OR_RETURN(auto connection, Connect(target));
  auto model = connection->Call("resolve_model", {{"name", name}, {"version", 0}});
  if (!model.ok() && model.error().code == ErrorCode::kNotFound) return int64_t{0};
  if (!model.ok()) return model.error();
  return IntField(*model, "version");
}

// Moves the champion of args["name"]; `expected`: what it must be now, by default what it is.
int Move(const Target& target, const std::string& method, Json args, std::optional<int> expected) {
  if (expected) {
    args["expected"] = *expected;
  } else {
    auto champion = ChampionOf(target, args["name"].get<std::string>());
    if (!champion.ok()) return Fail(champion.error(), target.json);
    args["expected"] = *champion;
  }
  return Ask(target, method, args, [](const Json& r) {
    return r.value("name", "") + ": champion is now version " + Canonical(r["version"]) + (r["previous"].is_number() ? ", before it was " + Canonical(r["previous"]) : "") + "\n";
  });
}

}  // namespace

void AddModelCommands(CLI::App& app, Context& context) {
  auto model = std::make_shared<std::string>();
  CLI::App* command = AddCommand(app, context, "models", "Lists the promoted models, their versions and aliases; of one model, how its champion changed.", "pare models tiny");
  command->group("Models");
  command->add_option("NAME", *model, "show the history of this model")->type_name("");
  command->callback([&context, model] {
    context.action = [&context, model] {
      if (model->empty()) return Ask(context.target, "models", Json::object(), RenderModels);
      return Ask(context.target, "model_history", {{"name", *model}}, RenderHistory);
    };
  });

  struct Promote { std::string name, job = "last", step; std::optional<int> version, expected; };
  auto promote = std::make_shared<Promote>();
  command = AddCommand(app, context, "promote", "Makes a version, or a job's candidate, the champion of a model.", "pare promote tiny --job last --step iterative/02-retrain");
  command->group("Models");
  command->add_option("NAME", promote->name, "name of the model")->required()->type_name("");
  AddCount(command, "--version", promote->version, 1, 1'000'000'000, "an existing version becomes the champion");
  command->add_option("--step", promote->step, "the candidate that this step made becomes a new version, and the champion")->type_name("STEP");
  command->add_option("--job", promote->job, "the job of --step; default last")->type_name("JOB");
  AddCount(command, "--expect", promote->expected, 0, 1'000'000'000, "refuse if the champion is another version (0: there is none yet); default: what it is when the command begins");
  command->callback([&context, promote] {
    context.action = [&context, promote] {
      if (promote->version.has_value() != promote->step.empty()) return Fail({ErrorCode::kInvalid, "promote: give either --version N, or --step STEP (and --job JOB)"}, context.target.json);
      Json args = {{"name", promote->name}};
      if (promote->version) args["version"] = *promote->version;
      else args["job"] = promote->job, args["step"] = promote->step;
      return Move(context.target, "promote", std::move(args), promote->expected);
    };
  });

  struct RollbackOptions { std::string name; std::optional<int> expected; };
  auto rollback = std::make_shared<RollbackOptions>();
  command = AddCommand(app, context, "rollback", "Makes the previous champion of a model the champion again.", "pare rollback tiny");
  command->group("Models");
  command->add_option("NAME", rollback->name, "name of the model")->required()->type_name("");
  AddCount(command, "--expect", rollback->expected, 1, 1'000'000'000, "refuse if the champion is another version");
  command->callback([&context, rollback] {
    context.action = [&context, rollback] { return Move(context.target, "rollback", {{"name", rollback->name}}, rollback->expected); };
  });

  struct ExportOptions { std::string name, directory; bool force = false; };
  auto options = std::make_shared<ExportOptions>();
  command = AddCommand(app, context, "export", "Writes a promoted model as safetensors with its graph and lineage.", "pare export tiny exported/");
  command->group("Models");
  command->add_option("NAME", options->name, "NAME (its champion) or NAME@VERSION")->required()->type_name("");
  command->add_option("DIR", options->directory, "directory to write; must be empty or absent")->required()->type_name("");
  command->add_flag("--force", options->force, "replace what is in the directory");
  command->callback([&context, options] {
    context.action = [&context, options] {
      Status status = Export(context.target, options->name, options->directory, options->force);
      return status.ok() ? 0 : Fail(status.error(), context.target.json);
    };
  });
}

}  // namespace pare::cli
