# Precompiled headers. JSON is in nearly every file and GoogleTest in every test, and each costs seconds to parse: parsed once for
# all libraries (pare_pch) and once for all tests (pare_test_pch). An executable's code is compiled with -fPIE, a library's with
# -fPIC: they cannot share. A build from nothing takes a third less; scripts/build configures with it where there is no compiler
# cache. A file compiles as well without, and that is what plain `cmake --preset` gives: ccache then shares objects between checkouts.
option(PARE_PCH "Parse common third-party headers once" OFF)

set(PARE_PCH_HEADERS <nlohmann/json.hpp> <algorithm> <cstdint> <filesystem> <functional> <map> <memory> <optional> <set> <span> <string>
    <string_view> <utility> <variant> <vector>)

if(PARE_PCH)
  add_library(pare_pch OBJECT EXCLUDE_FROM_ALL ${CMAKE_CURRENT_LIST_DIR}/empty.cc)
  target_link_libraries(pare_pch PRIVATE nlohmann_json::nlohmann_json)
  target_compile_options(pare_pch PRIVATE ${PARE_WARNINGS})
  target_precompile_headers(pare_pch PRIVATE ${PARE_PCH_HEADERS})
  if(PARE_TESTS)
    add_library(pare_test_pch OBJECT EXCLUDE_FROM_ALL ${CMAKE_CURRENT_LIST_DIR}/empty.cc)
    set_target_properties(pare_test_pch PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_link_libraries(pare_test_pch PRIVATE nlohmann_json::nlohmann_json GTest::gtest GTest::gmock)
    target_compile_options(pare_test_pch PRIVATE ${PARE_WARNINGS} ${PARE_TEST_OPTIONS} -fPIE)
    target_precompile_headers(pare_test_pch PRIVATE ${PARE_PCH_HEADERS} <gmock/gmock.h> <gtest/gtest.h> <fstream> <sstream>)
  endif()
endif()

# GCC takes a precompiled header only where it was made with the same options: a source with options of its own goes without.
function(pare_skip_precompiled target)
  get_target_property(sources ${target} SOURCES)
  foreach(source IN LISTS sources)
    get_source_file_property(options ${source} COMPILE_OPTIONS)
    if(options)
      set_source_files_properties(${source} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
    endif()
  endforeach()
endfunction()

# Files of `target` begin with the headers of `owner` or, where more are named, with those and the common ones, parsed for it alone.
function(pare_precompile target owner)
  if(NOT PARE_PCH)
    return()
  endif()
  if(ARGN)
    target_precompile_headers(${target} PRIVATE ${PARE_PCH_HEADERS} ${ARGN})
  else()
    target_precompile_headers(${target} REUSE_FROM ${owner})
  endif()
  # For ccache; and a target with options of its own goes without, loudly.
  target_compile_options(${target} PRIVATE -fpch-preprocess -Wno-error=invalid-pch)
  cmake_language(EVAL CODE "cmake_language(DEFER CALL pare_skip_precompiled ${target})")
endfunction()
