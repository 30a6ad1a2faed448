// Commands in documents: what stands in ```console (lines after "$ ") and ```sh blocks of Markdown, and in comments of recipes
// (lines "#   pare …"). Pure.
#pragma once

#include <string>
#include <vector>

#include "common/json.h"

namespace pare::docs {

struct Command {
  std::string where;  // "README.md:12"
  int block = 0;      // the fenced block: one shell
  std::string text;   // without its comment
  int exit_code = 0;  // what a comment "exit code N" promises
  std::string json;   // the ```json block that shows its output; empty: none
  std::string help;   // the ```text block behind a --help; empty: none
};

std::vector<Command> CommandsOf(const std::string& document, const std::string& text);

// Where `printed` has other fields, or values of another type, than the document shows. "…" stands for anything, null fits every
// type, and of an array the elements together count.
std::vector<std::string> FieldDifferences(const Json& shown, const Json& printed);

}  // namespace pare::docs
