// Distillation as far as it concerns the two graphs: whether a teacher can teach a student, and how hidden values of the one
// are compared with those of the other (METHODS, section 3). Pure, no thread rule. Errors are kInvalid and name nodes and
// what would fit.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "model/graph.h"

namespace pare::methods {

// Teacher and student read the same samples (shape, type, vocabulary) and tell the same classes apart. `teacher_name` is for
// the message.
Status CheckTeacher(const model::Graph& student, const model::Graph& teacher, const std::string& teacher_name);

// The student's graph with what matching needs: for every pair of nodes whose widths differ a projection of its own behind
// the student's node (linear for features and sequences, a convolution of 1x1 for images), which is learned with the rest
// and dropped afterwards (Romero et al. 2015, "FitNets", section 2.2). The student's own nodes and their order stay.
struct Matching {
  model::Graph student, teacher;
  std::vector<std::string> student_taps, teacher_taps;  // values to be made equal, pair by pair
};
inline constexpr std::string_view kProjectionPrefix = "match.";

// "NODE.scores" of an attention NODE: how much its heads attend to what, before the softmax, keys that a mask ignores being 0
// (Jiao et al. 2020, "TinyBERT", equation 7). Both graphs get a node that computes them; heads are joined as channels are.
inline constexpr std::string_view kScores = ".scores";

// `match`: node of the student → node of the teacher. kInvalid: a node that is not there; shapes that differ in more than
// features (sequence length, height, width).
Result<Matching> MatchNodes(const model::Graph& student, const model::Graph& teacher, const std::map<std::string, std::string>& match);

}  // namespace pare::methods
