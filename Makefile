# SPDX-License-Identifier: MIT
# Everything is built out of tree in $(BUILD). Sources are found by wildcard: a new file needs no line here.

BUILD ?= build
CC ?= gcc
CLANG ?= clang
CLANG_FORMAT ?= clang-format-14
AR ?= ar
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR ?= $(PREFIX)/lib/systemd/system
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
FUZZ_SECONDS ?= 10

# Objects made with a sanitizer live in a folder of their own, so that both kinds stay built.
empty :=
comma := ,
O := $(BUILD)$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' '$(1)' '$(patsubst $(BUILD)/%,%,$(2))')

# Flags

PKGS := jansson libprotobuf-c zlib libelf libdw liblz4 liblzma sqlite3 libzstd libsystemd libmicrohttpd libseccomp libcurl libbpf
# Asked once, and only when something is compiled: the packages may be installed by this very make.
PKG_CFLAGS = $(eval PKG_CFLAGS := $$(shell pkg-config --cflags $$(PKGS)))$(PKG_CFLAGS)
PKG_LIBS = $(eval PKG_LIBS := $$(shell pkg-config --libs $$(PKGS)))$(PKG_LIBS)

# Sanitizers make gcc see dangers that are none; warnings are the plain build's business.
WARN := $(if $(SAN),-w,-Wall -Wextra)
# gcc takes it that -errno may be 0, and then that a result was not set. clang does not know the option.
GCC_WARN := $(if $(findstring clang,$(CC)),,-Wno-maybe-uninitialized)
DEV_WARN := -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wpointer-arith \
	-Wundef -Wvla -Wwrite-strings -Wformat-security -Wimplicit-fallthrough -Wdate-time -Wredundant-decls
HARDEN := -fstack-protector-strong -fPIE $(if $(SAN),,-D_FORTIFY_SOURCE=2)
OPT := $(if $(SAN),-O1 -fno-omit-frame-pointer,-O2) -g
SAN_FLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=undefined)

BASE_FLAGS = -std=gnu17 -D_GNU_SOURCE -I. -Iinclude -I$(BUILD)/gen -MMD -MP $(PKG_CFLAGS)
ALL_CFLAGS = $(BASE_FLAGS) $(OPT) $(HARDEN) $(SAN_FLAGS) $(WARN) $(GCC_WARN) $(if $(SAN),,$(if $(DEV),$(DEV_WARN))) $(CPPFLAGS) $(CFLAGS)
ALL_LDFLAGS = -pie -Wl,-z,relro,-z,now -pthread $(SAN_FLAGS) $(LDFLAGS)
LIBS = $(PKG_LIBS) -liberty -lcap -lm $(LDLIBS)
FUZZ_FLAGS = -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined

# Sources

