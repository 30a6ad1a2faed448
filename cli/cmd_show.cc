// show: what a step left: its results, layer by layer, which reports leave out.
#include <cstdio>

#include "cli/commands.h"
#include "cli/render.h"
#include "storage/artifact.h"

namespace pare::cli {
namespace {

constexpr size_t kLeastDigits = 4;  // of a key

// By name, or by a unique prefix of its key.
Result<Json> StepOf(const Json& job, const std::string& text) {
  const Json steps = job.value("steps", Json::array());
  for (const Json& step : steps) {
    if (Text(step, "name") == text) return step;
  }
  const Json* found = nullptr;
  for (const Json& step : steps) {
    if (text.size() < kLeastDigits || !Text(step, "key").starts_with(text)) continue;
    if (found != nullptr && Text(*found, "key") != Text(step, "key")) return Error{ErrorCode::kInvalid, "'" + text + "' fits several steps: write more digits of the key"};
    found = &step;
  }
  if (found != nullptr) return *found;
  return Error{ErrorCode::kNotFound, "job " + Text(job, "id") + " has no step '" + text + "': `pare describe " + Text(job, "id") + "` lists its steps"};
}

Result<Json> ResultsOf(const Target& target, const std::string& name, const std::string& job_text) {
  ASSIGN_OR_RETURN(auto connection, Connect(target));
  ASSIGN_OR_RETURN(Json job, connection->Call("describe", {{"job", job_text}}));
  ASSIGN_OR_RETURN(Json step, StepOf(job, name));
  std::string id = Text(job, "id"), step_name = Text(step, "name");
  if (!step.contains("artifact") || !step["artifact"].is_string()) {
    return Error{ErrorCode::kNotFound, "step " + step_name + " of job " + id + " is " + Text(step, "state") + ": it has left nothing yet; `pare why " + step_name + " --job " + id + "` tells why"};
  }
  ASSIGN_OR_RETURN(Digest digest, DigestField(step, "artifact"));
  ASSIGN_OR_RETURN(auto blobs, OpenBlobs(*connection));
  ASSIGN_OR_RETURN(storage::Artifact artifact, storage::GetArtifact(*blobs, digest));
  Json files = Json::array();
  for (const auto& [role, blob] : artifact.blobs) files.push_back({{"role", role}, {"blob", blob.digest.hex()}, {"bytes", blob.bytes}});
  return Json{{"job", id}, {"step", step_name}, {"key", step["key"]}, {"kind", step["kind"]}, {"artifact", digest.hex()}, {"files", std::move(files)}, {"results", artifact.results}};
}

}  // namespace

void AddShowCommand(CLI::App& app, Context& context) {
  auto which = std::make_shared<std::pair<std::string, std::string>>("", "last");
  CLI::App* command = AddCommand(app, context, "show", "Shows what a step left: its results, layer by layer, and why a layer was left alone.", "pare show iterative/01-prune --job last");
  command->group("Jobs");
  command->add_option("STEP", which->first, "name of a step, or a unique prefix of its key")->required()->type_name("");
  command->add_option("--job", which->second, "the job; default last")->type_name("JOB");
  command->callback([&context, which] {
    context.action = [&context, which] {
      auto results = ResultsOf(context.target, which->first, which->second);
      if (!results.ok()) return Fail(results.error(), context.target.json);
      std::fputs((context.target.json ? Canonical(*results) + "\n" : RenderStep(*results)).c_str(), stdout);
      return 0;
    };
  });
}

}  // namespace pare::cli
