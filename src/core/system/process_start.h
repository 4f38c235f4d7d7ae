// What the program does before anything else.
#pragma once

namespace refract {

// Opens descriptors 0 to 2 where they are closed, makes failed writes errors of the write, keeps
// freed memory, and limits how long OpenMP's threads spin, for which it may start itself once more.
void start_process(char** argv);

}  // namespace refract
