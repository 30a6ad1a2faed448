#include "tests/integration/docs_commands.h"

#include <sstream>
#include <utility>

namespace pare::docs {
namespace {

std::string Trimmed(const std::string& text) {
  size_t begin = text.find_first_not_of(" \t"), end = text.find_last_not_of(" \t");
  return begin == std::string::npos ? "" : text.substr(begin, end - begin + 1);
}

// Takes the comment off, and the exit code that it promises.
void TakeComment(Command& command) {
  size_t at = command.text.find(" # ");
  if (at == std::string::npos) return;
  std::string comment = command.text.substr(at);
  command.text = Trimmed(command.text.substr(0, at));
  const std::string promise = "exit code ";
  if (size_t code = comment.find(promise); code != std::string::npos) command.exit_code = std::stoi(comment.substr(code + promise.size()));
}

class Reader {
 public:
  explicit Reader(std::string document) : document_(std::move(document)) {}

  void Line(const std::string& line) {
    ++number_;
    if (fence_.empty() && line.rfind("```", 0) == 0) Open(line.substr(3));
    else if (line == "```") fence_.clear();
    else if (fence_ == "console" || fence_ == "sh") Shell(line);
    else if (fence_ == "json" && shown_ >= 0) commands_[static_cast<size_t>(shown_)].json += line + "\n";
    else if (fence_ == "text" && !commands_.empty() && commands_.back().text.ends_with(" --help")) commands_.back().help += line + "\n";
    else if (fence_.empty() && line.rfind("#", 0) == 0) last_json_ = -1;  // another section
  }
  std::vector<Command> commands() { return std::move(commands_); }

 private:
  void Open(const std::string& language) {
    fence_ = language.empty() ? "text" : language;
    if (fence_ == "json") shown_ = std::exchange(last_json_, -1);
    else ++block_;
  }
  void Shell(const std::string& line) {
    if (continued_) {
      Append(Trimmed(line));
    } else if (fence_ == "console" ? line.rfind("$ ", 0) == 0 : !Trimmed(line).empty() && Trimmed(line)[0] != '#') {
      commands_.push_back({document_ + ":" + std::to_string(number_), block_, ""});
      Append(Trimmed(fence_ == "console" ? line.substr(2) : line));
    }
  }
  void Append(std::string part) {
    continued_ = !part.empty() && part.back() == '\\';
    if (continued_) part = Trimmed(part.substr(0, part.size() - 1));
    Command& command = commands_.back();
    command.text += (command.text.empty() ? "" : " ") + part;
    if (continued_) return;
    TakeComment(command);
    if (command.text.find("--json") != std::string::npos) last_json_ = static_cast<int>(commands_.size()) - 1;
  }

  std::string document_, fence_;
  int number_ = 0, block_ = 0, last_json_ = -1, shown_ = -1;
  bool continued_ = false;
  std::vector<Command> commands_;
};

std::vector<Command> OfComments(const std::string& document, const std::string& text) {
  std::vector<Command> commands;
  std::istringstream lines(text);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    std::string content = line.rfind("#", 0) == 0 ? Trimmed(line.substr(1)) : "";
    if (content.rfind("pare ", 0) != 0 && content.rfind("python3 ", 0) != 0) continue;
    commands.push_back({document + ":" + std::to_string(number), 0, content});
    TakeComment(commands.back());
  }
  return commands;
}

// An array's elements as one value: objects with the fields of all.
Json Together(const Json& array) {
  Json all;
  for (const Json& element : array) {
    if (!element.is_object() || !all.is_object()) {
      if (!element.is_null()) all = element;
      continue;
    }
    for (const auto& [field, value] : element.items()) {
      if (!all.contains(field) || all[field].is_null()) all[field] = value;
    }
  }
  return all;
}

void Compare(const std::string& path, const Json& shown, const Json& printed, std::vector<std::string>& out) {
  if (shown.is_null() || printed.is_null() || shown == "…") return;
  if (shown.is_array() && printed.is_array()) return Compare(path + "[]", Together(shown), Together(printed), out);
  if (shown.is_number() && printed.is_number()) return;
  if (shown.type() != printed.type()) {
    out.push_back(path + ": the document shows " + shown.type_name() + ", the command prints " + printed.type_name());
    return;
  }
  if (!shown.is_object()) return;
  for (const auto& [field, value] : printed.items()) {
    if (!shown.contains(field)) out.push_back(path + "." + field + " is not in the document");
    else Compare(path + "." + field, shown[field], value, out);
  }
  for (const auto& [field, value] : shown.items()) {
    if (!printed.contains(field)) out.push_back(path + "." + field + " is not printed");
  }
}

}  // namespace

std::vector<Command> CommandsOf(const std::string& document, const std::string& text) {
  if (document.ends_with(".yaml")) return OfComments(document, text);
  Reader reader(document);
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) reader.Line(line);
  return reader.commands();
}

std::vector<std::string> FieldDifferences(const Json& shown, const Json& printed) {
  std::vector<std::string> out;
  Compare("", shown, printed, out);
  return out;
}

}  // namespace pare::docs
