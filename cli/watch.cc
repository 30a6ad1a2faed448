#include "cli/watch.h"

#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <set>

#include "cli/render.h"

namespace pare::cli {
namespace {

constexpr Millis kPoll{100};
constexpr Millis kPlainEvery{10'000};  // without a terminal: how often the running steps are told
constexpr int kExitInterrupted = 130;

std::atomic<int> interrupts{0};

winsize WindowOf(int fd) {
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) size = {24, 80, 0, 0};
  return size;
}

class Screen {
 public:
  explicit Screen(bool quiet) : quiet_(quiet) {
    const char* term = std::getenv("TERM");
    live_ = !quiet && ::isatty(STDERR_FILENO) != 0 && term != nullptr && std::string(term) != "dumb";
  }

  void Show(const Json& watch, Millis now) {
    size_t width = 0, columns = live_ ? WindowOf(STDERR_FILENO).ws_col : kUnlimited;
    for (const Json& s : watch["steps"]) width = std::max(width, TextWidth(s.value("name", "")));
    width = std::min(width, std::max(kShortestName, columns / 2));
    std::string finished;
    for (const Json& s : watch["steps"]) {
      std::string state = s.value("state", "");
      bool told = (state != "done" && state != "failed") || !reported_.insert(s.value("name", "")).second;
      if (!told && !s.value("reused", false)) finished += RenderStepLine(s, width);
    }
    if (quiet_) return;
    if (live_) {
      Redraw(Clip(finished, columns, kUnlimited), RenderLive(watch, columns));
    } else {
      std::fputs(finished.c_str(), stderr);
      if (last_ == Millis(0)) last_ = now;
      if (now - last_ < kPlainEvery) return;
      last_ = now;
      std::fputs(RenderLive(watch).c_str(), stderr);
    }
  }
  size_t finished() const { return reported_.size(); }

 private:
  // What is finished scrolls away above; the picture stays below it.
  void Redraw(const std::string& finished, const std::string& picture) {
    winsize size = WindowOf(STDERR_FILENO);
    std::string text = Clip(picture, size.ws_col, size.ws_row > 1 ? size.ws_row - 1u : 1u);
    // Back to the first line of the last picture, clear to the end of the screen.
    if (lines_ > 0) std::fprintf(stderr, "\x1b[%dF\x1b[J", lines_);
    std::fputs((finished + text).c_str(), stderr);
    lines_ = static_cast<int>(std::count(text.begin(), text.end(), '\n'));
    std::fflush(stderr);
  }

  bool live_ = false, quiet_;
  int lines_ = 0;
  Millis last_{0};
  std::set<std::string> reported_;
};

// Paused and nothing runs any more: what ran has left its snapshot.
bool AtRest(const Json& watch) {
  if (watch["job"]["state"] != "paused") return false;
  return std::none_of(watch["steps"].begin(), watch["steps"].end(), [](const Json& s) { return s["state"] == "running"; });
}

}  // namespace

bool Ended(const std::string& job_state) { return job_state == "done" || job_state == "failed" || job_state == "cancelled"; }

size_t TerminalColumns(int fd) { return ::isatty(fd) != 0 ? WindowOf(fd).ws_col : kUnlimited; }

void CatchInterrupts() {
  struct sigaction action{};
  action.sa_handler = [](int) {
    if (interrupts.fetch_add(1) > 0) ::_exit(kExitInterrupted);  // children die with their parent
  };
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}
int Interrupts() { return interrupts.load(); }

Result<std::string> Follow(Connection& connection, const FollowOptions& options) {
  SystemClock clock;
  Screen screen(options.quiet);
  size_t finished = 0;
  bool paused = false, told = false, first = true;
  Json args = {{"job", options.job}, {"after", std::numeric_limits<int64_t>::max()}};  // its events are not shown
  for (;;) {
    if (options.every_turn) TRY(options.every_turn());
    auto watch = connection.Call("watch", args);
    if (!watch.ok() && (watch.error().code != ErrorCode::kUnreachable || !options.every_turn)) return watch.error();
    if (watch.ok()) {
      bool over = first && Ended((*watch)["job"]["state"].get<std::string>());  // nothing to follow: the report tells all
      first = false;
      if (!over) screen.Show(*watch, clock.Monotonic());
      if (screen.finished() > finished && options.on_progress) options.on_progress();
      finished = screen.finished();
      std::string state = (*watch)["job"]["state"].get<std::string>();
      if (Ended(state)) return state;
      if (paused && AtRest(*watch)) return Error{ErrorCode::kStopped, "paused"};
      if (state == "paused" && !options.pause_on_interrupt) return state;
    }
    if (Interrupts() > 0 && !options.pause_on_interrupt) return Error{ErrorCode::kStopped, "interrupted"};
    if (Interrupts() > 0 && !paused) {
      if (!told) std::fprintf(stderr, "pare: pausing; the running steps save their state (Ctrl-C again ends at once)\n");
      told = true;
      paused = connection.Call("pause", {{"job", options.job}}).ok();
    }
    ::poll(nullptr, 0, static_cast<int>(kPoll.count()));
  }
}

}  // namespace pare::cli
