// Placement: which worker a ready step goes to, and why a step does not run now. Pure functions over the state: the same
// decision that Place() acts on is what `pare why` prints.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "coordinator/state.h"

namespace pare::coordinator {

struct Placed {  // it can start now, on this worker or on this gang, by rank
  std::vector<std::string> workers;
  std::string reason;
};
struct NotNow {  // it will go on by itself, or after somebody acts as the reason says
  std::string reason;
  std::vector<std::string> waiting_for;  // names of steps
};
struct Infeasible {  // nothing that is connected now can ever run it
  std::string reason;
};
using Decision = std::variant<Placed, NotNow, Infeasible>;

// "cuda" of "cuda:0".
std::string DeviceClassOf(const std::string& device);
// Why a step that builds on a failed one (named so in that job) cannot run: "what it builds on failed for good: …".
std::string BlockedBy(const Step& failed, const Job& job, const std::string& name);
// The first: among idle workers of the step's device class the one with most of the step's inputs in memory; ties by name. A step
// whose recipe allows a gang gets as many others as would stay idle if every ready step of the class had one worker: a gang never
// takes a worker from another step, and never waits for one.
Decision Decide(const State& state, const Step& step);
// Of a step in any state, for people: "running on w1: …", "done", ….
Decision Explain(const State& state, const Step& step, Now now);

}  // namespace pare::coordinator
