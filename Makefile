# Each target calls the tool that does the work; read there how.
.PHONY: run test test-matrix test-install check check-deep soak bench build setup deb install clean

run:     ; @scripts/run
test:    ; @scripts/test
test-matrix: ; @scripts/test-matrix
test-install: ; @scripts/test-install
check:   ; @scripts/check
check-deep: ; @scripts/check-deep
soak:    ; @scripts/soak
bench:   ; @bench/run
build:   ; @scripts/build
setup:   ; @scripts/setup
deb:     ; @scripts/deb
install: ; @scripts/install
clean:   ; @scripts/clean
