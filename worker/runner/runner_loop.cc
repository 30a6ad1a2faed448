#include "worker/runner/runner_loop.h"

#include "common/log.h"
#include "worker/runner/execute.h"

namespace pare::runner {
namespace {

constexpr Millis kIdleWait{60'000};

class PipeHooks : public StepHooks {
 public:
  explicit PipeHooks(worker::RunnerPipe& pipe) : pipe_(pipe) {}

  void Progress(Json values) override { Send(worker::StepProgress{std::move(values)}); }
  void Snapshot(const Digest& blob, const Json& position) override { Send(worker::StepSnapshot{blob, position}); }
  std::optional<StopRequest> StopRequested() override {
    if (stop_) return stop_;
    Receive(Millis(0));
    return stop_;
  }
  void Joins(const std::string& endpoint) override {
    joins_ = true;
    Send(worker::StepJoins{endpoint});
  }
  std::optional<std::vector<std::string>> Joined(Millis wait) override {
    if (!joined_ && !stop_) Receive(wait);
    return joined_;
  }
  void Send(const worker::RunnerEvent& event) {
    if (leaving_) return;
    if (Status sent = pipe_.Send(event); !sent.ok()) Leave(sent.error().message);
  }
  bool leaving() const { return leaving_; }
  void Leave(const std::string& why) {
    LogDebug("runner ends: " + why);
    leaving_ = true;
    stop_ = StopRequest{false};
  }
  void BeginStep() {
    stop_.reset();
    joins_ = false;
    joined_.reset();
  }

 private:
  void Receive(Millis wait) {
    auto command = pipe_.Receive(wait);
    if (!command.ok()) return Leave(command.error().message);
    if (!command->has_value()) return;
    worker::RunnerCommand& received = **command;
    if (const auto* stop = std::get_if<worker::StopStep>(&received)) stop_ = StopRequest{stop->keep};
    else if (auto* join = std::get_if<worker::JoinGang>(&received)) Join(std::move(join->endpoints));
    else if (std::holds_alternative<worker::ExitRunner>(received)) Leave("exit was asked for");
    else Leave("the agent started a step while one runs");
  }
  // Means nothing to a step that did not ask, or has gone on.
  void Join(std::vector<std::string> endpoints) {
    if (joins_ && !joined_) joined_ = std::move(endpoints);
  }

  worker::RunnerPipe& pipe_;
  std::optional<StopRequest> stop_;
  bool joins_ = false;
  std::optional<std::vector<std::string>> joined_;
  bool leaving_ = false;
};

}  // namespace

int ServePipe(worker::RunnerPipe& pipe, const Environment& environment) {
  PipeHooks hooks(pipe);
  hooks.Send(worker::RunnerReady{environment.device});
  while (!hooks.leaving()) {
    auto command = pipe.Receive(kIdleWait);
    if (!command.ok()) {
      if (command.error().code == ErrorCode::kUnreachable) return 0;
      LogError("pipe to the agent: " + command.error().message);
      return 1;
    }
    if (!command->has_value()) continue;
    if (std::holds_alternative<worker::ExitRunner>(**command)) return 0;
    const auto* start = std::get_if<worker::StartStep>(&**command);
    if (start == nullptr) continue;  // a stop or a join that came after its step
    hooks.BeginStep();
    hooks.Send(ExecuteStep(start->assignment, environment, hooks));
  }
  return 0;
}

}  // namespace pare::runner
