// What a person sees who runs a job in a terminal: the live picture, drawn over itself. A pseudo terminal and a screen that
// knows the control sequences which Pare uses; any other makes the test fail.
#include <pty.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "tests/integration/run_fixture.h"

namespace pare {
namespace {

// Lines with scrollback. Understands CR, LF, "n lines up, first column" and "clear to the end" (ECMA-48, 8.3.13 CPL, 8.3.39 ED).
class TerminalScreen {
 public:
  TerminalScreen(size_t rows, size_t columns) : rows_(rows), columns_(columns) {}

  void Write(const std::string& bytes) {
    for (char c : bytes) Put(c);
  }
  const std::vector<std::string>& lines() const { return lines_; }
  const std::string& unknown() const { return unknown_; }
  int pictures() const { return pictures_; }
  size_t Count(const std::string& text) const {
    return static_cast<size_t>(std::count_if(lines_.begin(), lines_.end(), [&](const std::string& line) { return line.find(text) != std::string::npos; }));
  }
  std::string Text() const {
    std::string text;
    for (const std::string& line : lines_) text += line + "\n";
    return text;
  }

 private:
  void Put(char c) {
    if (!sequence_.empty()) return Continue(c);
    if (c == '\x1b') {
      sequence_ = c;
    } else if (c == '\r') {
      column_ = 0;
    } else if (c == '\n') {
      Down();
    } else {
      // Bytes that continue a UTF-8 character take no column.
      bool starts = (static_cast<unsigned char>(c) & 0xc0) != 0x80;
      if (starts && column_ == columns_) Down(), column_ = 0;
      lines_[row_] += c;
      column_ += starts;
    }
  }
  void Continue(char c) {
    sequence_ += c;
    if (sequence_.size() == 2 || !std::isalpha(static_cast<unsigned char>(c))) return;
    size_t top = lines_.size() > rows_ ? lines_.size() - rows_ : 0;
    if (c == 'F') {
      size_t up = std::stoul(sequence_.substr(2));
      row_ = std::max(top, row_ - std::min(row_, up));
      column_ = 0;
      ++pictures_;
    } else if (c == 'J' && sequence_ == "\x1b[J" && column_ == 0) {
      lines_.resize(row_ + 1);
      lines_[row_].clear();
    } else {
      unknown_ += sequence_.substr(1) + " ";
    }
    sequence_.clear();
  }
  void Down() {
    if (++row_ == lines_.size()) lines_.emplace_back();
  }

  size_t rows_, columns_, row_ = 0, column_ = 0;
  int pictures_ = 0;
  std::vector<std::string> lines_{std::string()};
  std::string sequence_, unknown_;
};

class TerminalTest : public RunFixture {
 protected:
  // Runs `pare` with both outputs on a terminal of this size; its exit code.
  int RunOn(TerminalScreen& screen, unsigned short rows, unsigned short columns, std::vector<std::string> arguments) {
    winsize size{rows, columns, 0, 0};
    std::string program = PARE_BIN_DIR "/" + arguments[0], cache = Path("cache");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    int terminal = -1;
    pid_t child = ::forkpty(&terminal, nullptr, nullptr, &size);
    if (child == 0) {
      ::setenv("TERM", "xterm", 1);
      ::setenv("XDG_CACHE_HOME", cache.c_str(), 1);
      ::execv(program.c_str(), argv.data());
      ::_exit(127);
    }
    char buffer[4096];
    for (ssize_t n = 0; (n = ::read(terminal, buffer, sizeof buffer)) > 0 || (n < 0 && errno == EINTR);) {
      if (n > 0) screen.Write(std::string(buffer, static_cast<size_t>(n)));
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    ::close(terminal);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  }
};

TEST_F(TerminalTest, ThePictureIsDrawnOverItselfAndWhatIsFinishedStaysAbove) {
  TerminalScreen screen(24, 100);
  ASSERT_EQ(RunOn(screen, 24, 100, RunArguments("live")), 0) << screen.Text();
  EXPECT_EQ(screen.unknown(), "");
  EXPECT_GT(screen.pictures(), 5);
  // One picture is left, the last: one headline, one line for each variant.
  EXPECT_EQ(screen.Count("/16 steps"), 1u) << screen.Text();
  EXPECT_EQ(screen.Count("  shared  "), 1u) << screen.Text();
  for (const std::string name : {"baseline", "iterative/02-retrain", "iterative/04-retrain", "gradual/01-prune"}) {
    auto tells = [&](const std::string& line) { return line.rfind(name + " ", 0) == 0 && line.find("  accuracy ") != std::string::npos; };
    EXPECT_EQ(std::count_if(screen.lines().begin(), screen.lines().end(), tells), 1) << name << "\n" << screen.Text();
  }
  EXPECT_EQ(screen.Count("promoted "), 1u) << screen.Text();
}

TEST_F(TerminalTest, ASmallWindowGetsASmallPicture) {
  TerminalScreen screen(3, 40);
  ASSERT_EQ(RunOn(screen, 3, 40, RunArguments("small")), 0) << screen.Text();
  EXPECT_EQ(screen.unknown(), "");
  // The window is lower than the list of variants: two lines are drawn, and only the last picture is left of them all.
  EXPECT_EQ(screen.Count("/16 steps"), 1u) << screen.Text();
  EXPECT_EQ(screen.Count("  shared  "), 1u) << screen.Text();
  EXPECT_EQ(screen.Count("  iterative  "), 0u) << screen.Text();
}

}  // namespace
}  // namespace pare
