# How penfold is built, tried, tested and installed. GNU make, 4.3 or later.
#
#   make            build penfoldd and penfoldctl
#   make run        try it: a mail server in a scratch directory
#   make test       all tests
#   make powercut   a thousand power cuts, by root, in a quarter of an hour
#   make soak       an hour of everything at once; SECONDS=3600 SEED=
#   make fuzz       an hour of octets that nobody would send; SECONDS=3600
#   make bench      tables and plots of what mail costs; ARGS=sessions for one series
#   make check      format, lints, man pages
#   make install    PREFIX=/usr/local SYSCONFDIR=/etc DESTDIR=

PREFIX     = /usr/local
SYSCONFDIR = /etc
DESTDIR    =

CARGO   = cargo
INSTALL = install
MANDOC  = mandoc

# Cargo reads this variable too; what it built must be looked for in the same place.
TARGET   = $(or $(CARGO_TARGET_DIR),target)
PROGRAMS = $(TARGET)/release/penfoldd $(TARGET)/release/penfoldctl
SOURCES  = Cargo.toml Cargo.lock $(shell find src -type f)

DOC  = $(DESTDIR)$(PREFIX)/share/doc/penfold
MAN  = $(DESTDIR)$(PREFIX)/share/man
CONF = $(DESTDIR)$(SYSCONFDIR)/penfold/penfold.conf

.PHONY: all run test powercut soak fuzz bench check install clean
.DELETE_ON_ERROR:

all: $(PROGRAMS)

# A real file with real prerequisites, so that `make install` as root finds it
# up to date and does not need cargo. The touch is for the program that did not
# depend on what changed: cargo leaves its date alone, and make would ask again.
$(PROGRAMS) &: $(SOURCES)
	$(CARGO) build --release --locked
	touch $(PROGRAMS)

run:
	$(CARGO) build --locked
	tests/try $(TARGET)/debug/penfoldd

test:
	tests/setup
	$(CARGO) test --locked

# The tests make some fifty cuts; these are for a change of how mail is kept.
powercut:
	tests/setup
	PENFOLD_CUTS=1000 $(CARGO) test --locked --test powercut what_got -- --nocapture

# A minute of it is in `make test`. A failure tells the seed of its choices.
soak: SECONDS = 3600
soak:
	PENFOLD_SOAK_SECONDS=$(SECONDS) $(if $(SEED),PENFOLD_SOAK_SEED=$(SEED)) \
		$(CARGO) test --locked --test soak -- --nocapture

# Three seconds of each are in `make test`.
fuzz: SECONDS = 3600
fuzz:
	PENFOLD_FUZZ=$$(($(SECONDS) / 4)) $(CARGO) test --locked --test sasl --test login_fuzz --test front --test tls -- --nocapture

# Speed is never a reason to fail. See penfold-performance(7).
bench:
	tests/setup
	$(CARGO) bench --locked --bench bench -- $(ARGS)

# mandoc's exit status ignores what is below -W; silence is the only success.
check:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	@echo '$(MANDOC) -T lint -W warning man/*'
	@said=$$($(MANDOC) -T lint -W warning man/* 2>&1) && test -z "$$said" || { printf '%s\n' "$$said"; exit 1; }

# The samples always go to the documentation; the configuration is written once,
# and from then on it is its owner's. (A dangling link is somebody's choice too.)
install: $(PROGRAMS)
	$(INSTALL) -d $(DESTDIR)$(PREFIX)/sbin $(DOC)/examples $(dir $(CONF))
	$(INSTALL) -m 755 $(PROGRAMS) $(DESTDIR)$(PREFIX)/sbin
	for page in man/*.[1578]; do \
		$(INSTALL) -D -m 644 $$page $(MAN)/man$${page##*.}/$${page##*/} || exit; \
	done
	$(INSTALL) -m 644 README LICENSE $(DOC)
	for sample in etc/*; do \
		sed 's,/usr/local/,$(PREFIX)/,g' $$sample | \
			$(INSTALL) -m 644 /dev/stdin $(DOC)/examples/$${sample##*/} || exit; \
	done
	test -e $(CONF) || test -h $(CONF) || $(INSTALL) -m 644 $(DOC)/examples/penfold.conf $(CONF)

clean:
	$(CARGO) clean
