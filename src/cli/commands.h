// The commands of the program, one file each.
#pragma once
#include <memory>

#include "cli/command_line.h"

namespace refract {

std::unique_ptr<Command> make_train_command();
std::unique_ptr<Command> make_eval_command();
std::unique_ptr<Command> make_generate_command();
std::unique_ptr<Command> make_inspect_command();
std::unique_ptr<Command> make_export_command();
std::unique_ptr<Command> make_kinds_command();
std::unique_ptr<Command> make_interpolate_command();
std::unique_ptr<Command> make_connectivity_command();
std::unique_ptr<Command> make_align_command();
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

}  // namespace refract
