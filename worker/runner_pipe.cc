#include "worker/runner_pipe.h"

#include <utility>

namespace pare::worker {

Json ToJson(const RunnerCommand& command) {
  if (const auto* start = std::get_if<StartStep>(&command)) {
    return {{"type", "start"}, {"assignment", ToJson(start->assignment)}};
  }
  if (const auto* join = std::get_if<JoinGang>(&command)) return {{"type", "join"}, {"endpoints", join->endpoints}};
  if (const auto* stop = std::get_if<StopStep>(&command)) return {{"type", "stop"}, {"keep", stop->keep}};
  return {{"type", "exit"}};
}

Result<RunnerCommand> RunnerCommandFromJson(const Json& json) {
  ASSIGN_OR_RETURN(std::string type, StringField(json, "type"));
  if (type == "start") {
    if (!json.contains("assignment")) return Error{ErrorCode::kInvalid, "start without an assignment"};
    ASSIGN_OR_RETURN(Assignment assignment, AssignmentFromJson(json["assignment"]));
    return RunnerCommand(StartStep{std::move(assignment)});
  }
  if (type == "join") {
    JoinGang join;
    if (!json.contains("endpoints") || !json["endpoints"].is_array()) return Error{ErrorCode::kInvalid, "join without endpoints"};
    for (const Json& endpoint : json["endpoints"]) {
      if (!endpoint.is_string()) return Error{ErrorCode::kInvalid, "join: an endpoint is a text"};
      join.endpoints.push_back(endpoint.get<std::string>());
    }
    return RunnerCommand(std::move(join));
  }
  if (type == "stop") {
    ASSIGN_OR_RETURN(bool keep, BoolField(json, "keep"));
    return RunnerCommand(StopStep{keep});
  }
  if (type == "exit") return RunnerCommand(ExitRunner{});
  return Error{ErrorCode::kInvalid, "unknown command '" + type.substr(0, 40) + "' from the agent"};
}

Result<std::optional<RunnerCommand>> RunnerPipe::Receive(Millis timeout) {
  ASSIGN_OR_RETURN(std::optional<std::string> line, channel_.Receive(timeout));
  if (!line) return std::optional<RunnerCommand>();
  ASSIGN_OR_RETURN(Json json, ParseJson(*line, "command from the agent"));
  ASSIGN_OR_RETURN(RunnerCommand command, RunnerCommandFromJson(json));
  return std::optional(std::move(command));
}

Status RunnerPipe::Send(const RunnerEvent& event) {
  TRY(channel_.Send(Canonical(ToJson(event))));
  return channel_.Flush(Millis::max());
}

}  // namespace pare::worker
