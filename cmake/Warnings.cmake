# refract_warnings(TARGET): warnings are errors in our own code, never in a library's headers.
function(refract_warnings target)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Werror -Wno-invalid-pch>)
  # A source beside others in one unit looks like a header: its types may well hold what is the file's own.
  get_target_property(unity ${target} UNITY_BUILD)
  if(unity)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wno-subobject-linkage>)
  endif()
endfunction()
