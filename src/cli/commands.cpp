#include "cli/commands.h"

namespace refract {

// A new command is its own file and two lines here.
std::unique_ptr<Command> make_train_command();
std::unique_ptr<Command> make_launch_command();
std::unique_ptr<Command> make_eval_command();
std::unique_ptr<Command> make_generate_command();
std::unique_ptr<Command> make_serve_command();
std::unique_ptr<Command> make_inspect_command();
std::unique_ptr<Command> make_export_command();
std::unique_ptr<Command> make_kinds_command();
std::unique_ptr<Command> make_calibrate_command();
std::unique_ptr<Command> make_sensitivity_command();
std::unique_ptr<Command> make_compare_command();
std::unique_ptr<Command> make_chips_command();
std::unique_ptr<Command> make_interpolate_command();
std::unique_ptr<Command> make_connectivity_command();
std::unique_ptr<Command> make_align_command();
std::unique_ptr<Command> make_merge_command();
std::unique_ptr<Command> make_data_stories_command();
std::unique_ptr<Command> make_tokenize_command();
std::unique_ptr<Command> make_tokenizer_train_command();
std::unique_ptr<Command> make_report_command();
std::unique_ptr<Command> make_sweep_command();
std::unique_ptr<Command> make_scale_command();
std::unique_ptr<Command> make_bench_kernel_command();
std::unique_ptr<Command> make_bench_mlp_command();
std::unique_ptr<Command> make_bench_train_command();
std::unique_ptr<Command> make_bench_decode_command();
std::unique_ptr<Command> make_bench_premerge_command();

std::vector<std::unique_ptr<Command>> all_commands() {
  std::vector<std::unique_ptr<Command>> commands;
  commands.push_back(make_train_command());
  commands.push_back(make_launch_command());
  commands.push_back(make_eval_command());
  commands.push_back(make_generate_command());
  commands.push_back(make_serve_command());
  commands.push_back(make_inspect_command());
  commands.push_back(make_export_command());
  commands.push_back(make_kinds_command());
  commands.push_back(make_calibrate_command());
  commands.push_back(make_sensitivity_command());
  commands.push_back(make_compare_command());
  commands.push_back(make_chips_command());
  commands.push_back(make_interpolate_command());
  commands.push_back(make_connectivity_command());
  commands.push_back(make_align_command());
  commands.push_back(make_merge_command());
  commands.push_back(make_data_stories_command());
  commands.push_back(make_tokenize_command());
  commands.push_back(make_tokenizer_train_command());
  commands.push_back(make_report_command());
  commands.push_back(make_sweep_command());
  commands.push_back(make_scale_command());
  commands.push_back(make_bench_kernel_command());
  commands.push_back(make_bench_mlp_command());
  commands.push_back(make_bench_train_command());
  commands.push_back(make_bench_decode_command());
  commands.push_back(make_bench_premerge_command());
  return commands;
}

}  // namespace refract
