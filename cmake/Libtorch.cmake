# Imported targets libtorch::cpu and libtorch::cuda from an installed torch wheel. find_package(Torch) refuses
# a CUDA wheel on a machine without a CUDA toolkit, and most machines have none.
if(NOT REFRACT_TORCH)
  file(GLOB refract_torch_found ${CMAKE_SOURCE_DIR}/.venv/lib/python3.*/site-packages/torch)
  if(refract_torch_found)
    list(GET refract_torch_found 0 REFRACT_TORCH)
  endif()
endif()
if(NOT EXISTS ${REFRACT_TORCH}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "No torch wheel found (looked for '${REFRACT_TORCH}/lib/libtorch_cpu.so'). "
                      "Run scripts/bootstrap, or set REFRACT_TORCH to the 'torch' folder of an installed torch 2.11.0.")
endif()
file(STRINGS ${REFRACT_TORCH}/version.py refract_torch_version REGEX "^__version__")
if(NOT refract_torch_version MATCHES "2\\.11\\.0")
  message(FATAL_ERROR "refract is built against torch 2.11.0; ${REFRACT_TORCH} holds ${refract_torch_version}.")
endif()
set(REFRACT_TORCH_VERSION 2.11.0)
cmake_path(GET REFRACT_TORCH PARENT_PATH refract_site_packages)
set(REFRACT_TORCH_LIB ${REFRACT_TORCH}/lib)

# The wheel carries fmt's headers of another version than the system's library; ours must be found first.
find_path(refract_fmt_include fmt/format.h REQUIRED)
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/include)
file(CREATE_LINK ${refract_fmt_include}/fmt ${CMAKE_BINARY_DIR}/include/fmt SYMBOLIC)

add_library(libtorch::headers INTERFACE IMPORTED)
target_include_directories(libtorch::headers SYSTEM INTERFACE
  ${CMAKE_BINARY_DIR}/include
  ${REFRACT_TORCH}/include ${REFRACT_TORCH}/include/torch/csrc/api/include)
target_compile_definitions(libtorch::headers INTERFACE _GLIBCXX_USE_CXX11_ABI=1)

# The wheel's libraries find their NVIDIA neighbours by their own RPATH; only the linker must be told.
add_library(libtorch::cpu INTERFACE IMPORTED)
target_link_libraries(libtorch::cpu INTERFACE libtorch::headers
  ${REFRACT_TORCH_LIB}/libtorch_cpu.so ${REFRACT_TORCH_LIB}/libc10.so)
# The wheel's own OpenMP runtime, by name: the system's beside it would start a second set of threads.
if(EXISTS ${REFRACT_TORCH_LIB}/libgomp.so.1)
  target_link_libraries(libtorch::cpu INTERFACE ${REFRACT_TORCH_LIB}/libgomp.so.1)
endif()
target_link_options(libtorch::cpu INTERFACE
  -Wl,-rpath-link,${refract_site_packages}/nvidia/cu13/lib:${REFRACT_TORCH_LIB})

if(EXISTS ${REFRACT_TORCH_LIB}/libtorch_cuda.so)
  add_library(libtorch::cuda INTERFACE IMPORTED)
  target_link_libraries(libtorch::cuda INTERFACE libtorch::cpu
    ${REFRACT_TORCH_LIB}/libtorch_cuda.so ${REFRACT_TORCH_LIB}/libc10_cuda.so)
endif()
list(APPEND CMAKE_BUILD_RPATH ${REFRACT_TORCH_LIB})
