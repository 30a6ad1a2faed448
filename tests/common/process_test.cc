#include "common/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pare {
namespace {

constexpr Millis kLong{10'000};

std::unique_ptr<Process> Shell(const std::string& script, SpawnOptions options = {}) {
  options.arguments = {"/bin/sh", "-c", script};
  auto process = Process::Spawn(options);
  if (!process.ok()) ADD_FAILURE() << process.error().message;
  return std::move(process).value();
}

// Everything until the end of the pipe.
std::string ReadAll(int fd) {
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<size_t>(n));
  return text;
}

TEST(ProcessTest, TellsHowAChildEnded) {
  auto exited = Shell("exit 3");
  EXPECT_EQ(exited->Wait(kLong), "exited with code 3");
  EXPECT_EQ(exited->code(), 3);
  auto killed = Shell("kill -9 $$");
  EXPECT_EQ(killed->Wait(kLong), "killed by signal 9 (Killed)");
  EXPECT_EQ(killed->code(), 137);
}

TEST(ProcessTest, ARunningChildHasNotEnded) {
  auto child = Shell("exec sleep 3600");
  EXPECT_EQ(child->Ended(), std::nullopt);
  child->Signal(SIGKILL);
  EXPECT_TRUE(child->Wait(kLong).has_value());
}

TEST(ProcessTest, AMissingExecutableIsNamed) {
  auto child = Process::Spawn({.arguments = {"/no/such/program"}});
  ASSERT_FALSE(child.ok());
  EXPECT_EQ(child.error().code, ErrorCode::kNotFound);
  EXPECT_NE(child.error().message.find("/no/such/program"), std::string::npos);
}

TEST(ProcessTest, AddsAndReplacesEnvironmentVariables) {
  setenv("PARE_TEST_A", "old", 1);
  setenv("PARE_TEST_B", "kept", 1);
  auto child = Shell("echo $PARE_TEST_A $PARE_TEST_B $PARE_TEST_C",
                     {.environment = {{"PARE_TEST_A", "new"}, {"PARE_TEST_C", "more"}}, .pipe_stdout = true});
  EXPECT_EQ(ReadAll(child->stdout_fd()), "new kept more\n");
}

TEST(ProcessTest, AppendsBothOutputsToAFile) {
  std::string path = testing::TempDir() + "pare-process-" + std::to_string(getpid());
  Shell("echo one; echo two >&2", {.output_path = path})->Wait(kLong);
  Shell("echo three", {.output_path = path})->Wait(kLong);
  EXPECT_EQ(*ReadFile(path), "one\ntwo\nthree\n");
  unlink(path.c_str());
}

TEST(ProcessTest, PassesOneDescriptorAndNoOther) {
  int passed[2], other[2];
  ASSERT_EQ(pipe2(passed, O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(other, O_CLOEXEC), 0);
  auto child = Shell("echo through >&" + std::to_string(passed[1]) + "; if [ -e /proc/$$/fd/" + std::to_string(other[1]) +
                         " ]; then echo leak; fi",
                     {.inherited_fd = passed[1], .pipe_stdout = true});
  close(passed[1]);
  EXPECT_EQ(ReadAll(passed[0]), "through\n");
  EXPECT_EQ(ReadAll(child->stdout_fd()), "");
  for (int fd : {passed[0], other[0], other[1]}) close(fd);
}

TEST(ProcessTest, TerminateKillsWhoDoesNotListen) {
  auto stubborn = Shell("trap '' TERM; echo ready; exec sleep 3600", {.pipe_stdout = true});
  char byte;
  ASSERT_EQ(read(stubborn->stdout_fd(), &byte, 1), 1);
  stubborn->Terminate(Millis(20));
  EXPECT_EQ(stubborn->code(), 137);
  auto polite = Shell("echo ready; exec sleep 3600", {.pipe_stdout = true});
  ASSERT_EQ(read(polite->stdout_fd(), &byte, 1), 1);
  polite->Terminate(kLong);
  EXPECT_EQ(polite->code(), 128 + SIGTERM);
}

TEST(ProcessTest, TheDestructorEndsTheChild) {
  auto child = Shell("echo ready; exec sleep 3600", {.pipe_stdout = true});
  int pid = child->pid();
  char byte;
  ASSERT_EQ(read(child->stdout_fd(), &byte, 1), 1);
  child.reset();
  EXPECT_EQ(kill(pid, 0), -1);
}

TEST(ProcessTest, AChildCanHaveAGroupOfItsOwn) {
  EXPECT_NE(getpgid(Shell("exec sleep 3600", {.own_group = true})->pid()), getpgrp());
  EXPECT_EQ(getpgid(Shell("exec sleep 3600")->pid()), getpgrp());
}

// parent (this test) → middle → leaf; the middle is killed, the leaf must follow. The leaf holds the write end of a pipe
// and nobody else does, so the end of the pipe is the end of the leaf.
TEST(ProcessTest, TheChildDiesWithItsParent) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  int middle = fork();
  ASSERT_GE(middle, 0);
  if (middle == 0) {
    SpawnOptions options;
    options.arguments = {"/bin/sh", "-c", "echo ready >&" + std::to_string(ends[1]) + "; exec sleep 3600"};
    options.inherited_fd = ends[1];
    auto leaf = Process::Spawn(options);
    close(ends[1]);
    for (;;) pause();
  }
  close(ends[1]);
  char buffer[6];
  ASSERT_EQ(read(ends[0], buffer, 6), 6);  // the leaf runs
  kill(middle, SIGKILL);
  waitpid(middle, nullptr, 0);
  pollfd item{ends[0], POLLIN, 0};
  ASSERT_EQ(poll(&item, 1, static_cast<int>(kLong.count())), 1) << "the leaf lives on";
  EXPECT_EQ(read(ends[0], buffer, 6), 0);
  close(ends[0]);
}

}  // namespace
}  // namespace pare
