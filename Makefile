# Builds, tries, tests and installs penfold. Needs GNU make 4.3 or later.
# After a semicolon: variables that can be set on the command line, with their defaults.
#
#   make            build penfoldd and penfoldctl; FEATURES=shared-store
#   make run        run a mail server in a scratch directory
#   make test       all tests
#   make interop    mail exchanged with other mail software
#   make powercut   simulate a thousand power cuts, as root, in a quarter of an hour
#   make soak       an hour of random load with failures; SECONDS=3600 SEED=
#   make fuzz       random input, for about SECONDS in all; SECONDS=3600
#   make bench      measure performance, with tables and plots; ARGS=sessions for one series
#   make check      format, lints, man pages, licences and advisories of packages
#   make machines   check whether penfold compiles for other machines, for which rustup has what is needed
#   make dist       pack the sources of the last commit, with all packages that they need, in dist/ of
#                   the directory in which cargo builds
#   make install    install programs, pages, samples and units; prefix=/usr/local DESTDIR=
#                   and the directories below (`make uninstall` removes what it has installed)
#   make deb        build a Debian package, in the directory in which cargo builds; needs debhelper
#   make install-sendmail    replace the system's sendmail, mailq and newaliases
#                   (`make uninstall-sendmail` restores them)

# The directory variables of the GNU coding standards. The programs, too, use /etc, /var and
# /run by default. If one of the variables from systemdsystemunitdir on is empty, the files for
# that directory are not installed.
PREFIX        = /usr/local
SYSCONFDIR    = /etc
DESTDIR       =
prefix        = $(PREFIX)
exec_prefix   = $(prefix)
sbindir       = $(exec_prefix)/sbin
libexecdir    = $(exec_prefix)/libexec
sysconfdir    = $(SYSCONFDIR)
localstatedir = /var
runstatedir   = /run
datarootdir   = $(prefix)/share
mandir        = $(datarootdir)/man
docdir        = $(datarootdir)/doc/penfold
systemdsystemunitdir = $(prefix)/lib/systemd/system
sysusersdir   = $(prefix)/lib/sysusers.d
tmpfilesdir   = $(prefix)/lib/tmpfiles.d
bashcompletiondir = $(datarootdir)/bash-completion/completions
zshcompletiondir  = $(datarootdir)/zsh/site-functions
fishcompletiondir = $(datarootdir)/fish/vendor_completions.d

CARGO   = cargo
INSTALL = install
MANDOC  = mandoc
SETUP   = tests/setup

# The directory in which cargo builds.
TARGET   = $(or $(CARGO_TARGET_DIR),target)
PROGRAMS = $(TARGET)/release/penfoldd $(TARGET)/release/penfoldctl
SOURCES  = Cargo.toml Cargo.lock $(shell find src etc/languages -type f)

# Programs name source files of packages when they panic. With these names, the programs that are
# built from an archive of `make dist` are the same in every directory.
ifneq ($(wildcard vendor),)
export RUSTFLAGS := $(strip $(RUSTFLAGS) --remap-path-prefix=$(CURDIR)/=)
endif

