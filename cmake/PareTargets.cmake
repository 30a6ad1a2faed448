# One static library per folder, one test executable per folder of tests/, the same warnings everywhere.

set(PARE_WARNINGS -Wall -Wextra -Wpedantic -Werror -Wshadow=local -Wnon-virtual-dtor -Wno-missing-field-initializers
    # GCC 12 sees uninitialized members in inlined nlohmann::json iterators that are never read.
    -Wno-maybe-uninitialized
    # At -O3 it warns of std::string's own copies (GCC bug 105329), with precompiled headers under more names.
    "$<$<CONFIG:Release>:-Wno-restrict;-Wno-array-bounds;-Wno-stringop-overflow;-Wno-stringop-overread>")

# The files of tests are a third of a build's time and little of a test's: what they examine is compiled as everywhere.
if(NOT PARE_SANITIZE)  # which are at -O1 anyway
  set(PARE_TEST_OPTIONS $<$<CONFIG:RelWithDebInfo>:-O1>)
endif()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros CCACHE_NOHASHDIR=1 ${CCACHE_PROGRAM})
endif()

if(PARE_SANITIZE)
  add_compile_options(-fsanitize=${PARE_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${PARE_SANITIZE})
endif()

# For a source that stands in for calls (mmap, read) which ThreadSanitizer's runtime makes before it is ready. By the name under which
# this directory's targets list it.
function(pare_without_thread_sanitizer source)
  if(PARE_SANITIZE STREQUAL "thread")
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS -fno-sanitize=thread)
  endif()
endfunction()

# pare_library(NAME SOURCES … PUBLIC … PRIVATE … [PRECOMPILE <slow third-party header> …] [OWN_PRECOMPILED])
# OWN_PRECOMPILED: the library names its precompiled headers itself, whatever PARE_PCH says.
function(pare_library name)
  cmake_parse_arguments(ARG "OWN_PRECOMPILED" "" "SOURCES;PUBLIC;PRIVATE;PRECOMPILE" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_compile_options(${name} PRIVATE ${PARE_WARNINGS})
  target_link_libraries(${name} PUBLIC ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE})
  if(NOT ARG_OWN_PRECOMPILED)
    pare_precompile(${name} pare_pch ${ARG_PRECOMPILE})
  endif()
  set_property(GLOBAL APPEND PROPERTY PARE_LIBRARIES ${name})
endfunction()

# pare_executable(NAME SOURCES … LIBS …)
function(pare_executable name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_compile_options(${name} PRIVATE ${PARE_WARNINGS})
  target_link_libraries(${name} PRIVATE ${ARG_LIBS})
endfunction()

# pare_test(NAME SOURCES … LIBS … [LABELS …] [TIMEOUT seconds]): a GoogleTest executable in BUILD/tests, run as one ctest.
function(pare_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LIBS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_compile_options(${name} PRIVATE ${PARE_WARNINGS} ${PARE_TEST_OPTIONS})
  target_compile_definitions(${name} PRIVATE PARE_SOURCE_DIR="${CMAKE_SOURCE_DIR}" PARE_BIN_DIR="${CMAKE_BINARY_DIR}/bin")
  target_link_libraries(${name} PRIVATE ${ARG_LIBS} GTest::gtest GTest::gmock GTest::gtest_main)
  pare_precompile(${name} pare_test_pch)
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(PARE_SANITIZE)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 6")
    target_compile_definitions(${name} PRIVATE PARE_SANITIZED=1)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
  if(PARE_SANITIZE STREQUAL "thread")
    set_tests_properties(${name} PROPERTIES ENVIRONMENT "TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/tsan.supp ignore_noninstrumented_modules=1")
  endif()
endfunction()
