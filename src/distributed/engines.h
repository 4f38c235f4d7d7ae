// Which engine exchanges a device's memory.
#pragma once
#include <c10/core/Device.h>

#include <memory>

#include "distributed/ranks.h"
#include "ops/collectives/collectives.h"

namespace refract {

// NCCL for a GPU, Gloo for the CPU. All processes call it; fails where the engine was not built, or
// they don't find each other within `seconds`. GLOO_SOCKET_IFNAME names the network that Gloo uses
// instead of the one towards process 0.
std::unique_ptr<Collectives> open_engine(at::Device device, const Ranks& ranks, KeyValues& store,
                                         int64_t seconds);

// Where librefract_gloo.so lies: beside librefract_ops.so.
bool has_gloo();

}  // namespace refract
