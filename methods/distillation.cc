#include "methods/distillation.h"

#include <algorithm>

namespace pare::methods {
namespace {

using model::Graph;
using model::GraphInfo;
using model::Node;
using model::OpType;
using model::Shape;

Error Disagree(const std::string& teacher, const std::string& what, const std::string& its, const std::string& students) {
  return {ErrorCode::kInvalid, "teacher " + teacher + " and student disagree in " + what + ": " + its + " and " + students + "; name a teacher made for the same data"};
}

const Shape& ShapeOf(const Graph& graph, const GraphInfo& info, const std::string& node) {
  return info.shapes[static_cast<size_t>(graph.IndexOf(node))];
}

std::string NodesOf(const Graph& graph) {
  constexpr size_t kShown = 40;
  std::string list;
  for (size_t i = 1; i < graph.nodes.size() && i <= kShown; ++i) list += (i == 1 ? "" : ", ") + graph.nodes[i].name;
  return list + (graph.nodes.size() > kShown + 1 ? ", …" : "");
}

// That the graph has the node. That of an attention's scores is added to it.
Status ProvideNode(Graph& graph, const std::string& name, const std::string& whose) {
  const Node* node = graph.Find(name);
  if (node != nullptr && node->op != OpType::kInput) return Ok();
  if (name.ends_with(kScores)) {
    std::string base = name.substr(0, name.size() - kScores.size());
    const Node* attention = graph.Find(base);
    if (attention != nullptr && attention->op == OpType::kAttention) {
      Node scores{name, OpType::kAttentionScores, attention->inputs, {.heads = attention->attributes.heads}};
      scores.inputs.erase(scores.inputs.begin() + 2);  // the value
      graph.nodes.push_back(std::move(scores));
      return Ok();
    }
    if (attention != nullptr) return Error{ErrorCode::kInvalid, "match: " + base + " of the " + whose + " is " + std::string(model::ToString(attention->op)) + ", only attention has scores"};
  }
  return Error{ErrorCode::kInvalid, "match: the " + whose + " has no node '" + name + "'. Allowed: " + NodesOf(graph)};
}

// Features last for vectors and sequences, first for images.
size_t WidthAxis(const Shape& shape) { return shape.size() == 3 ? 0 : shape.size() - 1; }

Node Projection(const std::string& from, const Shape& shape, int64_t width) {
  Node node{std::string(kProjectionPrefix) + from, OpType::kLinear, {from}, {}};
  int64_t own = shape[WidthAxis(shape)];
  if (shape.size() == 3) {
    node.op = OpType::kConv2d;
    node.attributes.in_channels = own;
    node.attributes.out_channels = width;
  } else {
    node.attributes.in_features = own;
    node.attributes.out_features = width;
  }
  return node;
}

}  // namespace

Status CheckTeacher(const Graph& student, const Graph& teacher, const std::string& name) {
  ASSIGN_OR_RETURN(GraphInfo student_info, model::Analyze(student));
  auto analyzed = model::Analyze(teacher);
  if (!analyzed.ok()) return analyzed.error().With("teacher " + name);
  const model::Attributes &reads = teacher.nodes[0].attributes, &gets = student.nodes[0].attributes;
  // A sequence's length is part of the shape.
  if (reads.shape != gets.shape) return Disagree(name, "the shape of a sample", model::ToString(reads.shape), model::ToString(gets.shape));
  if (reads.dtype != gets.dtype) {
    return Disagree(name, "the type of a sample", std::string(model::ToString(reads.dtype)), std::string(model::ToString(gets.dtype)));
  }
  int64_t knows = model::VocabularyOf(teacher), used = model::VocabularyOf(student);
  if (knows != used) return Disagree(name, "the vocabulary", std::to_string(knows), std::to_string(used));
  const Shape &its = ShapeOf(teacher, *analyzed, teacher.output), &own = ShapeOf(student, student_info, student.output);
  if (its != own) return Disagree(name, "the classes", model::ToString(its), model::ToString(own));
  return Ok();
}

Result<Matching> MatchNodes(const Graph& student, const Graph& teacher, const std::map<std::string, std::string>& match) {
  Matching matching{student, teacher, {}, {}};
  for (const auto& [from, to] : match) {
    TRY(ProvideNode(matching.student, from, "student"));
    TRY(ProvideNode(matching.teacher, to, "teacher"));
  }
  ASSIGN_OR_RETURN(GraphInfo student_info, model::Analyze(matching.student));
  ASSIGN_OR_RETURN(GraphInfo teacher_info, model::Analyze(matching.teacher));
  for (const auto& [from, to] : match) {
    const Shape &own = ShapeOf(matching.student, student_info, from), &target = ShapeOf(matching.teacher, teacher_info, to);
    Shape adapted = own;
    if (own.size() == target.size()) adapted[WidthAxis(own)] = target[WidthAxis(target)];
    if (adapted != target) {
      return Error{ErrorCode::kInvalid, "match: " + from + " of the student has shape " + model::ToString(own) + ", " + to + " of the teacher " +
                                            model::ToString(target) + "; a projection changes only the number of features"};
    }
    bool projects = own != target;
    if (projects) matching.student.nodes.push_back(Projection(from, own, target[WidthAxis(target)]));
    matching.student_taps.push_back(projects ? matching.student.nodes.back().name : from);
    matching.teacher_taps.push_back(to);
  }
  // A node of that name may be in the student already.
  TRY(model::Analyze(matching.student));
  return matching;
}

}  // namespace pare::methods
