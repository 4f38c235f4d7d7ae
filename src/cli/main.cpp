#include "cli/commands.h"

int main(int argc, char** argv) {
  std::vector<std::unique_ptr<refract::Command>> commands;
  commands.push_back(refract::make_train_command());
  commands.push_back(refract::make_eval_command());
  commands.push_back(refract::make_generate_command());
  commands.push_back(refract::make_inspect_command());
  commands.push_back(refract::make_export_command());
  commands.push_back(refract::make_kinds_command());
  commands.push_back(refract::make_interpolate_command());
  commands.push_back(refract::make_connectivity_command());
  commands.push_back(refract::make_align_command());
  commands.push_back(refract::make_data_stories_command());
  commands.push_back(refract::make_tokenize_command());
  commands.push_back(refract::make_tokenizer_train_command());
  commands.push_back(refract::make_report_command());
  commands.push_back(refract::make_sweep_command());
  commands.push_back(refract::make_bench_kernel_command());
  commands.push_back(refract::make_bench_mlp_command());
  commands.push_back(refract::make_bench_train_command());
  commands.push_back(refract::make_bench_decode_command());
  commands.push_back(refract::make_bench_premerge_command());
  return refract::run_program(argc, argv, commands);
}