SAMPLES = $(filter-out etc/install.sh etc/dist.sh etc/debian/%,$(shell find etc -type f))
PAGES   = $(wildcard man/*.[1-9])
LINKS   = $(libexecdir)/penfold
DOC     = $(DESTDIR)$(docdir)
CONF    = $(DESTDIR)$(sysconfdir)/penfold/penfold.conf

# In the samples in etc/, @NAME@ stands for the value of the variable NAME. Because of the
# three variables below, the samples name a path only if it is not the default of the programs:
# command lines get an option -f, and penfold.conf gets the spool and the control socket.
config_option  = $(if $(filter-out /etc,$(sysconfdir)), -f $(sysconfdir)/penfold/penfold.conf)
comment_spool  = $(if $(filter /var,$(localstatedir)),#)
comment_socket = $(if $(filter /run,$(runstatedir)),#)
IN_TEMPLATES   = sbindir libexecdir docdir sysconfdir localstatedir runstatedir \
	config_option comment_spool comment_socket
FILL_IN = sed $(foreach name,$(IN_TEMPLATES),-e 's,@$(name)@,$($(name)),g')

# The pages name programs and samples where they are by default.
FILL_IN_PAGE = sed -e 's,/usr/local/sbin/penfold,$(sbindir)/penfold,g' -e 's,/usr/local/share/doc/penfold,$(docdir),g'

.PHONY: all run test interop powercut soak fuzz bench check clean
.PHONY: install uninstall install-sendmail uninstall-sendmail deb dist machines
.DELETE_ON_ERROR:

all: $(PROGRAMS)

# The prerequisites are complete: after `make`, the programs are up to date for `make install`
# as root, which therefore does not need cargo. If a change of the sources does not affect a
# program, cargo leaves the old date, and `touch` corrects it.
$(PROGRAMS) &: $(SOURCES)
	$(CARGO) build --release --locked $(addprefix --features=,$(FEATURES))
	touch $(PROGRAMS)

run:
	$(CARGO) build --locked
	tests/try $(TARGET)/debug/penfoldd

# Tools such as mkfs.ext4 are in directories that the PATH of many users lacks.
test interop powercut soak fuzz bench: export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin
test interop: export CARGO := $(CARGO)
test:
	$(SETUP)
	@tests/all

# Includes the checks that take too long for `make test`.
interop:
	$(SETUP)
	@tests/all --test interop -- --include-ignored

# `make test` includes about seventy cuts. Run all of these after a change of the spool.
powercut:
	$(SETUP)
	PENFOLD_CUTS=1000 $(CARGO) test --locked --test storage powercut::acknowledged -- --nocapture

# `make test` includes a short soak. A soak that fails prints the seed of its random choices.
soak: SECONDS = 3600
soak:
	PENFOLD_SOAK_SECONDS=$(SECONDS) $(if $(SEED),PENFOLD_SOAK_SEED=$(SEED)) \
		$(CARGO) test --locked --test load soak -- --nocapture

# In `make test`, each of these tests runs for three seconds. Here, 31 of them run for PENFOLD_FUZZ
# seconds each. Two run at the same time, so all of them take about SECONDS.
fuzz: SECONDS = 3600
fuzz:
	PENFOLD_FUZZ=$$(($(SECONDS) * 2 / 31)) $(CARGO) test --locked \
		--test fuzz -- --nocapture --test-threads=2

# Fails if penfold does not work, but not if it is slow. See penfold-performance(7).
bench:
	$(SETUP)
	$(CARGO) bench --locked --bench bench -- $(ARGS)

# Fails if mandoc prints anything, whatever its exit status is.
check:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets --features shared-store -- -D warnings
	$(CARGO) clippy --locked -- -D warnings
	for features in '' mailauth filters; do \
		$(CARGO) clippy --locked --no-default-features --features "$$features" -- -D warnings || exit; \
	done
	@echo '$(MANDOC) -T lint -W warning man/*'
	@said=$$($(MANDOC) -T lint -W warning man/* 2>&1) && test -z "$$said" || { printf '%s\n' "$$said"; exit 1; }
	tests/deny

# Installs all samples as documentation. If penfold.conf exists, even as a dangling symbolic
# link, it is left alone.
install: $(PROGRAMS)
	$(INSTALL) -d $(DESTDIR)$(sbindir) $(DESTDIR)$(LINKS) $(DOC)/examples $(dir $(CONF))
	$(INSTALL) -m 755 $(PROGRAMS) $(DESTDIR)$(sbindir)
	for name in sendmail mailq newaliases; do \
		ln -sfn $(sbindir)/penfoldctl $(DESTDIR)$(LINKS)/$$name || exit; \
	done
	for page in $(PAGES); do \
		place=$(DESTDIR)$(mandir)/man$${page##*.}/$${page##*/}; \
		$(INSTALL) -D -m 644 $$page $$place && $(FILL_IN_PAGE) $$page > $$place || exit; \
	done
	$(INSTALL) -m 644 README NEWS LICENSE $(DOC)
	for sample in $(SAMPLES); do \
		place=$(DOC)/examples/$${sample#etc/}; \
		$(INSTALL) -D -m 644 $$sample $$place && $(FILL_IN) $$sample > $$place || exit; \
	done
	$(call copies,systemd,$(systemdsystemunitdir))
	$(call copies,sysusers.d,$(sysusersdir))
	$(call copies,tmpfiles.d,$(tmpfilesdir))
	$(call copies,completion/bash,$(bashcompletiondir))
	$(call copies,completion/zsh,$(zshcompletiondir))
	$(call copies,completion/fish,$(fishcompletiondir))
	test -e $(CONF) || test -h $(CONF) || $(INSTALL) -m 644 $(DOC)/examples/penfold.conf $(CONF)
	@DESTDIR=$(DESTDIR) SPOOL=$(localstatedir)/spool/penfold etc/install.sh user $(addsuffix /penfold.conf,$(sysusersdir)) $(addsuffix /penfold.conf,$(tmpfilesdir))
	@DESTDIR=$(DESTDIR) etc/install.sh next $(sbindir)/penfoldctl $(sysconfdir)/penfold/penfold.conf

# copies FOLDER,DIRECTORY: installs the samples in etc/FOLDER in the directory in which the
# system looks for them. If DIRECTORY is empty, it does nothing.
copies = $(if $(2),for sample in $(filter etc/$(1)/%,$(SAMPLES)); do \
		$(INSTALL) -D -m 644 $(DOC)/examples/$${sample#etc/} $(DESTDIR)$(2)/$${sample##*/} || exit; \
	done)

# Keeps the configuration, the spool, all mail and the user. Fails while a daemon runs.
uninstall:
	@DESTDIR=$(DESTDIR) etc/install.sh running $(sbindir)/penfoldctl
	@DESTDIR=$(DESTDIR) etc/install.sh no-sendmail $(LINKS)
	rm -f $(addprefix $(DESTDIR)$(sbindir)/,$(notdir $(PROGRAMS)))
	rm -f $(foreach page,$(PAGES),$(DESTDIR)$(mandir)/man$(subst .,,$(suffix $(page)))/$(notdir $(page)))
	rm -f $(if $(systemdsystemunitdir),$(addprefix $(DESTDIR)$(systemdsystemunitdir)/,$(notdir $(filter etc/systemd/%,$(SAMPLES)))))
	rm -f $(if $(sysusersdir),$(DESTDIR)$(sysusersdir)/penfold.conf) $(if $(tmpfilesdir),$(DESTDIR)$(tmpfilesdir)/penfold.conf)
	rm -f $(if $(bashcompletiondir),$(DESTDIR)$(bashcompletiondir)/penfoldctl) \
		$(if $(zshcompletiondir),$(DESTDIR)$(zshcompletiondir)/_penfoldctl) \
		$(if $(fishcompletiondir),$(DESTDIR)$(fishcompletiondir)/penfoldctl.fish)
	rm -f $(addprefix $(DESTDIR)$(LINKS)/,sendmail mailq newaliases) $(addprefix $(DOC)/,README NEWS LICENSE $(SAMPLES:etc/%=examples/%))
	@rmdir $(addprefix $(DOC)/examples/,$(patsubst etc/%,%,$(filter-out etc,$(shell find etc -depth -type d)))) $(DOC)/examples $(DOC) \
		$(DESTDIR)$(LINKS) 2> /dev/null || :

install-sendmail:
	@DESTDIR=$(DESTDIR) etc/install.sh sendmail $(LINKS) $(DOC)/examples/mailer.conf

uninstall-sendmail:
	@DESTDIR=$(DESTDIR) etc/install.sh no-sendmail $(LINKS)

# The programs are those of `make`. Compiles nothing else.
deb: $(PROGRAMS)
	@CARGO="$(CARGO)" etc/debian/build $(TARGET)

machines:
	@CARGO="$(CARGO)" tests/machines

# The same commit gives the same archive.
dist:
	@CARGO="$(CARGO)" etc/dist.sh $(TARGET)/dist

clean:
	$(CARGO) clean
