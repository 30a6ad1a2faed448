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
    auto command = pipe_.Receive(Millis(0));
    if (!command.ok()) {
      Leave(command.error().message);
    } else if (command->has_value()) {
      const worker::RunnerCommand& received = **command;
      if (const auto* stop = std::get_if<worker::StopStep>(&received)) stop_ = StopRequest{stop->keep};
      else if (std::holds_alternative<worker::ExitRunner>(received)) Leave("exit was asked for");
      else Leave("the agent started a step while one runs");
    }
    return stop_;
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
  void BeginStep() { stop_.reset(); }

 private:
  worker::RunnerPipe& pipe_;
  std::optional<StopRequest> stop_;
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
    if (start == nullptr) continue;  // a stop that came after its step
    hooks.BeginStep();
    hooks.Send(ExecuteStep(start->assignment, environment, hooks));
  }
  return 0;
}

}  // namespace pare::runner
