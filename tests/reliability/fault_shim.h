// A library for LD_PRELOAD that lets a file call of a program fail, or kills the program before it.
//
// Counted are the calls on what lies in REFRACT_FAULT_UNDER, an absolute folder: `open` (also for
// writing and of folders; fopen), `read` (pread), `write` (pwrite, writev), `fsync` (fdatasync),
// `rename`, `mkdir`, `unlink`, `mmap`, `ftruncate`. REFRACT_FAULT = "CALL:N:WHAT" makes the N-th
// CALL, counted from 1, do WHAT:
//     ENOSPC, EIO, EINTR, EMFILE, ENOMEM, ENOSYS, EACCES   fail with this error
//     SHORT                                  write or read only the first byte of it
//     KILL                                   end the process by SIGKILL before it
// "any" stands for all calls together. "CALL:N+:WHAT" is the N-th and all that follow (not EINTR:
// the caller is to try again). At the end REFRACT_FAULT_LOG, a file elsewhere, gets the number of
// calls of each kind, so that a test knows how far N goes.
#pragma once

namespace refract::testing {

enum class Call {
  kOpen,
  kRead,
  kWrite,
  kFsync,
  kRename,
  kMkdir,
  kUnlink,
  kMmap,
  kFtruncate,
  kCount
};

// Counts the call; what is to happen to it. 0: nothing. > 0: this errno. -1: a short read or write.
int fault(Call call);

}  // namespace refract::testing
