# refract_library(NAME [TORCH] SOURCES ... DEPS ...): a static library from one folder of src/.
# refract_program(NAME [TORCH] SOURCES ... DEPS ...): an executable.
# refract_test(NAME [TORCH] SOURCES ... DEPS ...): one GoogleTest program for one folder of tests/.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)

# Two precompiled headers, shared by every target: one plain, one with the parts of ATen that are used everywhere.
function(refract_pch_target name header)
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/pch/${name}.cpp CONTENT "")  # leaves an equal file alone
  add_library(${name} OBJECT ${CMAKE_BINARY_DIR}/pch/${name}.cpp)
  target_precompile_headers(${name} PRIVATE ${header})
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
  refract_warnings(${name})
endfunction()
refract_pch_target(refract_pch ${CMAKE_SOURCE_DIR}/cmake/pch.h)
target_link_libraries(refract_pch PRIVATE fmt::fmt)
refract_pch_target(refract_pch_torch ${CMAKE_SOURCE_DIR}/cmake/pch_torch.h)
target_link_libraries(refract_pch_torch PRIVATE fmt::fmt libtorch::headers)

function(refract_configure target torch)
  target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR})
  # at::parallel_for runs on one core only, and says nothing, where -fopenmp is missing.
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
  if(torch)
    target_link_libraries(${target} PUBLIC libtorch::cpu fmt::fmt)
    target_precompile_headers(${target} REUSE_FROM refract_pch_torch)
  else()
    target_link_libraries(${target} PUBLIC fmt::fmt)
    target_precompile_headers(${target} REUSE_FROM refract_pch)
  endif()
  refract_warnings(${target})
endfunction()

function(refract_library name)
  cmake_parse_arguments(arg "TORCH" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${arg_SOURCES})
  refract_configure(${name} ${arg_TORCH})
  target_link_libraries(${name} PUBLIC ${arg_DEPS} Threads::Threads)
endfunction()

function(refract_program name)
  cmake_parse_arguments(arg "TORCH" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  # CMake would say -fPIE, which the precompiled header (made with -fPIC) does not go with.
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fPIC>)
  refract_configure(${name} ${arg_TORCH})
  target_link_libraries(${name} PRIVATE ${arg_DEPS})
endfunction()

function(refract_test name)
  cmake_parse_arguments(arg "TORCH" "" "SOURCES;DEPS" ${ARGN})
  if(arg_TORCH)
    set(arg_TORCH TORCH)
  else()
    set(arg_TORCH "")
  endif()
  refract_program(${name} ${arg_TORCH} SOURCES ${arg_SOURCES} DEPS ${arg_DEPS} GTest::gtest GTest::gtest_main)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
endfunction()
