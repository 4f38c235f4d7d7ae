# Thin: every target is a script or a preset. `make demo` and `make test` are all that a new machine needs.
.PHONY: help demo test build lint format sanitize sanitize-gpu fuzz torture dist wheel install bench clean
PREFIX ?= /usr/local
SECONDS ?= 60

help:       ## this list
	@sed -nE 's/^([a-z-]+): *## */  make \1 \t/p' Makefile | expand -t 18
demo:       ## set up, build, train a small model for two minutes, show what to try next
	@scripts/demo
test:       ## set up, build everything, run all C++ and Python tests
	@scripts/test
build:      ## set up and build the program: ./refract
	@scripts/bootstrap && scripts/build refract && ln -sfn build/release/bin/refract refract
lint:       ## scripts, include directions, clang-format, clang-tidy
	@scripts/lint
format:     ## rewrite our C++ with clang-format
	@scripts/lint --fix format
sanitize:   ## the C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@scripts/sanitize
sanitize-gpu: ## the op tests under compute-sanitizer, where there is a GPU
	@scripts/sanitize-gpu
fuzz:       ## arbitrary bytes for every parser (SECONDS=60 for each; needs clang)
	@scripts/fuzz "$(SECONDS)"
torture:    ## kill the program before each of its file calls, and let each fail: an hour
	@scripts/torture
dist:       ## a relocatable folder, dist/refract
	@scripts/dist
wheel:      ## dist/refract-*.whl, which pip installs where there is no compiler
	@scripts/wheel
install:    ## install the program below PREFIX
	@scripts/install "$(PREFIX)"
bench:      ## build and run the benchmarks
	@scripts/bench
clean:      ## remove what was built; .venv and runs/ stay
	@rm -rf build dist refract
