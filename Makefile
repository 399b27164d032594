# gantry: one Makefile for all folders.
#
# The two commands:
#   make demo          set up, build, and watch a robot policy learn (CPU, about 10 minutes on two cores)
#   make test          set up, build, and run every test that needs no GPU
#
# More:
#   make               build everything into bin/ (needs `make setup` once)
#   make setup         install packages and MuJoCo; quiet when nothing is missing
#   make check-layers  who may include whom, read off the #include lines
#   make check-headers every header compiles alone
#   make tidy          clang-tidy over the sources;  make format: clang-format in place
#   make libero-assets fetch robosuite's files for the LIBERO suites (PyPI wheel), say how to get LIBERO's
#   make libero-check  all reference data of the original LIBERO in $GANTRY_GOLDENS/libero
#   make bench         side-by-side measurements (tests/bench), printed as ratios
#   make fuzz          run the fuzz targets for real (clang, libFuzzer); FUZZ_SECONDS=60 each
#   make test-fault    named faults in real daemons, the short form;  make chaos: kill loops in real training (CHAOS="--kills 100"),
#                      then workers that come and go, and a bad cable (as root)
#   make chaos-long    the same in their long forms, fifty swaps, a soak, power cuts and damaged files: some hours; what has failed is
#                      named at the end
#   make chaos-sim     100,000 seeded histories of the protocol under faults
#   make install       programs, units and job scripts; DESTDIR=, PREFIX=/usr/local, UNITDIR=
#   make gpu-check     everything that needs a GPU, with a report (build/gpu-check.txt); says why when there is none
#   make sanitizer     fetch compute-sanitizer for gpu-check, where the toolkit has none (PyPI wheel)
#   make gpu-bench     its kernels, and OpenVLA-7B's sizes with random weights or MODEL=DIR: TFLOP/s, GB/s, % of roofline, actions/s; NUMERICS=strict
#   make gpu-beside    acting and learning beside PyTorch on the same device: a table of ratios (build/beside-torch.txt)
#   make gpu-count     the same models on a device that only counts, here: kernels, bytes, operations, what they take at the least; PART=act
#   make clean
#
# Switches: V=1 (show commands)  SANITIZE=address,undefined | thread  GPU=0|1 (default: is nvcc there)
#           MUJOCO_DIR=/path (default .deps/mujoco-3.3.2, fetched by setup)

.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all
SHELL := /bin/bash

V ?= 0
Q := $(if $(filter 1,$(V)),,@)
SANITIZE ?=
NVCC ?= $(firstword $(wildcard /usr/local/cuda/bin/nvcc) $(shell command -v nvcc 2>/dev/null))
GPU ?= $(if $(NVCC),1,0)
MUJOCO_DIR ?= $(CURDIR)/.deps/mujoco-3.3.2

comma := ,
B := build/$(if $(SANITIZE),$(subst $(comma),-,$(SANITIZE)),release)
BIN := $(if $(SANITIZE),$(B)/bin,bin)

# ---- flags -----------------------------------------------------------------------------------
CC ?= gcc
PACKAGES := libzmq libprotobuf-c libuv yaml-0.1 jansson sqlite3 libpng libturbojpeg libzstd libpcre2-8 zlib
PKG_CFLAGS := $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null) $(shell pkg-config --cflags hdf5 2>/dev/null)
HDF5_LIBS := $(shell pkg-config --libs hdf5 2>/dev/null)
PKG_LIBS := $(shell pkg-config --libs $(PACKAGES) 2>/dev/null)
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)

OPT := -O2 -g -fno-omit-frame-pointer
SAN := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all)
WARN := -Wall -Wextra -Werror -Wmissing-prototypes -Wstrict-prototypes -Wvla \
	-Wpointer-arith -Wshadow -Wundef -Wformat=2 -Wno-format-truncation
