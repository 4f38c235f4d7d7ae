# refract_warnings(TARGET): warnings are errors in our own code, never in a library's headers.
function(refract_warnings target)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Werror -Wno-invalid-pch>)
endfunction()
