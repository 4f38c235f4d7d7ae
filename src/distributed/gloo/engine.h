// Gloo's collectives, in a library of their own: librefract_gloo.so.
//
// libtorch contains a Gloo too. A program that links the system's gets the two mixed and aborts, so
// this library alone links it, and is opened with RTLD_DEEPBIND. Nothing of Gloo crosses its
// border: numbers, pointers, and std::runtime_error.
#pragma once
#include "ops/collectives/collectives.h"

// The only symbol that is looked up. The engine is the caller's; throws std::runtime_error where
// the processes do not find each other in time. The store must live until it returns.
extern "C" refract::Collectives* refract_make_gloo(const refract::EngineSettings* settings,
                                                   refract::KeyValues* store);