# -ffp-contract=off: numerics are the same on every CPU; kernels ask for FMA by name.
CFLAGS := -std=gnu11 $(OPT) $(WARN) $(SAN) -ffp-contract=off -fno-math-errno -pthread
CPPFLAGS := -D_GNU_SOURCE -Ilib -I. -I$(B) -isystem $(MUJOCO_DIR)/include $(PKG_CFLAGS) -DGANTRY_GPU=$(GPU)
LDFLAGS := $(SAN) -pthread -rdynamic -Wl,-rpath,$(MUJOCO_DIR) -Wl,-rpath,'$$ORIGIN/../lib/gantry'
LDLIBS := $(PKG_LIBS) -lm -ldl
MUJOCO_LIBS := -L$(MUJOCO_DIR) -lmujoco -lEGL -lGL
# --fmad=false: kernels ask for FMA by name, as on the CPU. No debug information: it doubles the compile time. A kernel whose registers
# do not suffice, or that has an array in local memory, does not build: no test without a device would see how slow it is.
NVCCFLAGS := -O2 -lineinfo -std=c++17 --fmad=false -Werror all-warnings -Xptxas -Werror,-warn-spills,-warn-lmem-usage \
	-Xcompiler -Wall,-Wextra -Ilib -I. -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=[sm_90,compute_90]
CUDA_DIR := $(patsubst %/bin/nvcc,%,$(NVCC))
ifeq ($(GPU),1)
# static: programs start where there is no toolkit. cuBLASLt and cuDNN are opened when they are there (lib/nn/device).
CUDA_LIBS := -L$(CUDA_DIR)/lib64 -lcudart_static -lrt -lstdc++
endif