PROTO := $(wildcard engine/export/*.proto)
GEN_C := $(PROTO:%.proto=$(BUILD)/gen/%.pb-c.c)
BPF := $(wildcard bpf/*.bpf.c)
SKEL_H := $(BPF:bpf/%.bpf.c=$(BUILD)/gen/%.skel.h)
GEN_H := $(GEN_C:.c=.h) $(SKEL_H)
BPF_ARCH := $(if $(filter aarch64,$(shell uname -m)),arm64,x86)
BPF_FLAGS = -g -O2 -target bpf -D__TARGET_ARCH_$(BPF_ARCH) -I. -isystem /usr/include/$(shell $(CC) -print-multiarch) -Wall -Wextra \
	-Wno-unused-parameter $(if $(DEV),-Werror)
ENGINE_C := $(wildcard engine/*/*.c)
LIB_O := $(ENGINE_C:%.c=$(O)/obj/%.o) $(GEN_C:$(BUILD)/gen/%.c=$(O)/obj/gen/%.o)
CLI_O := $(patsubst %.c,$(O)/obj/%.o,$(wildcard cli/*.c))
DAEMON_O := $(patsubst %.c,$(O)/obj/%.o,$(wildcard daemon/*.c))
UNIT_O := $(patsubst %.c,$(O)/obj/%.o,$(wildcard tests/unit/*.c tests/replay/*.c))
LIVE := $(patsubst %.c,$(O)/%,$(wildcard tests/live/*.c))
BENCH := $(patsubst %.c,$(O)/%,$(wildcard bench/*.c))
TOOLS := $(patsubst %.c,$(O)/%,$(wildcard tools/*.c))
FUZZ := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_O := $(ENGINE_C:%.c=$(BUILD)/fuzz/obj/%.o) $(GEN_C:$(BUILD)/gen/%.c=$(BUILD)/fuzz/obj/gen/%.o)
C_FILES = $(shell find bench bpf cli daemon engine include tests tools -name '*.[ch]')

LIB := $(O)/libpyspyd.a
# For drivers of live tests, which take parts of it.
DAEMON_LIB := $(O)/libdaemon.a
UNIT := $(if $(UNIT_O),$(O)/tests/unit)

# SOURCE:DESTINATION. systemd reads units, users, tmpfiles and catalogs below /usr/lib and /usr/local/lib.
SHARE = $(PREFIX)/share
INSTALL_FILES = $(foreach n,1 5,$(foreach f,$(wildcard docs/man/*.$n),$f:$(SHARE)/man/man$n/$(notdir $f))) \
	docs/completions/pyspyd.bash:$(SHARE)/bash-completion/completions/pyspyd \
	docs/completions/_pyspyd:$(ZSHDIR)/_pyspyd \
	docs/completions/pyspyd.fish:$(SHARE)/fish/vendor_completions.d/pyspyd.fish \
	systemd/pyspyd.sysusers:$(PREFIX)/lib/sysusers.d/pyspyd.conf \
	systemd/pyspyd.tmpfiles:$(PREFIX)/lib/tmpfiles.d/pyspyd.conf \
	systemd/pyspyd.catalog:$(PREFIX)/lib/systemd/catalog/pyspyd.catalog
INSTALL_CONF = packaging/pyspyd.conf:$(SYSCONFDIR)/pyspyd/pyspyd.conf \
	packaging/logrotate:$(SYSCONFDIR)/logrotate.d/pyspyd

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all help deps deps-test watch test unit live scenarios kernels fuzz fuzz-build tests-build bench bench-build tools nightly check-layers \
	check-format format analyze install uninstall deb clean FORCE
.DEFAULT_GOAL := all

all: $(O)/pyspyd ## builds build/pyspyd

help: ## lists the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18
	@printf '\nvariables: V=1 shows commands, DEV=1 makes warnings errors, SAN=address,undefined builds with sanitizers,\n'
	@printf 'BUILD=DIR builds elsewhere, PID=n with watch, FUZZ_SECONDS=n with fuzz, PREFIX and DESTDIR with install\n'

deps: ## installs the Debian packages that are missing (apt-get)
	@tools/install-deps

deps-test:
	@tools/install-deps test

# What was built by sudo belongs to who called it: a make or tools/build-deb without sudo goes on with it.
give_back = @[ -z "$$SUDO_UID" ] || chown -R "$$SUDO_UID:$$SUDO_GID" $(BUILD)

watch: deps ## installs what is missing, builds, and watches PID=n or an example program until Ctrl-C
	@$(MAKE) --no-print-directory all
	$(give_back)
	@BUILD=$(O) tools/run-watch $(PID)

test: deps-test ## installs what is missing, builds, and runs all tests and checks
	@BUILD=$(BUILD) tests/run; status=$$?; $(subst @,,$(give_back)); exit $$status

unit: $(UNIT) ## runs the unit tests (with SAN=… under sanitizers)
	@tests/run-unit $(UNIT)

tests-build: $(O)/pyspyd $(UNIT) $(LIVE) ## builds everything that the tests run

live: $(O)/pyspyd $(LIVE) ## runs the live and system tests
	@BUILD=$(O) tests/run-live

scenarios: $(O)/pyspyd ## watches programs that hang, and healthy ones, on all interpreters
	@BUILD=$(O) tests/scenarios/run

kernels: ## boots Debian's kernels in virtual machines and tries the package there
	@BUILD=$(BUILD) tests/kernels/run; status=$$?; [ $$status = 77 ] || exit $$status

fuzz-build: $(FUZZ)

fuzz: $(FUZZ) ## runs every fuzz harness for FUZZ_SECONDS
	@BUILD=$(BUILD) tests/run-fuzz $(FUZZ_SECONDS)

bench-build: $(O)/pyspyd $(BENCH)

bench: bench-build ## measures pyspyd beside its peers
	@BUILD=$(O) bench/run

tools: $(TOOLS) ## builds the tools of the tree

nightly: deps-test ## the tests with long fuzz runs, then the benchmark
	@FUZZ_SECONDS=600 SERVICE_KILLS=30 SERVICE_PROMETHEUS=yes RPM_BUILD=yes BUILD=$(BUILD) tests/run
	@$(MAKE) --no-print-directory bench

check-layers: $(GEN_H) ## include directions, cycles, and that each header compiles alone
	@CC='$(CC)' GEN='$(BUILD)/gen' tools/check-layers

check-format: ## compares the C sources with .clang-format
	$(Q)$(CLANG_FORMAT) --dry-run -Werror $(C_FILES)

format: ## formats the C sources
	$(Q)$(CLANG_FORMAT) -i $(C_FILES)

analyze: $(GEN_H) ## static analysis
	@GEN='$(BUILD)/gen' tools/analyze

# The table says where each file goes, for install and uninstall alike.
install: all ## installs program, service, man pages and completions under PREFIX, the configuration in /etc
	$(Q)install -D -m 755 $(O)/pyspyd $(DESTDIR)$(PREFIX)/bin/pyspyd
	$(Q)set -e; for pair in $(INSTALL_FILES); do install -D -m 644 "$${pair%%:*}" "$(DESTDIR)$${pair#*:}"; done
	$(Q)install -d $(DESTDIR)$(UNITDIR) $(DESTDIR)$(SYSCONFDIR)/pyspyd/pyspyd.conf.d
	$(Q)sed 's|/usr/bin/pyspyd|$(PREFIX)/bin/pyspyd|g' systemd/pyspyd.service > $(DESTDIR)$(UNITDIR)/pyspyd.service
	$(Q)chmod 644 $(DESTDIR)$(UNITDIR)/pyspyd.service
	$(Q)set -e; for pair in $(INSTALL_CONF); do \
		[ -e "$(DESTDIR)$${pair#*:}" ] || install -D -m 644 "$${pair%%:*}" "$(DESTDIR)$${pair#*:}"; done

uninstall: ## removes what install put there; the configuration stays
	$(Q)rm -f $(DESTDIR)$(PREFIX)/bin/pyspyd $(DESTDIR)$(UNITDIR)/pyspyd.service
	$(Q)for pair in $(INSTALL_FILES); do rm -f "$(DESTDIR)$${pair#*:}"; done

deb: ## builds the Debian package in build/deb
	@BUILD=$(BUILD) tools/build-deb

clean: ## removes what was built
	rm -rf $(BUILD)

# Rules

# Objects are made again when the flags change.
FLAGS_NOW = $(CC) $(ALL_CFLAGS)
$(O)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(FLAGS_NOW)' | cmp -s - $@ || printf '%s\n' '$(FLAGS_NOW)' > $@

$(BUILD)/gen/%.pb-c.c $(BUILD)/gen/%.pb-c.h &: %.proto
	$(call say,PROTO,$<)
	@mkdir -p $(BUILD)/gen
	$(Q)protoc-c --c_out=$(BUILD)/gen $<

$(BUILD)/gen/%.bpf.o: bpf/%.bpf.c
	$(call say,BPF,$@)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_FLAGS) -MMD -MP -MT $@ -MF $(@:.o=.d) -c $< -o $@

# The program as bytes within a header, with a struct of its maps and variables.
$(BUILD)/gen/%.skel.h: $(BUILD)/gen/%.bpf.o
	$(call say,SKEL,$@)
	$(Q)PATH=$$PATH:/usr/sbin bpftool gen skeleton $< name $*_bpf > $@

$(O)/obj/gen/%.o: $(BUILD)/gen/%.c $(O)/flags
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(filter-out -Werror,$(ALL_CFLAGS)) -w -c $< -o $@

$(O)/obj/%.o: %.c $(O)/flags | $(GEN_H)
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -c $< -o $@

# Made anew each time: an archive keeps members whose source is gone.
$(LIB): $(LIB_O)
$(DAEMON_LIB): $(DAEMON_O)
$(LIB) $(DAEMON_LIB):
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(O)/pyspyd: $(CLI_O) $(DAEMON_O) $(LIB)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ $(LIBS) -o $@

$(O)/tests/unit: $(UNIT_O) $(DAEMON_O) $(LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ $(LIBS) -lcriterion -o $@

$(LIVE) $(BENCH): $(O)/%: $(O)/obj/%.o $(DAEMON_LIB) $(LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ $(LIBS) -o $@

$(TOOLS): $(O)/%: $(O)/obj/%.o $(LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ $(LIBS) -o $@

$(BUILD)/fuzz/obj/gen/%.o: $(BUILD)/gen/%.c
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(BASE_FLAGS) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link -w -c $< -o $@

$(BUILD)/fuzz/obj/%.o: %.c | $(GEN_H)
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(BASE_FLAGS) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link $(WARN) -c $< -o $@

$(BUILD)/fuzz/libpyspyd.a: $(FUZZ_O)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(FUZZ): $(BUILD)/fuzz/%: $(BUILD)/fuzz/obj/tests/fuzz/%.o $(BUILD)/fuzz/libpyspyd.a
	$(call say,LD,$@)
	$(Q)$(CLANG) $(FUZZ_FLAGS) -fsanitize=fuzzer -pthread $^ $(LIBS) -o $@

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
