#include "cli/watch.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <set>

#include "cli/render.h"

namespace pare::cli {
namespace {

std::atomic<int> interrupts{0};

bool Ended(const std::string& state) { return state == "done" || state == "failed" || state == "cancelled"; }

class Screen {
 public:
  explicit Screen(bool quiet) : live_(!quiet && ::isatty(2) && std::getenv("NO_COLOR") == nullptr), quiet_(quiet) {}

  void Show(const Json& watch, Millis now) {
    if (quiet_) return;
    for (const Json& s : watch["steps"]) {
      std::string state = s["state"].get<std::string>(), name = s["name"].get<std::string>();
      if ((state == "done" || state == "failed") && reported_.insert(name).second && !live_ && !s.value("reused", false)) {
        std::fprintf(stderr, "%s\n", RenderStepLine(s).c_str());
      }
    }
    std::string text = RenderLive(watch);
    if (live_) {
      // Back to the first line of the last picture, clear to the end of the screen.
      if (lines_ > 0) std::fprintf(stderr, "\x1b[%dF\x1b[J", lines_);
      std::fputs(text.c_str(), stderr);
      lines_ = static_cast<int>(std::count(text.begin(), text.end(), '\n'));
    } else if (now - last_ >= Millis(10'000)) {
      last_ = now;
      std::fputs(text.c_str(), stderr);
    }
    std::fflush(stderr);
  }
  size_t finished() const { return reported_.size(); }

 private:
  bool live_, quiet_;
  int lines_ = 0;
  Millis last_{0};
  std::set<std::string> reported_;
};

}  // namespace

void CatchInterrupts() {
  struct sigaction action{};
  action.sa_handler = [](int) { interrupts.fetch_add(1); };
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}
int Interrupts() { return interrupts.load(); }

Result<std::string> Follow(Connection& connection, const FollowOptions& options) {
  SystemClock clock;
  Screen screen(options.quiet);
  size_t finished = 0;
  bool paused = false;
  for (;;) {
    if (options.every_turn) TRY(options.every_turn());
    auto watch = connection.Call("watch", {{"job", options.job}, {"after", 0}});
    if (!watch.ok() && watch.error().code != ErrorCode::kUnreachable) return watch.error();
    if (!watch.ok() && !options.every_turn) return watch.error();
    if (watch.ok()) {
      screen.Show(*watch, clock.Monotonic());
      if (screen.finished() > finished && options.on_progress) options.on_progress();
      finished = screen.finished();
      std::string state = (*watch)["job"]["state"].get<std::string>();
      if (Ended(state)) return state;
      if (paused && state == "paused") {
        bool running = false;
        for (const Json& s : (*watch)["steps"]) running = running || s["state"] == "running";
        if (!running) return Error{ErrorCode::kStopped, "paused"};
      }
      if (state == "paused" && !options.pause_on_interrupt) return state;
    }
    if (Interrupts() > 1 || (Interrupts() == 1 && !options.pause_on_interrupt)) return Error{ErrorCode::kStopped, "interrupted"};
    if (Interrupts() == 1 && !paused) {
      std::fprintf(stderr, "pare: pausing; the running steps save their state (Ctrl-C again ends at once)\n");
      paused = connection.Call("pause", {{"job", options.job}}).ok();
    }
    ::poll(nullptr, 0, 100);
  }
}

}  // namespace pare::cli