# ---- what is built ---------------------------------------------------------------------------
LIBS := base daemon wire serve nn rl image run sim train data
DAEMONS := coordinator env_worker actor prm_server learner
protos := $(wildcard proto/*.proto)
proto_c := $(protos:%.proto=$(B)/%.pb-c.c)
proto_h := $(protos:%.proto=$(B)/%.pb-c.h)
# what only builds with, or only builds without CUDA's headers have
DEVICE_ONLY := $(if $(filter 1,$(GPU)),lib/nn/device/none.c lib/nn/device/none_libraries.c,lib/nn/device/blas.c lib/nn/device/dnn.c lib/nn/device/dnn_graph.c)
find_c = $(sort $(filter-out lib/nn/cpu/kernels/% $(DEVICE_ONLY),$(wildcard $(1)/*.c $(1)/*/*.c $(1)/*/*/*.c)))
KERNELS := $(sort $(wildcard lib/nn/cpu/kernels/*.c))
MACHINE := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
ISAS_x86_64 := avx2 avx512
ISAS_aarch64 := neon
ISAS := generic $(ISAS_$(MACHINE))
# plain C, for other CPUs: sixteen-fold scalar code, which -O3 and the sanitizers blow up to minutes of compiling
ISA_generic := -Os -fno-sanitize=all $(if $(findstring clang,$(CC)),,-fno-tree-loop-distribute-patterns -fno-var-tracking-assignments)
ISA_avx2 := -mavx2 -mfma
ISA_avx512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512

# loops over every number of a file, which gcc makes wide instructions of from here on
$(B)/lib/nn/dtype.o: private CFLAGS += -O3

define lib_rules
$(1)_src := $$(call find_c,lib/$(1))
$(1)_obj := $$($(1)_src:%.c=$(B)/%.o)
endef
$(foreach l,$(LIBS),$(eval $(call lib_rules,$(l))))
nn_obj += $(foreach i,$(ISAS),$(KERNELS:%.c=$(B)/%.$(i).o))
ifeq ($(GPU),1)
nn_obj += $(patsubst %.cu,$(B)/%.cu.o,$(wildcard lib/nn/*.cu lib/nn/*/*.cu))
endif
daemon_src := $(filter-out %/main.c,$(call find_c,lib/daemon))
$(foreach d,$(DAEMONS),$(eval $(d)_lib := $(patsubst %.c,$(B)/%.o,$(filter-out %/main.c,$(wildcard $(d)/*.c)))))

archives := $(LIBS:%=$(B)/lib%.a)
daemon_archives := $(DAEMONS:%=$(B)/lib%.a)
# link order: who uses comes before who is used
LINK_LIBS := $(foreach l,data train serve wire daemon run nn sim image rl,$(B)/lib$(l).a) $(B)/libproto.a $(B)/libbase.a
programs := $(foreach d,$(DAEMONS),$(if $(wildcard $(d)/main.c),$(BIN)/gantry-$(subst _,-,$(d)))) $(if $(wildcard cli/main.c),$(BIN)/gantry)

.PHONY: all
all: $(programs)

$(B)/flags: FORCE
	@mkdir -p $(@D); echo '$(CC) $(CFLAGS) $(CPPFLAGS) $(NVCCFLAGS)' | cmp -s - $@ || echo '$(CC) $(CFLAGS) $(CPPFLAGS) $(NVCCFLAGS)' > $@
$(B)/version.h: FORCE
	@mkdir -p $(@D); echo '#define GANTRY_BUILD "$(VERSION)"' | cmp -s - $@ || echo '#define GANTRY_BUILD "$(VERSION)"' > $@
.PHONY: FORCE
FORCE:

$(B)/proto/%.pb-c.c $(B)/proto/%.pb-c.h: proto/%.proto
	@mkdir -p $(B)/proto; [ $(V) = 1 ] || echo "  PROTO $<"
	$(Q)protoc-c --proto_path=proto --c_out=$(B)/proto $<
.SECONDARY: $(proto_c) $(proto_h)

# MJCF is kept as XML and compiled in: one C string literal per line
sim_xml := $(wildcard lib/sim/suites/*/*.xml)
$(B)/%.xml.inc: %.xml
	@mkdir -p $(@D)
	$(Q)sed 's/[\\"]/\\&/g; s/^/"/; s/$$/\\n"/' $< > $@
$(sim_obj): | $(sim_xml:%=$(B)/%.inc)

$(B)/%.o: %.c $(B)/flags | $(proto_h) $(B)/version.h
	@mkdir -p $(@D); [ $(V) = 1 ] || echo "  CC    $<"
	$(Q)$(CC) $(CFLAGS) $(CPPFLAGS) -MMD -MP -c -o $@ $<
# only these see CUDA's headers
$(B)/tests/nn/test_nccl.o: private CPPFLAGS += $(if $(filter 1,$(GPU)),-isystem $(CUDA_DIR)/include)
$(B)/lib/nn/device/%.o $(B)/lib/nn/device/%.tidy: private CPPFLAGS += $(if $(filter 1,$(GPU)),-isystem $(CUDA_DIR)/include)
$(B)/proto/%.pb-c.o: $(B)/proto/%.pb-c.c $(B)/flags | $(proto_h)
	$(Q)$(CC) $(filter-out -Wshadow -Wundef,$(CFLAGS)) $(CPPFLAGS) -I$(B)/proto -MMD -MP -c -o $@ $<
$(B)/%.cu.o: %.cu $(B)/flags
	@mkdir -p $(@D); [ $(V) = 1 ] || echo "  NVCC  $<"
	$(Q)$(NVCC) $(NVCCFLAGS) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
# The generic kernels are not instrumented: their unrolled lanes take the compiler minutes then; nor is any for fuzzing, which is of
# parsers, and where clang takes minutes for all of them. The others are.
define isa_rule
$(B)/lib/nn/cpu/kernels/%.$(1).o: lib/nn/cpu/kernels/%.c $(B)/flags
	@mkdir -p $$(@D); [ $(V) = 1 ] || echo "  CC    $$< ($(1))"
	$(Q)$(CC) $(filter-out -O2,$(CFLAGS)) $(if $(SANITIZE),-O1 $(if $(filter generic,$(1))$(findstring fuzzer,$(SANITIZE)),-fno-sanitize=all),-O3) $(CPPFLAGS) $(ISA_$(1)) -DISA=$(1) -DISA_$(1)=1 -MMD -MP -c -o $$@ $$<
endef
$(foreach i,$(ISAS),$(eval $(call isa_rule,$(i))))

define archive_rule
$(B)/lib$(1).a: $(2)
	@mkdir -p $$(@D); rm -f $$@; ar rcs $$@ $$^
endef
$(foreach l,$(LIBS),$(eval $(call archive_rule,$(l),$($(l)_obj))))
$(foreach d,$(DAEMONS),$(eval $(call archive_rule,$(d),$($(d)_lib))))
$(eval $(call archive_rule,cli,$(patsubst %.c,$(B)/%.o,$(filter-out %/main.c,$(wildcard cli/*.c)))))
$(B)/libproto.a: $(proto_c:.c=.o)
	@mkdir -p $(@D); rm -f $@; ar rcs $@ $^

link = @mkdir -p $(@D); [ $(V) = 1 ] || echo "  LINK  $@"; 
define program_rule
$(BIN)/gantry-$(subst _,-,$(1)): $(B)/$(1)/main.o $(B)/lib$(1).a $(LINK_LIBS)
	@mkdir -p $$(@D); [ $(V) = 1 ] || echo "  LINK  $$@"
	$(Q)$(CC) $$(LDFLAGS) -o $$@ $$^ $(if $(filter env_worker,$(1)),$(MUJOCO_LIBS)) $(if $(filter coordinator actor prm_server learner,$(1)),$(CUDA_LIBS)) $(LDLIBS)
endef
$(foreach d,$(DAEMONS),$(eval $(call program_rule,$(d))))
$(BIN)/gantry: $(patsubst %.c,$(B)/%.o,$(wildcard cli/*.c)) $(daemon_archives) $(LINK_LIBS)
	@mkdir -p $(@D); [ $(V) = 1 ] || echo "  LINK  $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(MUJOCO_LIBS) $(CUDA_LIBS) $(HDF5_LIBS) $(LDLIBS)

$(B)/cli/cmd_demo.o: deploy/demo.yaml

# ---- tests: every tests/<group>/test_*.c is one program, linked with everything ------------------
tests_c := $(wildcard tests/*/test_*.c)
tests_bin := $(tests_c:%.c=$(B)/%)
# what tests share; an archive, so that a test of a few lines is linked with a few files and not with thirty megabytes
tests_helpers := $(B)/libharness.a
$(eval $(call archive_rule,harness,$(patsubst %.c,$(B)/%.o,$(wildcard tests/harness/*.c tests/sim/sim_*.c))))
# the kernels of lib/nn/cuda once more, by g++, for an emulated device (tests/emulate); only tests that name it link it
emulated_cu := $(filter-out lib/nn/cuda/machine.cu,$(wildcard lib/nn/cuda/*.cu))
emulated := $(emulated_cu:%.cu=$(B)/emulated/%.o) $(patsubst %.cc,$(B)/emulated/%.o,$(wildcard tests/emulate/*.cc))
# -mfma: a kernel's fmaf is one instruction and not a call, which took half of the time (simt_host.cc says so where a CPU has none)
CXXFLAGS := -std=c++17 $(if $(filter x86_64,$(MACHINE)),-mfma) $(if $(SANITIZE),-O1,-O2) -g -fno-omit-frame-pointer -Wall -Wextra -Werror $(SAN) -ffp-contract=off -fno-math-errno -pthread
CXX := $(if $(findstring ccache,$(CC)),ccache )g++
$(B)/emulated/%.o: %.cu $(B)/flags
	@mkdir -p $(@D); [ $(V) = 1 ] || echo "  CXX   $<"
	$(Q)$(CXX) $(CXXFLAGS) -Ilib -I. -include tests/emulate/simt_host.h -x c++ -MMD -MP -c -o $@ $<
$(B)/emulated/%.o: %.cc $(B)/flags
	@mkdir -p $(@D); [ $(V) = 1 ] || echo "  CXX   $<"
	$(Q)$(CXX) $(CXXFLAGS) -Ilib -I. -include tests/emulate/simt_host.h -MMD -MP -c -o $@ $<
$(B)/libemulated.a: $(emulated)
	@rm -f $@; ar rcs $@ $^
# these run on machines with a GPU and little else (tests/gpu/bundle.sh), without HDF5
$(patsubst %.c,$(B)/%,$(wildcard tests/nn/test_device*.c)): $(B)/tests/nn/%: $(B)/tests/nn/%.o $(tests_helpers) $(daemon_archives) $(LINK_LIBS) $(B)/libemulated.a
	@mkdir -p $(@D); [ $(V) = 1 ] || echo "  LINK  $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(MUJOCO_LIBS) $(CUDA_LIBS) $(LDLIBS) -lstdc++ -lcmocka
# a learner and a `gantry` whose cuda:N is the emulated device, an NCCL between processes, a driver of the past (tests/system/test_device_*.py);
# a driver for cuDNN to compile for (tests/nn/test_dnn_engines.c)
emulated_programs := $(addprefix $(B)/tests/emulate/,gantry-learner gantry libnccl.so.2 old-driver/libcuda.so.1 stand-in-driver/libcuda.so.1)
$(B)/tests/emulate/gantry: $(B)/tests/emulate/as_cuda.o $(patsubst %.c,$(B)/%.o,$(wildcard cli/*.c)) $(daemon_archives) $(LINK_LIBS) $(B)/libemulated.a
	@$(if $(V),,echo "  LINK  $@")
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(MUJOCO_LIBS) $(CUDA_LIBS) $(HDF5_LIBS) $(LDLIBS) -lstdc++
$(B)/tests/emulate/old-driver/libcuda.so.1: tests/emulate/old_driver.c $(B)/flags
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -fPIC -shared -o $@ $<
$(B)/tests/emulate/stand-in-driver/libcuda.so.1: tests/emulate/stand_in_driver.c $(B)/flags
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -fPIC -shared -Wl,-soname,libcuda.so.1 -o $@ $<
$(B)/tests/emulate/gantry-learner: $(B)/tests/emulate/as_cuda.o $(B)/learner/main.o $(B)/liblearner.a $(LINK_LIBS) $(B)/libemulated.a
	@mkdir -p $(@D); [ $(V) = 1 ] || echo "  LINK  $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(CUDA_LIBS) $(LDLIBS) -lstdc++
$(B)/tests/emulate/libnccl.so.2: tests/emulate/nccl_library.c $(B)/flags
	@mkdir -p $(@D); [ $(V) = 1 ] || echo "  CC    $<"
	$(Q)$(CC) $(CFLAGS) $(CPPFLAGS) -fPIC -shared -o $@ $<
$(B)/tests/nn/test_dnn_engines: | $(B)/tests/emulate/stand-in-driver/libcuda.so.1
$(B)/tests/%: $(B)/tests/%.o $(tests_helpers) $(B)/libcli.a $(daemon_archives) $(LINK_LIBS)
	@mkdir -p $(@D); [ $(V) = 1 ] || echo "  LINK  $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(MUJOCO_LIBS) $(CUDA_LIBS) $(HDF5_LIBS) $(LDLIBS) -lcmocka
.PRECIOUS: $(B)/%.o
# Fuzz targets replay their corpus here; `make fuzz` builds them with clang and libFuzzer instead.
fuzz_c := $(wildcard tests/fuzz/fuzz_*.c)
fuzz_bin := $(fuzz_c:%.c=$(B)/%)
fuzz_main := $(if $(findstring fuzzer,$(SANITIZE)),,$(B)/tests/fuzz/standalone.o)
$(fuzz_bin): $(B)/tests/fuzz/%: $(B)/tests/fuzz/%.o $(B)/tests/harness/scratch.o $(fuzz_main) $(daemon_archives) $(LINK_LIBS)
	@mkdir -p $(@D); [ $(V) = 1 ] || echo "  LINK  $@"
	$(Q)$(CC) $(subst fuzzer-no-link,fuzzer,$(LDFLAGS)) -o $@ $^ $(MUJOCO_LIBS) $(CUDA_LIBS) $(HDF5_LIBS) $(LDLIBS)
bench_bin := $(patsubst %.c,$(B)/%,$(wildcard tests/bench/bench_*.c))

.PHONY: tests benches fuzz-targets setup
tests: $(tests_bin) $(emulated_programs)
fuzz-targets: $(fuzz_bin)
benches: $(bench_bin)
setup:
	@deploy/setup.sh test

-include $(shell find $(B) -name '*.d' 2>/dev/null)

# ---- installation: programs, units, job scripts; MuJoCo's library beside them -------------------------------------------------------
PREFIX ?= /usr/local
install_bin = $(DESTDIR)$(PREFIX)/bin
install_share = $(DESTDIR)$(PREFIX)/share/gantry
UNITDIR ?= $(PREFIX)/lib/systemd/system
.PHONY: install
install: all
	@install -d $(install_bin) $(DESTDIR)$(PREFIX)/lib/gantry $(DESTDIR)$(UNITDIR) $(install_share)/slurm $(install_share)/doc
	@install -m 755 $(programs) $(install_bin)
	@install -m 644 $(MUJOCO_DIR)/libmujoco.so.3.3.2 $(DESTDIR)$(PREFIX)/lib/gantry
	@for u in deploy/systemd/*; do sed 's,@BINDIR@,$(PREFIX)/bin,; s,@DOCDIR@,$(PREFIX)/share/gantry/doc,' $$u > $(DESTDIR)$(UNITDIR)/$${u##*/}; done
	@install -m 755 deploy/slurm/*.sbatch $(install_share)/slurm
	@install -m 644 deploy/*.yaml deploy/*.py deploy/grafana.json $(install_share)
	@cp -r models $(install_share)/; cp -r docs/. $(install_share)/doc
	@echo "installed into $(DESTDIR)$(PREFIX); units into $(DESTDIR)$(UNITDIR)"

.PHONY: test demo bench fuzz clean help check-layers check-headers format tidy compile_commands.json
test: setup
	@tests/run.sh
.PHONY: libero-assets libero-check
libero-assets:
	@deploy/libero_assets.sh
libero-check: $(BIN)/gantry
	@$(BIN)/gantry sim check --suite libero --golden $${GANTRY_GOLDENS:?is not set}/libero
.PHONY: test-fault chaos chaos-sim
test-fault:
	@tests/run.sh fault
# a list of commands in quotes, one after the other; what has failed is named at the end
each_of = failed=; for run in $(1); do echo "== $$run"; PATH=/usr/bin:$$PATH $$run || failed="$$failed; $$run"; done; \
          [ -z "$$failed" ] || { echo "$@: failed$${failed}"; exit 1; }
chaos: CHAOS ?= --kills 10
chaos_short = "python3 tests/fault/chaos.py $(CHAOS)" "python3 tests/fault/churn.py --minutes 2 --calm 1" \
               $(if $(filter 0,$(shell id -u)),"python3 tests/fault/network.py --runs 2")
chaos: all
	@$(call each_of,$(chaos_short))
chaos_long := "python3 tests/fault/chaos.py $(CHAOS)" "python3 tests/fault/churn.py --minutes 60" "python3 tests/fault/swaps.py" "python3 tests/fault/soak.py" \
              "python3 tests/fault/network.py" "env POWER_RUNS=30 POWER_SEEDS=5 POWER_RESUMES=1 $(B)/tests/unit/test_power_loss" \
              "env CORRUPTIONS=1000000 $(B)/tests/unit/test_corruption" "env CORRUPTIONS=1000000 $(B)/tests/unit/test_ledger_damage"
chaos-long: all $(patsubst %,$(B)/tests/unit/test_%,power_loss corruption ledger_damage)
	@$(call each_of,$(chaos_long))
chaos-sim: $(B)/tests/sim/test_sim
	@SIM_HISTORIES=$${SIM_HISTORIES:-100000} $<
.PHONY: gpu-check gpu-bench gpu-beside gpu-count sanitizer chaos-long
sanitizer:
	@deploy/sanitizer.sh
gpu_benches := $(B)/tests/bench/bench_gpu $(B)/tests/bench/bench_gpu_models
gpu-check: $(patsubst %.c,$(B)/%,$(wildcard tests/nn/test_device*.c)) $(gpu_benches) $(BIN)/gantry
	@tests/gpu/check.sh
gpu_device = $${GANTRY_TEST_DEVICE:-cuda:0}
gpu-bench: $(gpu_benches)
	@$< $(gpu_device) || { s=$$?; [ $$s = 77 ] && exit 0; exit $$s; }; \
	    for part in act adapters train oft score prm contract; do $(word 2,$^) $(gpu_device) $$part $(or $(NUMERICS),fast) $(MODEL) || failed=1; done; [ -z "$$failed" ]
gpu-beside: $(gpu_benches)
	@tests/gpu/beside_torch.sh
gpu-count: $(B)/tests/bench/bench_gpu_count
	@$< -v $(PART)
demo:
	@deploy/setup.sh build
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@$(BIN)/gantry demo $(if $(SEED),--seed $(SEED))
help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed '/^----/,$$d' | head -35
clean:
	$(Q)rm -rf build bin
check-layers:
	@tests/check_layers.py
check-headers: | $(proto_h) $(B)/version.h
	@for h in $$(git ls-files '*.h' | grep -vE '^lib/nn/cpu/kernels/|^lib/nn/cuda/|simt_host.h'); do echo "#include \"$$h\"" | $(CC) $(CFLAGS) $(CPPFLAGS) -fsyntax-only -x c - || { echo "check-headers: $$h does not compile alone"; exit 1; }; done
FUZZ_SECONDS ?= 60
fuzz_make = $(MAKE) --no-print-directory CC=clang WARN=-Wall SANITIZE=fuzzer-no-link,address,undefined GPU=0
fuzz:
	@$(fuzz_make) -j$$(nproc) fuzz-targets
	@for t in $(fuzz_c:tests/fuzz/fuzz_%.c=%); do mkdir -p build/fuzz-corpus/$$t; \
	    build/fuzzer-no-link-address-undefined/tests/fuzz/fuzz_$$t -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -timeout=10 \
	        -artifact_prefix=build/fuzz-corpus/ build/fuzz-corpus/$$t tests/fuzz/corpus/$$t >build/fuzz-corpus/$$t.log 2>&1 && \
	        echo "fuzz $$t: nothing found in $(FUZZ_SECONDS) s" || { tail -40 build/fuzz-corpus/$$t.log; exit 1; }; done
# one stamp a file, younger than its object: only what changed, or whose headers did, is looked at again
tidy_src := $(foreach l,$(LIBS),$($(l)_src)) $(wildcard cli/*.c $(DAEMONS:%=%/*.c))
$(B)/%.tidy: %.c $(B)/%.o .clang-tidy
	@[ $(V) = 1 ] || echo "  TIDY  $<"
	$(Q)clang-tidy --quiet $< -- $(CFLAGS) $(CPPFLAGS) -Wno-unknown-warning-option 2>$(@:.tidy=.tidy.log) || { cat $(@:.tidy=.tidy.log); exit 1; }
	@touch $@
tidy: $(tidy_src:%.c=$(B)/%.tidy)
	@echo "tidy: clean"
format:
	$(Q)clang-format -i $$(git ls-files '*.c' '*.h' '*.cu')
compile_commands.json:
	@$(MAKE) -s -B -n V=1 all tests | python3 tests/compile_commands.py > $@
