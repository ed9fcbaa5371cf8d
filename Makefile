# Each target calls the tool that does the work; read there how.
.PHONY: run test test-matrix check check-deep bench build setup install clean

run:     ; @scripts/run
test:    ; @scripts/test
test-matrix: ; @scripts/test-matrix
check:   ; @scripts/check
check-deep: ; @scripts/check-deep
bench:   ; @bench/run
build:   ; @scripts/build
setup:   ; @scripts/setup
install: ; @scripts/install
clean:   ; @scripts/clean
