# Five doors: build demo test bench lint. Each sets up what it needs; as root on Debian, missing packages are installed.

PYTHON ?= /usr/bin/python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check
SOURCES := $(shell find src bin packaging -type f ! -name '*.pyc' ! -path src/rundlet/executor/executor) hatch_build.py pyproject.toml LICENSE

# COMMAND:PACKAGE where any program of that name will do, else a package
BUILD_NEEDS := $(firstword $(CC)):gcc python3-venv libseccomp2
LAB_NEEDS := busybox-static qemu-system-x86 apparmor
DEMO_NEEDS := $(LAB_NEEDS) crun runc
TEST_NEEDS := $(LAB_NEEDS) crun runc python3-libapparmor uidmap util-linux procps iproute2 strace gcc clang libclang-rt-14-dev gcc-aarch64-linux-gnu \
	linux-libc-dev-arm64-cross qemu-user-static golang-github-containers-common systemd dbus auditd libc6-dev chromium chromium-driver
BENCH_NEEDS := busybox-static crun runc

.PHONY: build demo test bench lint
.DELETE_ON_ERROR:
.NOTPARALLEL:

build: $(VENV)/built
	@:

demo: build
	$(call root,demo boots a kernel over this machine's files and runs containers)
	$(call need,$(DEMO_NEEDS))
	@$(VENV)/bin/python demo/demo.py

test: build $(VENV)/test $(VENV)/docker-seccomp.json
	$(call root,test runs containers and boots kernels)
	$(call need,$(TEST_NEEDS))
	@$(VENV)/bin/python -m pytest -n 2 --dist loadfile tests

bench: build
	$(call root,bench runs containers)
	$(call need,$(BENCH_NEEDS))
	@$(VENV)/bin/python bench/bench.py

lint: build $(VENV)/test $(VENV)/lint
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/mypy

$(VENV)/made: Makefile
	$(call need,$(BUILD_NEEDS))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "rundlet needs Python 3.11 or newer; $(PYTHON) is older: make PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install 'hatchling>=1.26'
	@touch $@

# not editable: what runs here is what a user gets
$(VENV)/built: $(VENV)/made $(SOURCES)
	@$(PIP) install --no-build-isolation .
	@$(VENV)/bin/python -I -m rundlet.install $(VENV)/bin/rundlet
	@$(VENV)/bin/python src/rundlet/executor/compile.py src/rundlet/executor/executor  # the sources can be run too: tests do
	@touch $@

$(VENV)/test $(VENV)/lint: $(VENV)/%: $(VENV)/made pyproject.toml
	@$(PIP) install --no-build-isolation '.[$*]'
	@$(VENV)/bin/python -I -m rundlet.install $(VENV)/bin/rundlet
	@touch $@

# Docker's filter: in a package of sources with thirty dependencies that nobody needs here, so it is not installed
$(VENV)/docker-seccomp.json:
	@! command -v apt-get >/dev/null || { rm -rf $(VENV)/docker && mkdir $(VENV)/docker && cd $(VENV)/docker && \
	get="apt-get download -qq -o APT::Sandbox::User=root golang-github-docker-docker-dev" && \
	{ $$get 2>/dev/null || { apt-get update -qq && $$get; }; } && dpkg-deb --fsys-tarfile *.deb | \
	tar -xO ./usr/share/gocode/src/github.com/docker/docker/profiles/seccomp/default.json >new && mv new ../docker-seccomp.json && rm -r ../docker; }

define root
@[ "$$(id -u)" = 0 ] || { echo "make: $(1), so it needs root: sudo make $@" >&2; exit 1; }
endef

define need
@command -v dpkg-query >/dev/null || exit 0; \
missing=$$(for need in $(1); do \
	command -v "$${need%:*}" >/dev/null && [ "$${need#*:}" != "$$need" ] && continue; \
	[ "$$(dpkg-query -W -f '$${db:Status-Status}' "$${need#*:}" 2>/dev/null)" = installed ] || printf ' %s' "$${need#*:}"; done); \
[ -n "$$missing" ] || exit 0; \
[ "$$(id -u)" = 0 ] || { echo "make: packages are missing; as root: apt-get install$$missing" >&2; exit 1; }; \
echo "installing$$missing"; \
export DEBIAN_FRONTEND=noninteractive; \
apt-get install -qq --no-install-recommends $$missing >/dev/null 2>&1 || \
	{ apt-get update -qq && apt-get install -qq --no-install-recommends $$missing >/dev/null; }
endef
